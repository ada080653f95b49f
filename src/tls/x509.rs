//! What a certificate says of itself (RFC 5280).

use std::fmt;
use std::net::IpAddr;

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Reader, SliceReader};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The DNS names of its subjectAltName, in lower case.
    pub(crate) dns_names: Vec<String>,
    /// Its other names: addresses and URIs of the subjectAltName; the common name, where there is
    /// no subjectAltName.
    pub(crate) other_names: Vec<String>,
    pub(crate) key: KeyKind,
    /// Unix seconds.
    pub(crate) not_before: u64,
    /// Unix seconds.
    pub(crate) not_after: u64,
}

/// What sort of key a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    P256,
    P384,
    Ed25519,
    /// With so many bits.
    Rsa(usize),
    /// One that cannot be used here, by its name.
    Other(String),
}

impl Facts {
    /// Reads a certificate. Fails with what is wrong with it.
    pub(crate) fn of(certificate: &[u8]) -> Result<Self, String> {
        let certificate = CertificateInner::<Raw>::from_der(certificate);
        let certificate = certificate.map_err(|error| error.to_string())?;
        let tbs = certificate.tbs_certificate();
        let validity = tbs.validity();
        let mut facts = Self {
            dns_names: Vec::new(),
            other_names: Vec::new(),
            key: KeyKind::of(tbs.subject_public_key_info()),
            not_before: validity.not_before.to_unix_duration().as_secs(),
            not_after: validity.not_after.to_unix_duration().as_secs(),
        };
        facts.take_names(tbs).map_err(|error| format!("its names: {error}"))?;
        Ok(facts)
    }

    /// What to call it: its first name.
    pub(crate) fn name(&self) -> &str {
        self.names().next().unwrap_or("(no name)")
    }

    /// All names, those of DNS first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.dns_names.iter().chain(&self.other_names).map(String::as_str)
    }

    fn take_names(&mut self, tbs: &TbsCertificateInner<Raw>) -> der::Result<()> {
        let Some((_, SubjectAltName(names))) = tbs.get_extension::<SubjectAltName>()? else {
            let common_name = tbs.subject().common_name()?;
            self.other_names.extend(common_name.map(|name| name.value().into_owned()));
            return Ok(());
        };
        for name in names {
            match name {
                GeneralName::DnsName(name) => {
                    self.dns_names.push(name.as_str().to_ascii_lowercase());
                }
                GeneralName::UniformResourceIdentifier(uri) => {
                    self.other_names.push(uri.to_string());
                }
                GeneralName::IpAddress(bytes) => {
                    self.other_names.extend(address(bytes.as_bytes()).map(|ip| ip.to_string()));
                }
                GeneralName::OtherName(_)
                | GeneralName::Rfc822Name(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EdiPartyName(_)
                | GeneralName::RegisteredId(_) => {}
            }
        }
        Ok(())
    }
}

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfoOwned) -> Self {
        let parameter = || key.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
        match key.algorithm.oid {
            EC => match parameter() {
                Some(SECP256R1) => Self::P256,
                Some(SECP384R1) => Self::P384,
                Some(SECP521R1) => Self::Other("ECDSA P-521".to_owned()),
                Some(curve) => Self::Other(format!("ECDSA over the curve {curve}")),
                None => Self::Other("ECDSA over a curve without a name".to_owned()),
            },
            RSA => Self::Rsa(modulus_bits(key.subject_public_key.raw_bytes()).unwrap_or_default()),
            ED25519 => Self::Ed25519,
            ED448 => Self::Other("Ed448".to_owned()),
            RSA_PSS => Self::Other("RSA for PSS only".to_owned()),
            other => Self::Other(format!("of the algorithm {other}")),
        }
    }

    /// Can it sign here? ring has no others.
    pub(crate) fn is_usable(&self) -> bool {
        match self {
            Self::P256 | Self::P384 | Self::Ed25519 => true,
            Self::Rsa(bits) => (RSA_BITS_LEAST..=RSA_BITS_MOST).contains(bits),
            Self::Other(_) => false,
        }
    }

    /// The word of the metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::P256 | Self::P384 => "ecdsa",
            Self::Ed25519 => "ed25519",
            Self::Rsa(_) => "rsa",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// SHA-1 of a certificate as sketches give it to `setFingerprint`: it names a certificate there,
/// and nothing here relies on it.
pub(crate) fn sha1_fingerprint(certificate: &[u8]) -> String {
    fingerprint(&SHA1_FOR_LEGACY_USE_ONLY, certificate)
}

/// SHA-256 of a certificate, written as OpenSSL does.
pub(crate) fn sha256_fingerprint(certificate: &[u8]) -> String {
    fingerprint(&SHA256, certificate)
}

fn fingerprint(algorithm: &'static Algorithm, certificate: &[u8]) -> String {
    let hash = digest(algorithm, certificate);
    let bytes: Vec<_> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Of an RSAPublicKey (RFC 8017, A.1.1).
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus = reader.sequence(|reader| {
        let modulus = UintRef::decode(reader)?;
        UintRef::decode(reader).map(|_exponent| modulus)
    });
    let modulus: Result<UintRef<'_>, der::Error> = modulus;
    let bytes = modulus.ok()?.as_bytes();
    let zeros = bytes.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Some(bytes.len() * 8 - zeros)
}

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const SECP521R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ED448: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.113");
/// What ring signs with.
const RSA_BITS_LEAST: usize = 2048;
const RSA_BITS_MOST: usize = 4096;
