//! Laws 8 and 9: what a connection may write and send, given what the store told it.

use bytes::Bytes;
use otter_protocol::{
    Answer, DeviceStanding, Identify, KeyStanding, Query, Record, Redemption, Standing, Token,
};

use super::TAIL_BYTES;

/// What the answers so far allow the request that is under way.
#[derive(Debug, Default)]
pub(super) struct Authority {
    /// The query that waits for its answer.
    asked: Option<Query>,
    identified: Option<(Identify, Standing)>,
    redeemed: Option<Redeemed>,
    download: Option<Download>,
}

#[derive(Debug)]
struct Redeemed {
    token: Token,
    started: bool,
    claimed: bool,
}

/// An image that may leave, and how far.
#[derive(Debug)]
struct Download {
    image: Bytes,
    token: Option<Token>,
    tail_began: bool,
}

impl Authority {
    pub(super) fn asked(&mut self, query: &Query) {
        match query {
            Query::Identify(_) | Query::Redeem { .. } => {
                (self.identified, self.redeemed, self.download) = (None, None, None);
            }
            Query::Record(record) => self.check_record(record),
            Query::Push { device, .. } => {
                let (_, standing) = self.authorized();
                let known = matches!(&standing.device, DeviceStanding::Known(d) if d.id == *device);
                assert!(known, "law 8: push token for a device that the key does not own");
            }
            Query::Fetch { release } => {
                let (_, standing) = self.authorized();
                let known = matches!(standing.device, DeviceStanding::Known(_));
                let newest = standing.newest.map(|offer| offer.release);
                assert!(known && newest == Some(*release), "law 8: fetches what was not offered");
            }
            Query::Start { token } => {
                let redeemed = self.redeemed.as_ref().expect("law 9: starts what was not redeemed");
                assert!(redeemed.token.0 == token.0, "law 9: starts another token");
                assert!(!redeemed.started, "starts a token that is started");
            }
            Query::Claim { token } => {
                let redeemed = self.redeemed.as_ref().expect("law 9: claims what was not redeemed");
                assert!(redeemed.token.0 == token.0, "law 9: claims another token");
                assert!(redeemed.started, "claims a token that was not started");
            }
        }
        self.asked = Some(query.clone());
    }

    pub(super) fn answered(&mut self, answer: &Answer<Bytes>) {
        let asked = self.asked.take();
        match (asked, answer) {
            (Some(Query::Identify(identify)), Answer::Standing(standing)) => {
                self.identified = Some((identify, standing.clone()));
            }
            (Some(Query::Fetch { .. }), Answer::Release(Some(release))) => {
                self.may_leave(&release.image, None);
            }
            (
                Some(Query::Redeem { token } | Query::Start { token }),
                Answer::Redemption(Redemption::Ready { release, started, .. }),
            ) => {
                self.redeemed = Some(Redeemed { token, started: *started, claimed: false });
                self.may_leave(&release.image, Some(token));
            }
            (Some(Query::Start { .. }), _) => (self.redeemed, self.download) = (None, None),
            (Some(Query::Claim { .. }), Answer::Claimed(true)) => {
                if let Some(redeemed) = &mut self.redeemed {
                    redeemed.claimed = true;
                }
            }
            (_, _) => {}
        }
    }

    /// What is shown of an image must be the one that was answered, and no tail without a claim.
    pub(super) fn check_image(&self, image: &Bytes, offset: u64, len: u64) {
        let download = self.download.as_ref().expect("law 8: an image without Redeem or Fetch");
        assert_eq!(*image, download.image, "law 8: another image than the one that was answered");
        let end = offset + len;
        assert!(end <= image.len() as u64, "an image part beyond the image");
        if download.token.is_some() {
            let started = self.redeemed.as_ref().is_some_and(|redeemed| redeemed.started);
            assert!(started, "law 9: image bytes before the first attempt was kept");
        }
        let held = download.token.is_some() && end > prefix_bytes(image);
        assert!(!held || self.is_claimed(), "law 9: the tail is shown without Claimed(true)");
    }

    /// What was opened of an image must be of the one that was answered; no tail without a claim.
    pub(super) fn check_bytes(&self, offset: u64, bytes: &[u8]) {
        let download = self.download.as_ref().expect("law 8: an image without Redeem or Fetch");
        self.check_image(&download.image, offset, bytes.len() as u64);
        let range = offset as usize..offset as usize + bytes.len();
        assert!(download.image[range] == *bytes, "law 8: other bytes than the image's at {offset}");
    }

    /// How long the image is that may leave.
    pub(super) fn image_bytes(&self) -> Option<u64> {
        self.download.as_ref().map(|download| download.image.len() as u64)
    }

    /// Something left that nobody here can read; the token whose tail may have begun with it.
    pub(super) fn ciphertext_left(&mut self) -> Option<Token> {
        let is_claimed = self.is_claimed();
        let download = self.download.as_mut()?;
        let token = download.token.filter(|_| is_claimed && !download.tail_began)?;
        download.tail_began = true;
        Some(token)
    }

    /// Part of an image left; the token whose tail began with it.
    pub(super) fn image_left(&mut self, offset: u64, len: u64) -> Option<Token> {
        let download = self.download.as_mut()?;
        let in_tail = offset + len > prefix_bytes(&download.image);
        let token = download.token.filter(|_| in_tail && !download.tail_began)?;
        download.tail_began = true;
        Some(token)
    }

    fn may_leave(&mut self, image: &Bytes, token: Option<Token>) {
        self.download = Some(Download { image: image.clone(), token, tail_began: false });
    }

    fn is_claimed(&self) -> bool {
        self.redeemed.as_ref().is_some_and(|redeemed| redeemed.claimed)
    }

    /// The standing behind a write. It is good for one write: the next request asks anew.
    fn authorized(&mut self) -> (Identify, Standing) {
        let identified = self.identified.take();
        let (identify, standing) = identified.expect("law 8: writes or fetches without Identify");
        assert_eq!(
            standing.key,
            KeyStanding::Valid,
            "law 8: writes or fetches without a valid key"
        );
        (identify, standing)
    }

    fn check_record(&mut self, record: &Record) {
        let (identify, standing) = self.authorized();
        assert_eq!(identify.owner, Some(record.owner), "law 8: writes for another owner");
        match &standing.device {
            DeviceStanding::Known(device) => {
                assert_eq!(record.device, Some(device.id), "law 8: writes to another device");
            }
            DeviceStanding::Unknown => {
                assert_eq!(record.device, identify.device, "law 8: registers another device");
                assert!(record.check_in.is_some(), "registers a device that did not check in");
            }
            DeviceStanding::Foreign => panic!("law 8: writes to a device of another owner"),
        }
        let newest = standing.newest.map(|offer| offer.release);
        if let Some(release) = record.grant.and_then(|grant| grant.release) {
            assert_eq!(Some(release), newest, "law 8: grants what is not the device's newest");
        }
    }
}

fn prefix_bytes(image: &Bytes) -> u64 {
    (image.len() as u64).saturating_sub(TAIL_BYTES)
}
