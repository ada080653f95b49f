//! Certificates of clients, and for whom they may speak (docs/tls.md).

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, string::Ia5String,
};
use rustls::version::{TLS12, TLS13};

use super::client::{Client, Identity};
use super::{RUNTIMES, Setting, Stage};
use crate::admin;
use crate::device::Device;

const WRONG_KEY: &str = "{\"success\":false,\"response\":\"owner_found_but_no_key\"}";

/// Who signs them.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// A certificate with these names.
    fn sign(&self, uris: &[String]) -> Identity {
        let mut params = CertificateParams::new(["device.example".to_owned()]).expect("a name");
        let uri = |uri: &String| SanType::URI(Ia5String::try_from(uri.as_str()).expect("ASCII"));
        params.subject_alt_names.extend(uris.iter().map(uri));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// What a device is answered that checks in by this client.
fn check_in(client: &Client, stage: &Stage, device: &Device, place: usize) -> String {
    let https = stage.server.https[place];
    client.ask(https, &device.check_in_request("1.0.0")).text()
}

fn download(client: &Client, stage: &Stage, token: &str) -> u16 {
    let answer = client.ask(stage.https(), &Device::download_request(token, 0));
    assert!(answer.status != 200 || answer.body == stage.image);
    answer.status
}

#[test]
fn a_certificate_speaks_for_its_owner_and_device_only() {
    let authority = Authority::new();
    let listen = &[",client_certificates=required", ",client_certificates=optional"];
    for runtime in RUNTIMES {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = directory.path().join("ca.pem").display().to_string();
        std::fs::write(&ca, authority.0.pem()).expect("written");
        let variables = &[("OTTER_TLS_CLIENT_CA", ca.as_str())];
        let stage = Setting { runtime, listen, variables, ..Setting::default() }.start();
        let (other_owner, other_key) = admin::owner_with_key(&stage.server.admin);
        let (device, sister) = (stage.device(1), stage.device(2));
        let foreign = Device::nth(stage.server.http, &other_owner, &other_key, 3);
        foreign.check_in("1.0.0");
        let owner_name = format!("urn:otter:owner:{}", stage.owner);
        let device_name = format!("urn:otter:device:{}", device.udid);

        for version in [&TLS12, &TLS13] {
            let bare = stage.client().of(version);
            let client = |uris: &[&String]| {
                let uris: Vec<_> = uris.iter().map(|uri| (*uri).clone()).collect();
                bare.clone().holding(&authority.sign(&uris))
            };
            let says = |client: &Client, device: &Device| check_in(client, &stage, device, 0);
            let is_good = |said: &str| said.contains("\"success\":true");

            // Without names it is only a ticket for the door.
            let any = client(&[]);
            for device in [&device, &sister, &foreign] {
                assert!(is_good(&says(&any, device)), "{runtime}");
            }
            let of_owner = client(&[&owner_name]);
            assert!(is_good(&says(&of_owner, &device)) && is_good(&says(&of_owner, &sister)));
            assert_eq!(says(&of_owner, &foreign), WRONG_KEY);
            for of_device in [client(&[&device_name]), client(&[&owner_name, &device_name])] {
                assert!(is_good(&says(&of_device, &device)), "{runtime}");
                assert_eq!(says(&of_device, &sister), WRONG_KEY);
                assert_eq!(says(&of_device, &foreign), WRONG_KEY);
                assert_eq!(download(&of_device, &stage, &stage.token(2)), 404);
                assert_eq!(download(&of_device, &stage, &stage.token(1)), 200);
            }
            let token = stage.token(2);
            assert_eq!(download(&client(&[&device_name]), &stage, &token), 404);
            assert_eq!(download(&of_owner, &stage, &token), 200, "nobody used it up");
            // A name that cannot be understood is for nobody.
            let strange = client(&[&"urn:otter:vendor:7".to_owned()]);
            assert_eq!(says(&strange, &device), WRONG_KEY);
            assert_eq!(download(&strange, &stage, &stage.token(1)), 404);
        }
        stage.end();
    }
}

#[test]
fn who_has_no_certificate_or_a_bad_one_is_let_in_as_the_listener_says() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let listen = &[",client_certificates=required", ",client_certificates=optional", ""];
    for runtime in RUNTIMES {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = directory.path().join("ca.pem").display().to_string();
        std::fs::write(&ca, ours.0.pem()).expect("written");
        let variables = &[("OTTER_TLS_CLIENT_CA", ca.as_str())];
        let stage = Setting { runtime, listen, variables, ..Setting::default() }.start();
        let device = stage.device(1);
        let request = device.check_in_request("1.0.0");
        for version in [&TLS12, &TLS13] {
            let bare = stage.client().of(version);
            let good = bare.clone().holding(&ours.sign(&[]));
            let bad = bare.clone().holding(&theirs.sign(&[]));
            for (client, lets_in) in
                [(&bare, [false, true, true]), (&good, [true; 3]), (&bad, [false, false, true])]
            {
                for (https, is_let_in) in stage.server.https.iter().zip(lets_in) {
                    // In TLS 1.3 a client hears only after its part that it was refused.
                    let answer = client.try_connect(*https).and_then(|mut line| {
                        line.send(&request);
                        line.answer()
                    });
                    let answer = answer.map(|answer| answer.status).ok();
                    assert_eq!(answer, is_let_in.then_some(200), "{runtime} {version:?}");
                }
            }
        }
        assert_eq!(stage.handshakes("not_trusted"), 6, "{runtime}");
        stage.end();
    }
}
