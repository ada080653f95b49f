//! Names and credentials.

use otter_protocol::{Alias, ApiKey, DeviceId, Mac, OwnerId, ReleaseId, Token};

/// What is read as an id reads the same when it is written; an alias is clean once it was cleaned;
/// secrets do not print.
///
/// # Panics
/// If that is not so.
pub fn ids(bytes: &[u8]) {
    if let Some(token) = Token::parse(bytes) {
        assert_eq!(Token::parse(&token.text()).map(|token| token.0), Some(token.0));
        hides(&format!("{token:?}"), bytes);
    }
    if let Some(key) = ApiKey::parse(bytes) {
        hides(&format!("{key:?}"), bytes);
        assert!(ApiKey::parse(&key.text()).is_some());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(device) = DeviceId::parse(text) {
        assert_eq!(DeviceId::parse(&device.to_string()), Some(device));
    }
    if let Some(release) = ReleaseId::parse(text) {
        assert_eq!(ReleaseId::parse(&release.to_string()), Some(release));
    }
    if let Some(owner) = OwnerId::parse(text) {
        assert_eq!(owner.as_str(), text);
    }
    if let Some(mac) = Mac::parse(text) {
        assert_eq!(Mac::parse(&mac.to_string()), Some(mac), "{text:?}");
        assert_eq!(Mac::from_bits(mac.to_bits()), Some(mac), "{text:?}");
    }
    if let Some(alias) = Alias::clean(text) {
        let shown = alias.as_str();
        assert_eq!(Alias::clean(shown).as_ref(), Some(&alias), "{text:?}");
        let is_safe = |c: char| !c.is_control() && !matches!(c, '"' | '\\' | '{' | '}');
        assert!(!shown.is_empty() && shown.chars().all(is_safe), "{text:?}: {shown:?}");
    }
}

fn hides(shown: &str, secret: &[u8]) {
    let secret = String::from_utf8_lossy(secret);
    assert!(!shown.contains(&*secret), "a secret is shown");
}
