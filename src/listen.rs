//! Where the server listens for devices, as flags and settings say it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where devices connect without TLS: an address and a port, or `off`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Listen {
    Off,
    At(SocketAddr),
}

impl Listen {
    /// The address, if there is one.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == OFF { Ok(Self::Off) } else { address(text).map(Self::At) }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(OFF),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// One place where devices connect by TLS: `ADDRESS`, and perhaps `,max_fragment_size=N` and
/// `,client_certificates=optional` or `required`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct TlsListen {
    pub(crate) address: SocketAddr,
    /// The most bytes of payload in a record that is sent, those of the handshake included: 512 to
    /// 16384, which is also the default. Its header of 5 bytes and what encryption adds (up to 24
    /// bytes) come on top, as they do for the extension of RFC 6066, section 4.
    pub(crate) max_fragment_size: usize,
    pub(crate) client_certificates: ClientCertificates,
}

/// What is asked of clients on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum ClientCertificates {
    /// Nothing, not even whether there is a certificate.
    #[default]
    Off,
    /// A certificate, and it must be good if there is one.
    Optional,
    /// A good certificate.
    Required,
}

impl TlsListen {
    fn set(&mut self, option: &str) -> Result<(), String> {
        let Some((name, value)) = option.split_once('=') else {
            return Err(format!("`{option}` is no option: {OPTIONS}"));
        };
        match name {
            MAX_FRAGMENT_SIZE => {
                let size = value.parse().ok();
                let size = size.filter(|size| (FRAGMENT_LEAST..=FRAGMENT_MOST).contains(size));
                self.max_fragment_size = size.ok_or_else(|| {
                    format!(
                        "`{MAX_FRAGMENT_SIZE}` is a number of bytes from {FRAGMENT_LEAST} to \
                         {FRAGMENT_MOST}, not `{value}`"
                    )
                })?;
            }
            CLIENT_CERTIFICATES => {
                let known = ClientCertificates::ALL.iter().find(|known| known.name() == value);
                self.client_certificates = *known.ok_or_else(|| {
                    format!("`{CLIENT_CERTIFICATES}` is off, optional or required, not `{value}`")
                })?;
            }
            _ => return Err(format!("`{name}` is no option: {OPTIONS}")),
        }
        Ok(())
    }
}

impl ClientCertificates {
    const ALL: [Self; 3] = [Self::Off, Self::Optional, Self::Required];

    fn name(self) -> &'static str {
        match self {
            Self::Off => OFF,
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl FromStr for TlsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let mut listen = Self {
            address: address(parts.next().unwrap_or_default())?,
            max_fragment_size: FRAGMENT_MOST,
            client_certificates: ClientCertificates::default(),
        };
        parts.try_for_each(|option| listen.set(option))?;
        Ok(listen)
    }
}

impl fmt::Display for TlsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, max_fragment_size, client_certificates } = self;
        address.fmt(f)?;
        if *max_fragment_size != FRAGMENT_MOST {
            write!(f, ",{MAX_FRAGMENT_SIZE}={max_fragment_size}")?;
        }
        if *client_certificates != ClientCertificates::Off {
            write!(f, ",{CLIENT_CERTIFICATES}={}", client_certificates.name())?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl TryFrom<String> for TlsListen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TlsListen> for String {
    fn from(listen: TlsListen) -> Self {
        listen.to_string()
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an address is a number and a port, such as 0.0.0.0:7442 or [::]:7442; names are not \
         looked up"
            .to_owned()
    })
}

const OFF: &str = "off";
const MAX_FRAGMENT_SIZE: &str = "max_fragment_size";
const CLIENT_CERTIFICATES: &str = "client_certificates";
const OPTIONS: &str = "after the address there may be `,max_fragment_size=512` (to 16384) and \
                       `,client_certificates=optional` (or required)";
/// The smallest fragment that a device can ask for (RFC 6066, section 4).
const FRAGMENT_LEAST: usize = 512;
/// The largest fragment that TLS has (RFC 8446, section 5.1).
const FRAGMENT_MOST: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "0.0.0.0:7443",
            "[::1]:0,max_fragment_size=512",
            "127.0.0.1:7443,client_certificates=required",
            "127.0.0.1:7443,max_fragment_size=4096,client_certificates=optional",
        ] {
            let listen: TlsListen = text.parse().expect(text);
            assert_eq!(listen.to_string(), text);
        }
        for text in ["off", "0.0.0.0:7442"] {
            let listen: Listen = text.parse().expect(text);
            assert_eq!(listen.to_string(), text);
        }
        let blanks: TlsListen = "0.0.0.0:1, max_fragment_size=16384 , client_certificates=off"
            .parse()
            .expect("blanks after commas");
        assert_eq!(blanks.to_string(), "0.0.0.0:1");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("7443", "such as 0.0.0.0:7442"),
            ("", "such as 0.0.0.0:7442"),
            ("0.0.0.0:1,", "`` is no option"),
            ("0.0.0.0:1,fast", "`fast` is no option"),
            ("0.0.0.0:1,max_fragment=512", "`max_fragment` is no option"),
            ("0.0.0.0:1,max_fragment_size=511", "from 512 to 16384, not `511`"),
            ("0.0.0.0:1,max_fragment_size=16385", "from 512 to 16384, not `16385`"),
            ("0.0.0.0:1,max_fragment_size=4k", "not `4k`"),
            ("0.0.0.0:1,client_certificates=on", "off, optional or required, not `on`"),
        ] {
            let error = text.parse::<TlsListen>().expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!("on".parse::<Listen>().is_err());
    }
}
