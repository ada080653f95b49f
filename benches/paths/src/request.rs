//! What devices say, as bytes.

use otter_protocol::Token;

use crate::Shop;

/// The check-in of library 2.9.450 (docs/wire.md 1.1), on a connection that is kept.
#[must_use]
pub fn check_in(shop: &Shop, version: &str) -> Vec<u8> {
    posted(shop, &registration(shop, version, ""))
}

/// A check-in whose JSON has as many bytes as a body may have: nested, with numbers, escapes and
/// members that nobody knows.
#[must_use]
pub fn largest_check_in(shop: &Shop) -> Vec<u8> {
    let mut more = String::from(r#","more":["#);
    let room = BODY_BYTES_MAX - registration(shop, VERSION, r#","more":[""]"#).len();
    while more.len() + UNIT.len() < room {
        more.push_str(UNIT);
    }
    let rest = BODY_BYTES_MAX - registration(shop, VERSION, &format!(r#"{more}""]"#)).len();
    more.push_str(&format!(r#""{}"]"#, "x".repeat(rest - 1)));
    posted(shop, &registration(shop, VERSION, &more))
}

/// A download by token of bytes that are not limited (docs/token.md), on a connection that is kept.
#[must_use]
pub fn redeem(token: &Token, bytes: usize) -> Vec<u8> {
    let text = token.text();
    let token = String::from_utf8_lossy(&text);
    format!(
        concat!(
            "GET /device/firmware?ott={} HTTP/1.1\r\nHost: thinx.cloud:7442\r\n",
            "User-Agent: ESP8266-http-Update\r\nx-ESP8266-mode: sketch\r\nRange: bytes=0-{}\r\n\r\n"
        ),
        token,
        bytes - 1
    )
    .into_bytes()
}

fn posted(shop: &Shop, body: &str) -> Vec<u8> {
    let key = shop.key.text();
    let head = format!(
        concat!(
            "POST /device/register HTTP/1.1\r\nHost: thinx.cloud\r\nAuthentication: {}\r\n",
            "Accept: application/json\r\nOrigin: device\r\nContent-Type: application/json\r\n",
            "User-Agent: THiNX-Client\r\nContent-Length: {}\r\n\r\n"
        ),
        String::from_utf8_lossy(&key),
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

fn registration(shop: &Shop, version: &str, more: &str) -> String {
    format!(
        concat!(
            r#"{{"registration":{{"mac":"5CCF7F3D8F2A","version":"{}","owner":"{}","#,
            r#""alias":"unnamed","udid":"5ccf7fee-1337-4000-8000-000000000001","#,
            r#""firmware":"thinx-lib-esp32-arduino:2.9.450","status":"Registered","#,
            r#""platform":"arduino:esp8266","fcid":"164020"{}}}}}"#
        ),
        version,
        shop.owner.as_str(),
        more
    )
}

/// What a device runs, unless it says another version.
pub const VERSION: &str = "2.9.450";
/// The default of `Config::body_bytes_max`.
const BODY_BYTES_MAX: usize = 16_384;
/// Ends so that the next one, or a text, can follow.
const UNIT: &str = r#"{"n":-12.5e3,"t":"caf\u00e9 \"x\" \n","l":[true,false,null,[0]]},"#;
