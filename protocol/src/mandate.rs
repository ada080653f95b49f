//! Whom a client certificate lets its connection speak for.

use crate::id::{DeviceId, OwnerId};
use crate::query::{Answer, DeviceStanding, Identify, KeyStanding, Query, Redemption, Standing};

/// What a client certificate narrows its connection to. It gives no right: the API key or the token
/// is needed all the same. Named in the certificate by URIs among its subject alternative names,
/// `urn:otter:owner:<owner id>` and `urn:otter:device:<UUID>`, at most one of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mandate {
    owner: Option<OwnerId>,
    device: Option<DeviceId>,
    /// A name in it is ours and cannot be understood: what it was meant to exclude is not known.
    is_void: bool,
}

impl Mandate {
    /// `None`: no name in the certificate is about Otter, so it narrows nothing.
    #[cfg_attr(
        not(any(test, feature = "tls")),
        expect(dead_code, reason = "certificates come with TLS")
    )]
    pub(crate) fn of<'a>(uris: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut mandate = Self::default();
        for name in uris.filter_map(|uri| uri.strip_prefix("urn:otter:")) {
            let is_good = match name.split_once(':') {
                Some(("owner", id)) if mandate.owner.is_none() => {
                    mandate.owner = OwnerId::parse(id);
                    mandate.owner.is_some()
                }
                Some(("device", id)) if mandate.device.is_none() => {
                    mandate.device = DeviceId::parse(id);
                    mandate.device.is_some()
                }
                Some(_) | None => false,
            };
            mandate.is_void |= !is_good;
        }
        (mandate != Self::default()).then_some(mandate)
    }

    /// The answer to a query that it does not cover, which no store is asked: the key is wrong, the
    /// token unknown.
    pub(crate) fn refuse<I>(&self, query: &mut Query) -> Option<Answer<I>> {
        match query {
            Query::Identify(Identify { owner, device, .. }) => {
                if let Some(ours) = self.owner {
                    owner.get_or_insert(ours);
                }
                let is_covered = self.owner.is_none_or(|ours| *owner == Some(ours))
                    && self.device.is_none_or(|ours| *device == Some(ours));
                let (key, device) = (KeyStanding::Wrong, DeviceStanding::Unknown);
                let wrong = Answer::Standing(Standing { key, device, newest: None });
                (self.is_void || !is_covered).then_some(wrong)
            }
            Query::Redeem { .. } => self.is_void.then_some(Answer::Redemption(Redemption::Unknown)),
            Query::Start { .. }
            | Query::Fetch { .. }
            | Query::Record(_)
            | Query::Push { .. }
            | Query::Claim { .. } => None,
        }
    }

    /// What the store says, as far as it is about the device that it covers.
    pub(crate) fn narrow<I>(&self, answer: Answer<I>) -> Answer<I> {
        let is_ours = |device: DeviceId| self.device.is_none_or(|ours| ours == device);
        match answer {
            Answer::Standing(Standing { key, device: DeviceStanding::Known(device), .. })
                if !is_ours(device.id) =>
            {
                let device = DeviceStanding::Foreign;
                Answer::Standing(Standing { key, device, newest: None })
            }
            Answer::Redemption(Redemption::Ready { device, .. }) if !is_ours(device) => {
                Answer::Redemption(Redemption::Unknown)
            }
            other @ (Answer::Standing(_)
            | Answer::Redemption(_)
            | Answer::Release(_)
            | Answer::Recorded(_)
            | Answer::Kept
            | Answer::Claimed(_)
            | Answer::Unavailable) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{ApiKey, Token};

    const OWNER: &str = "07cef9718edaad79b3974251bb5ef4aedca58703142e8c4c48c20f96cda4979c";
    const OTHER: &str = "d2e85e0f04ee7ff3e5a61e1a2d8ca9a7dcbd8ae2ee1bf6a3b8d9e1c5b0f9a6e7";
    const DEVICE: &str = "5ccf7fee-1337-4000-8000-00000000ab01";

    fn mandate(uris: &[&str]) -> Option<Mandate> {
        Mandate::of(uris.iter().copied())
    }

    fn identify(owner: Option<&str>, device: Option<&str>) -> Query {
        let key = ApiKey::parse(OTHER.as_bytes()).expect("a key");
        let owner = owner.map(|owner| OwnerId::parse(owner).expect("an owner"));
        let device = device.map(|device| DeviceId::parse(device).expect("a device"));
        Query::Identify(Identify { owner, key, device, mac: None })
    }

    fn is_refused(mandate: &Mandate, mut query: Query) -> bool {
        mandate.refuse::<Bytes>(&mut query).is_some()
    }

    #[test]
    fn other_names_narrow_nothing() {
        assert_eq!(mandate(&["https://example.com", "urn:example:owner:a"]), None);
    }

    #[test]
    fn an_owners_certificate_speaks_for_its_devices_only() {
        let mandate = mandate(&[&format!("urn:otter:owner:{OWNER}")]).expect("a mandate");
        assert!(!is_refused(&mandate, identify(Some(OWNER), Some(DEVICE))));
        assert!(!is_refused(&mandate, identify(Some(OWNER), None)));
        assert!(is_refused(&mandate, identify(Some(OTHER), Some(DEVICE))));
        // Who asks for the device's own owner is held to the certificate's.
        let mut query = identify(None, Some(DEVICE));
        assert!(mandate.refuse::<Bytes>(&mut query).is_none());
        assert!(matches!(query, Query::Identify(Identify { owner: Some(_), .. })));
    }

    #[test]
    fn a_devices_certificate_speaks_for_it_only() {
        let mandate = mandate(&[&format!("urn:otter:device:{DEVICE}")]).expect("a mandate");
        assert!(!is_refused(&mandate, identify(Some(OTHER), Some(DEVICE))));
        assert!(is_refused(&mandate, identify(Some(OTHER), None)));
        let another = DEVICE.replace("ab01", "ab02");
        assert!(is_refused(&mandate, identify(Some(OTHER), Some(&another))));
    }

    #[test]
    fn what_cannot_be_understood_lets_nobody_in() {
        for names in [
            vec!["urn:otter:owner:short".to_owned()],
            vec!["urn:otter:device:".to_owned()],
            vec![format!("urn:otter:fleet:{OWNER}")],
            vec![format!("urn:otter:owner:{OWNER}"), format!("urn:otter:owner:{OTHER}")],
        ] {
            let mandate = Mandate::of(names.iter().map(String::as_str)).expect("a mandate");
            assert!(is_refused(&mandate, identify(Some(OWNER), Some(DEVICE))), "{names:?}");
            let token = Token::parse(OWNER.as_bytes()).expect("a token");
            assert!(is_refused(&mandate, Query::Redeem { token }), "{names:?}");
        }
    }
}
