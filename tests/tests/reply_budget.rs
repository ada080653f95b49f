//! What old libraries can take (docs/wire.md 2.2 and 2.3): short, whole, compact, and free of the
//! texts that they cut replies apart by.

use std::sync::Arc;

use otter_protocol::{DeviceId, Mac, Offer, OwnerId, Transmit};
use otter_tests::scene::{self, KEY, OWNER, registration};
use otter_tests::tls::Difference;
use otter_tests::{Draft, Exchange, Fields, Heard, Request, Scene, Target};

const REPLY_BYTES_MAX: usize = 511;
const LIBRARY_2_3: &str = "thinx-lib-esp8266-arduino:2.3.184:2018-01-01";

/// The longest owner, alias and version there are, and an update for the device.
fn longest() -> (Scene, Fields) {
    let owner_text = "z".repeat(OwnerId::BYTES_MAX);
    let owner = scene::owner(&owner_text);
    let device = DeviceId([0xee; 16]);
    let mut scene = Scene::new();
    scene.store.add_key(owner, scene::key(KEY));
    scene.store.register(owner, device, Mac::parse("SIGFOX12345678"), &"a".repeat(200));
    scene.store.set_auto_update(device, true);
    let version = longest_version("1.2.3");
    scene.store.publish(Target::Device(device), &Draft::binary(&version, 2000));
    let fields = registration()
        .text("owner", &owner_text)
        .text("udid", &device.to_string())
        .text("mac", "SIGFOX12345678");
    (scene, fields)
}

fn longest_version(version: &str) -> String {
    let repository = "r".repeat(Offer::VERSION_BYTES_MAX - version.len() - 1);
    format!("{repository}:{version}")
}

fn check_in(exchange: &mut Exchange, fields: &Fields) -> Heard {
    let body = fields.wrapped("registration");
    exchange.request(&Request::check_in(KEY, &body).without("Connection").bytes())
}

fn closing(scene: &Scene, fields: &Fields) -> Heard {
    let body = fields.wrapped("registration");
    scene.exchange().request(&Request::check_in(KEY, &body).bytes())
}

#[test]
fn the_longest_ok_reply_fits() {
    let (mut scene, fields) = longest();
    scene.store.set_auto_update(DeviceId([0xee; 16]), false);
    let heard = closing(&scene, &fields);
    assert!(heard.text().contains("\"auto_update\":false"));
    assert!(heard.bytes.len() <= REPLY_BYTES_MAX, "{} bytes", heard.bytes.len());
}

#[test]
fn the_longest_offer_fits() {
    let (scene, fields) = longest();
    let heard = closing(&scene, &fields);
    assert!(heard.text().contains("FIRMWARE_UPDATE"));
    assert!(heard.bytes.len() <= REPLY_BYTES_MAX, "{} bytes", heard.bytes.len());
}

#[test]
fn the_longest_offer_fits_when_keep_alive_is_echoed() {
    let (scene, fields) = longest();
    let request = Request::check_in(KEY, &fields.wrapped("registration"))
        .version("HTTP/1.0")
        .without("Connection")
        .header("Connection", "keep-alive");
    let heard = scene.exchange().request(&request.bytes());
    assert!(heard.text().contains("FIRMWARE_UPDATE"));
    assert!(heard.bytes.len() <= REPLY_BYTES_MAX, "{} bytes", heard.bytes.len());
}

#[test]
fn the_longest_offer_fits_with_an_env_hash() {
    let (mut scene, fields) = longest();
    let version = longest_version("1.2.4");
    let env_hash = Some("e".repeat(64));
    let draft = Draft { env_hash, ..Draft::binary(&version, 2000) };
    scene.store.publish(Target::Device(DeviceId([0xee; 16])), &draft);
    let heard = closing(&scene, &fields);
    assert!(heard.text().contains("FIRMWARE_UPDATE"));
    assert!(heard.bytes.len() <= REPLY_BYTES_MAX, "{} bytes", heard.bytes.len());
}

