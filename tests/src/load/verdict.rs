//! What may be answered to a check-in, and what may not.

use serde_json::Value;

use crate::Reply;

/// What became of a check-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// 200 with the right owner and `udid`, to a device that was acknowledged before.
    Known,
    /// The same, to one that was not.
    Registered,
    /// 503, as docs/wire.md 1.0 has it: with `Retry-After`, closing.
    Unavailable,
    /// There was no whole answer: refused, reset, or closed before it was complete.
    Closed,
    /// No answer in time, and no end of the connection.
    Silent,
    /// An answer that must not be: what, and why.
    Wrong(String),
}

impl Class {
    /// Was it answered with 200, rightly?
    #[must_use]
    pub fn is_right(&self) -> bool {
        matches!(self, Self::Known | Self::Registered)
    }

    /// A server may answer rightly, or that it cannot, or end; it may neither say anything else
    /// nor leave a device waiting.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::Known | Self::Registered | Self::Unavailable | Self::Closed => true,
            Self::Silent | Self::Wrong(_) => false,
        }
    }
}

/// Who asked.
pub(super) struct Asked<'a> {
    pub(super) owner: &'a str,
    /// The id that the device has sent, or was given before; the answer must have it.
    pub(super) udid: Option<&'a str>,
    pub(super) mac: &'a str,
    pub(super) is_known: bool,
}

/// Judges an answer; returns the `udid` in it beside, if it is right.
pub(super) fn judge(reply: &Reply, asked: &Asked<'_>) -> (Class, Option<String>) {
    match reply.status {
        200 => match judge_ok(reply, asked) {
            Ok(udid) if asked.is_known => (Class::Known, Some(udid)),
            Ok(udid) => (Class::Registered, Some(udid)),
            Err(why) => (wrong(reply, why), None),
        },
        503 => (judge_unavailable(reply), None),
        _ => (wrong(reply, "status"), None),
    }
}

fn judge_ok(reply: &Reply, asked: &Asked<'_>) -> Result<String, &'static str> {
    let body: Value = serde_json::from_slice(&reply.body).map_err(|_| "no JSON")?;
    let registration = &body["registration"];
    let is = |name: &str, value: &str| registration[name].as_str() == Some(value);
    if is("status", "OK") {
        if registration["success"] != Value::Bool(true) || !is("owner", asked.owner) {
            return Err("another owner, or no success");
        }
    } else if !is("status", "FIRMWARE_UPDATE") {
        return Err("neither OK nor FIRMWARE_UPDATE");
    } else if registration["mac"].as_str().is_none_or(|mac| mac.replace(':', "") != asked.mac) {
        return Err("the mac of another device");
    }
    let udid = registration["udid"].as_str().ok_or("no udid")?;
    let is_uuid = udid.len() == 36 && udid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    match asked.udid {
        Some(expected) if expected != udid => Err("the udid of another device"),
        None if !is_uuid => Err("a udid that is none"),
        Some(_) | None => Ok(udid.to_owned()),
    }
}

fn judge_unavailable(reply: &Reply) -> Class {
    let seconds = reply.header("Retry-After").and_then(|seconds| seconds.parse::<u32>().ok());
    if seconds.unwrap_or(0) == 0 {
        wrong(reply, "a 503 without Retry-After")
    } else if !reply.says_close() || reply.body != UNAVAILABLE {
        wrong(reply, "a 503 unlike docs/wire.md 1.0")
    } else {
        Class::Unavailable
    }
}

fn wrong(reply: &Reply, why: &str) -> Class {
    Class::Wrong(format!("{why}: {}{}", reply.head, String::from_utf8_lossy(&reply.body)))
}

const UNAVAILABLE: &[u8] = br#"{"success":false,"response":"unavailable"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    const UDID: &str = "5ccf7fee-1337-4000-8000-00000000ab01";

    fn class(status: &str, headers: &str, body: &str, udid: Option<&str>, is_known: bool) -> Class {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        let (reply, _) = Reply::parse(text.as_bytes(), false).expect("a reply");
        judge(&reply, &Asked { owner: "o", udid, mac: "5CCF7FEE1337", is_known }).0
    }

    #[test]
    fn a_right_answer_has_the_right_owner_and_udid() {
        let ok = |owner: &str, udid: &str| {
            format!(
                "{{\"registration\":{{\"success\":true,\"status\":\"OK\",\"owner\":\"{owner}\",\
                 \"udid\":\"{udid}\"}}}}"
            )
        };
        let is = |body: &str, udid, is_known| class("200 OK", "", body, udid, is_known);
        assert_eq!(is(&ok("o", UDID), Some(UDID), true), Class::Known);
        assert_eq!(is(&ok("o", UDID), None, false), Class::Registered);
        let other = UDID.replace("01", "02");
        for (body, udid) in [
            (ok("p", UDID), Some(UDID)),
            (ok("o", &other), Some(UDID)),
            (ok("o", "0"), None),
            (String::from("{}"), None),
            (String::from("{\"registration\":{\"success\":false}}"), None),
            (String::from("OK"), None),
        ] {
            assert!(matches!(is(&body, udid, true), Class::Wrong(_)), "{body}");
        }
    }

    #[test]
    fn an_update_names_the_device() {
        let update = |mac: &str| {
            let body = format!(
                "{{\"registration\":{{\"status\":\"FIRMWARE_UPDATE\",\"udid\":\"{UDID}\",\
                 \"mac\":\"{mac}\"}}}}"
            );
            class("200 OK", "", &body, Some(UDID), true)
        };
        assert_eq!(update("5C:CF:7F:EE:13:37"), Class::Known);
        assert!(!update("5C:CF:7F:EE:13:38").is_allowed());
    }

    #[test]
    fn a_503_says_when_to_come_back() {
        let (late, close) = ("Retry-After: 10\r\n", "Connection: close\r\n");
        let both = [late, close].concat();
        let body = std::str::from_utf8(UNAVAILABLE).expect("ASCII");
        let is = |headers: &str, body: &str| class("503 No", headers, body, None, false);
        assert_eq!(is(&both, body), Class::Unavailable);
        for (headers, body) in [(late, body), (close, body), (&both, "no")] {
            assert!(!is(headers, body).is_allowed(), "{headers} {body}");
        }
        assert!(!class("404 No", &both, body, None, false).is_allowed());
    }
}
