//! A device is handed from server to server in the middle of its update, over one Redis.

use std::io::Read;
use std::net::TcpListener;

use md5::{Digest, Md5};
use otter_tests::redis::RedisServer;

use crate::device::{Answer, Device, image, sha256};
use crate::program::{Data, text};
use crate::site::{Place, Site, allow_updates};

const IMAGE_BYTES: usize = 2 << 20;
const CUT_AT: usize = 1_234_567;
const SECRET: &str = "98765432109876543210987654321098";

#[test]
fn a_cut_download_goes_on_elsewhere_with_images_in_a_shared_directory() {
    let redis = RedisServer::start();
    let shared = Data::new();
    let images = shared.beside("images");
    std::fs::create_dir(&images).expect("made");
    let images = images.display().to_string();
    let variables = [("OTTER_STORE", redis.url()), ("OTTER_IMAGES", images)];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let site = Site::alike(3, &variables);
    from_offer_to_dead_token(&site);
    for place in &site.places {
        let own = place.data.path().join("images");
        assert!(!own.exists() || images_in(&own) == 0, "no server keeps images of its own");
    }
}

#[test]
fn a_cut_download_goes_on_elsewhere_with_images_from_each_other() {
    let redis = RedisServer::start();
    let store = redis.url();
    // All name all, themselves included.
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let addresses = [(); 3].map(|()| free().to_string());
    let origins = addresses.each_ref().map(|address| format!("\"http://{address}/images\""));
    let origins = format!("[{}]", origins.join(", "));
    let places = addresses.iter().zip(["mio", "tokio", "mio"]).map(|(address, runtime)| {
        let variables = [
            ("OTTER_STORE", store.as_str()),
            ("OTTER_IMAGE_SECRET", SECRET),
            ("OTTER_IMAGE_LISTEN", address),
            ("OTTER_IMAGE_ORIGINS", &origins),
        ];
        Place::start(&["--runtime", runtime], &variables)
    });
    let site = Site::of(places.collect());
    from_offer_to_dead_token(&site);
    let copies = site.places.iter().map(|place| images_in(&place.data.path().join("images")));
    let copies: Vec<usize> = copies.collect();
    assert_eq!(copies, [0, 1, 1], "who published it, and who was asked for it");
}

/// Checked in and offered at A, begun and cut at B, finished at C, dead at all of them.
fn from_offer_to_dead_token(site: &Site) {
    let [a, b, c] = [0, 1, 2].map(|server| site.device(server, 1));
    assert_eq!(a.check_in("1.0.0")["status"], "OK");
    allow_updates(&site.server(1).admin, &a.udid);
    let bytes = image(IMAGE_BYTES, 5);
    site.publish(2, "1.1.0", &bytes);
    let offer = a.check_in("1.0.0");
    assert_eq!((&offer["status"], &offer["version"]), (&"FIRMWARE_UPDATE".into(), &"1.1.0".into()));
    let token = text(&offer, "ott");

    let part = begin(&b, &token);
    let rest = end(&c, &token, part.body.len());
    assert_eq!(rest.header("Content-Range"), {
        let last = IMAGE_BYTES - 1;
        Some(format!("bytes {CUT_AT}-{last}/{IMAGE_BYTES}"))
    });
    let md5 = part.header("x-MD5").expect("the image's MD5");
    assert_eq!(part.header("ETag"), rest.header("ETag"));
    let whole = [part.body, rest.body].concat();
    assert!(whole == bytes, "{} bytes", whole.len());
    assert_eq!(md5_of(&whole), md5);
    assert_eq!(sha256(&whole), sha256(&bytes));

    let dead = a.download(&token, 0);
    assert_eq!((dead.status, dead.text()), (404, "OTT_UPDATE_NOT_FOUND".to_owned()));
    let never = "0".repeat(64);
    for device in [&a, &b, &c] {
        for (token, start) in [(&token, 0), (&token, CUT_AT), (&never, 0)] {
            let again = device.download(token, start);
            assert_eq!((&again.head, &again.body), (&dead.head, &dead.body));
        }
    }
    assert_eq!(a.check_in("1.1.0")["status"], "OK", "the update has arrived");
}

/// Downloads up to [`CUT_AT`], then is gone.
fn begin(device: &Device, token: &str) -> Answer {
    let mut bytes = Vec::new();
    loop {
        let stream = device.request_download(token, 0).expect("connected");
        // Enough for any head.
        let most = (CUT_AT + 4096) as u64;
        stream.take(most).read_to_end(&mut bytes).expect("bytes");
        let mut answer = Answer::parse(std::mem::take(&mut bytes)).expect("a head");
        if answer.status == 503 {
            // The image is still on its way from the other server.
            continue;
        }
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("Content-Length"), Some(IMAGE_BYTES.to_string()));
        answer.body.truncate(CUT_AT);
        return answer;
    }
}

/// Downloads the rest.
fn end(device: &Device, token: &str, start: usize) -> Answer {
    loop {
        let answer = device.download(token, start);
        if answer.status == 503 {
            continue;
        }
        assert_eq!(answer.status, 206, "{}", answer.head);
        return answer;
    }
}

fn md5_of(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn images_in(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory).expect("readable");
    entries.filter(|entry| entry.as_ref().expect("readable").path().is_file()).count()
}