#[test]
fn the_longest_offer_with_a_url_fits() {
    let (mut scene, fields) = longest();
    scene.config.public_url = Some(Arc::from(format!("http://{}", "h".repeat(57))));
    let fields = fields.text("firmware", LIBRARY_2_3);
    let mut exchange = scene.exchange();
    let told = check_in(&mut exchange, &fields);
    assert!(told.text().contains("\"status\":\"OK\""), "first the flag");
    let request = Request::check_in(KEY, &fields.wrapped("registration"));
    let heard = exchange.request(&request.bytes());
    assert!(heard.text().contains("FIRMWARE_UPDATE"));
    assert!(heard.bytes.len() <= REPLY_BYTES_MAX, "{} bytes", heard.bytes.len());
}

#[test]
fn the_longest_refusal_fits() {
    let fields = registration().text("owner", &"x".repeat(15_000));
    let heard = closing(&Scene::new(), &fields);
    assert!(heard.reply().text().contains("invalid owner:"));
    assert!(heard.bytes.len() <= REPLY_BYTES_MAX, "{} bytes", heard.bytes.len());
    let escaped = registration().text("owner", &"\u{1}".repeat(2000));
    let heard = closing(&Scene::new(), &escaped);
    assert_eq!(heard.reply().json()["success"], false);
    assert!(heard.bytes.len() <= REPLY_BYTES_MAX, "{} bytes", heard.bytes.len());
}

#[test]
fn a_check_in_reply_is_shown_as_one_piece_of_memory() {
    if Difference::Pieces.is_here() {
        return;
    }
    let (scene, fields) = longest();
    let closing = Request::check_in(KEY, &fields.wrapped("registration"));
    let kept = closing.clone().without("Connection");
    for (request, ends) in [(closing, true), (kept, false)] {
        let mut exchange = scene.exchange();
        exchange.input(&request.bytes());
        while let Some(query) = exchange.ask() {
            let answer = exchange.store.answer(&query);
            exchange.answer(answer);
        }
        let Some(Transmit::Bytes { bytes, more }) = exchange.peer.connection().transmit() else {
            panic!("not one piece of memory");
        };
        assert!(bytes.ends_with(b"}}"), "head and body together");
        assert_eq!(more, ends, "the end follows at once, and nothing else ever does");
    }
}

#[test]
fn replies_carry_no_other_headers() {
    let (scene, fields) = longest();
    for fields in [fields, registration(), registration().text("owner", "nobody")] {
        let reply = closing(&scene, &fields).reply();
        assert_eq!(reply.header_names(), ["Content-Type", "Content-Length", "Connection"]);
    }
}

#[test]
fn the_first_and_only_end_of_two_objects_is_the_end() {
    let offering = Scene::new().with_release("1.2.0", 2000).with_auto_update();
    for scene in [Scene::new(), offering] {
        let text = closing(&scene, &registration()).reply().text().to_owned();
        assert_eq!(text.find("}}"), Some(text.len() - 2), "{text}");
        assert!(text.starts_with("{\"registration\""), "{text}");
        assert!(!text.contains([' ', '\n', '\t']), "compact: {text}");
    }
}

/// The replies to a device that is named so by the server, and to one that calls itself so.
fn named(name: &str) -> [String; 2] {
    let mut scene = Scene::new();
    let id = DeviceId([0x77; 16]);
    scene.store.register(scene::owner(OWNER), id, None, name);
    let fields = registration().text("udid", &id.to_string()).text("alias", name).without("mac");
    [fields.clone(), fields.text("udid", "0")]
        .map(|fields| closing(&scene, &fields).reply().text().to_owned())
}

#[test]
fn a_name_cannot_break_the_reply() {
    for name in ["}}", "\\\"", "a\u{7}\u{1b}[31m", "{\"x\":{}}", "\"configuration\":{}"] {
        for text in named(name) {
            assert_eq!(text.find("}}"), Some(text.len() - 2), "{text}");
            assert!(!text.contains('\\'), "{text}");
            assert!(text.bytes().all(|b| b >= b' '), "{text}");
        }
    }
}

