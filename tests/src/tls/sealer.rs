//! A client that has lost its manners: it seals any record, also those that no library would send.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

use super::records::{APPLICATION, Record};
use super::{Client, Terms};

/// Seals records in a client's name from its handshake on. Only AES-128-GCM.
#[derive(Debug)]
pub struct Sealer {
    key: LessSafeKey,
    iv: Vec<u8>,
    sequence: u64,
    is_1_3: bool,
}

impl Sealer {
    /// Takes the place of a client whose handshake is done. Its settings must let secrets out
    /// ([`Terms::sealable`]).
    ///
    /// # Panics
    /// If they do not, or if something other than AES-128-GCM was agreed upon.
    #[must_use]
    pub fn of(client: Client) -> Self {
        let is_1_3 = client.version() == Some(ProtocolVersion::TLSv1_3);
        let secrets = client.into_secrets().expect("secrets that may be known");
        let (sequence, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
            panic!("no AES-128-GCM");
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).expect("a key");
        let (key, iv) = (LessSafeKey::new(key), iv.as_ref().to_vec());
        Self { key, iv, sequence, is_1_3 }
    }

    /// One record of this kind.
    ///
    /// # Panics
    /// If it is too long.
    pub fn seal(&mut self, kind: u8, plain: &[u8]) -> Vec<u8> {
        let sequence = self.sequence.to_be_bytes();
        self.sequence += 1;
        if self.is_1_3 {
            self.seal_1_3(sequence, kind, plain)
        } else {
            self.seal_1_2(sequence, kind, plain)
        }
    }

    /// RFC 8446 5.2.
    fn seal_1_3(&self, sequence: [u8; 8], kind: u8, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&self.iv);
        for (byte, sequence) in nonce[4..].iter_mut().zip(sequence) {
            *byte ^= sequence;
        }
        let mut payload = [plain, &[kind]].concat();
        let [high, low] = ((payload.len() + TAG_BYTES) as u16).to_be_bytes();
        self.encrypt(nonce, &[APPLICATION, 3, 3, high, low], &mut payload);
        Record { kind: APPLICATION, payload }.bytes()
    }

    /// RFC 5288 3.
    fn seal_1_2(&self, sequence: [u8; 8], kind: u8, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.iv[..4]);
        nonce[4..].copy_from_slice(&sequence);
        let [high, low] = (plain.len() as u16).to_be_bytes();
        let mut payload = plain.to_vec();
        self.encrypt(nonce, &[&sequence[..], &[kind, 3, 3, high, low]].concat(), &mut payload);
        payload.splice(..0, sequence);
        Record { kind, payload }.bytes()
    }

    fn encrypt(&self, nonce: [u8; 12], aad: &[u8], payload: &mut Vec<u8>) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), payload).expect("short enough");
    }
}

impl Terms {
    /// What a [`Sealer`] can go on with: AES-128-GCM alone.
    #[must_use]
    pub fn sealable(mut self) -> Self {
        self.suites.retain(|suite| format!("{:?}", suite.suite()).contains("AES_128_GCM"));
        self.lets_secrets_out = true;
        self
    }
}

const TAG_BYTES: usize = 16;
