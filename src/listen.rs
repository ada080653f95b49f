//! Where the server listens for devices, as flags and settings say it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

    /// The word of the option.
    pub(crate) fn name(self) -> &'static str {
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

/// Where a server listens now that it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    http: Option<SocketAddr>,
    https: Vec<SocketAddr>,
}

impl Places {
    /// The first of `addresses` is for plain HTTP, unless that is off.
    pub(crate) fn of(listen: Listen, addresses: &[SocketAddr]) -> Self {
        let (http, https) = addresses.split_at(listen.address().into_iter().count());
        Self { http: http.first().copied(), https: https.to_vec() }
    }

    /// How a device on this machine would reach it.
    pub(crate) fn url(&self) -> String {
        let of = |scheme, address| format!("{scheme}://{}", reachable(address));
        let https = || self.https.first().map(|https| of("https", *https));
        self.http.map(|http| of("http", http)).or_else(https).unwrap_or_default()
    }
}

impl fmt::Display for Places {
    /// As in the line that says that the server is ready: `http=A https=B,C`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let https: Vec<_> = self.https.iter().map(SocketAddr::to_string).collect();
        let https = (!https.is_empty()).then(|| format!("https={}", https.join(",")));
        let http = self.http.map(|http| format!("http={http}"));
        let all: Vec<_> = http.into_iter().chain(https).collect();
        f.write_str(&all.join(" "))
    }
}

/// An address that can be connected to, where all of them are listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
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
    fn the_unspecified_address_is_reached_at_home() {
        for (listen, reach) in [
            ("0.0.0.0:7442", "http://127.0.0.1:7442"),
            ("[::]:7442", "http://[::1]:7442"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
        ] {
            let address = listen.parse().expect("an address");
            assert_eq!(Places::of(Listen::At(address), &[address]).url(), reach);
        }
    }

    #[test]
    fn places_are_named_by_how_they_are_reached() {
        let [one, two, three] =
            ["0.0.0.0:1", "0.0.0.0:2", "[::1]:3"].map(|text| text.parse().expect("an address"));
        for (listen, addresses, text, url) in [
            (Listen::At(one), &[one][..], "http=0.0.0.0:1", "http://127.0.0.1:1"),
            (
                Listen::At(one),
                &[one, two, three],
                "http=0.0.0.0:1 https=0.0.0.0:2,[::1]:3",
                "http://127.0.0.1:1",
            ),
            (Listen::Off, &[two], "https=0.0.0.0:2", "https://127.0.0.1:2"),
        ] {
            let places = Places::of(listen, addresses);
            assert_eq!((places.to_string().as_str(), places.url().as_str()), (text, url));
        }
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