/// Library 2.9.450 takes the branch of the keyword that is latest in the text.
#[test]
fn a_name_cannot_hijack_the_reply() {
    for name in ["a\"registration", "x \"FIRMWARE_UPDATE", "my \"notification\""] {
        for text in named(name) {
            assert_eq!(text.matches("\"registration").count(), 1, "{text}");
            for keyword in ["\"FIRMWARE_UPDATE", "\"notification", "\"configuration"] {
                assert!(!text.contains(keyword), "{text}");
            }
        }
    }
}

/// The quote before the name makes a keyword of it.
#[test]
fn a_name_that_begins_like_a_keyword_cannot_hijack_the_reply() {
    for name in ["registration", "FIRMWARE_UPDATE", "notification", "configuration 2"] {
        for text in named(name) {
            assert_eq!(text.matches("\"registration").count(), 1, "{text}");
            for keyword in ["\"FIRMWARE_UPDATE", "\"notification", "\"configuration"] {
                assert!(!text.contains(keyword), "{text}");
            }
        }
    }
}

#[test]
fn the_poison_text_is_never_emitted() {
    let poison = "old_protocol_owner:-undefined-";
    for fields in [
        registration().text("owner", poison),
        registration().text("owner", &format!("x{poison}y")),
        registration().text("alias", poison).text("udid", "0").without("mac"),
    ] {
        let heard = closing(&Scene::new(), &fields);
        assert!(!heard.text().contains(poison), "{}", heard.text());
    }
}

#[test]
fn names_owners_and_ids_are_never_empty_or_null() {
    for fields in [registration(), registration().text("udid", "0").without("mac")] {
        let json = closing(&Scene::new(), &fields).reply().json();
        for name in ["alias", "owner", "udid"] {
            let text = json["registration"][name].as_str().expect("a text");
            assert!(text.len() > 1 && text != "null", "{name}: {text}");
        }
        assert_eq!(json["registration"]["udid"].as_str().map(str::len), Some(36));
    }
}

#[test]
fn an_env_hash_is_in_an_offer_only_where_the_release_has_one() {
    let scene = Scene::new().with_release("1.2.0", 2000).with_auto_update();
    let text = closing(&scene, &registration()).reply().text().to_owned();
    assert!(!text.contains("env_hash"), "{text}");
}

#[test]
fn refusals_are_json_too() {
    let no_key = registration().wrapped("registration");
    for request in [
        Request::check_in(KEY, "{}"),
        Request::check_in(KEY, "nonsense"),
        Request::check_in(scene::NO_KEY, &no_key),
        Request::check_in("", &no_key),
        Request::check_in(KEY, &registration().text("owner", "\"").wrapped("registration")),
    ] {
        let reply = Scene::new().exchange().request(&request.bytes()).reply();
        assert_eq!(reply.json()["success"], false);
    }
}

#[test]
fn a_reply_that_closes_is_followed_by_the_end_and_strays_are_dropped() {
    let scene = Scene::new();
    let mut exchange = scene.exchange();
    let body = registration().wrapped("registration");
    let heard = exchange.request(&Request::check_in(KEY, &body).then(b"").bytes());
    assert!(heard.ended && exchange.peer.closed().is_none(), "shut down, and still reading");
    assert!(exchange.peer.connection().wants_read());
    let strays = exchange.request(b"\r\n");
    assert_eq!((strays.bytes.len(), strays.queries.len()), (0, 0));
    exchange.eof();
    assert_eq!(exchange.peer.closed(), Some(otter_protocol::CloseReason::Peer));
}

#[test]
fn a_device_that_closes_without_reading_is_no_trouble() {
    for wait in ["before the answer", "after the answer"] {
        let mut exchange = Scene::new().exchange();
        let body = registration().wrapped("registration");
        exchange.input(&Request::check_in(KEY, &body).bytes());
        if wait == "after the answer" {
            exchange.settle();
        }
        exchange.peer.reset(exchange.clock.now());
        assert!(exchange.peer.closed().is_some(), "{wait}");
    }
}
