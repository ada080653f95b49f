//! Several servers with TLS over one Redis.

use otter_tests::redis::RedisServer;

use super::ECDSA;
use super::client::Identity;
use super::openssl::s_client;
use crate::site::{Place, Site};

#[test]
fn a_ticket_of_one_server_is_good_at_the_other_and_after_a_restart() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    Identity::new(&[ECDSA]).write(&certificate, &key);
    let [shown, secret] = [&certificate, &key].map(|path| path.display().to_string());
    let args = ["--tls-listen", "127.0.0.1:0", "--cert", &shown, "--key", &secret];
    let url = redis.url();
    let args = [&args[..], &["--store", &url]].concat();
    let mut site = Site::of((0..2).map(|_| Place::start(&args, &[])).collect());
    let request = site.device(0, 1).check_in_request("1.0.0");
    let ask = |site: &Site, server: usize, options: &[&str]| {
        let https = site.server(server).https[0];
        let args = [&["-ign_eof"], options].concat();
        let said = s_client(&certificate, https, &args, &request).text();
        assert!(said.contains("\"success\":true"), "{said}");
        said
    };
    let versions = ["-tls1_2", "-tls1_3"];
    let session = |version: &str| path(version).display().to_string();
    for version in versions {
        let said = ask(&site, 0, &[version, "-sess_out", &session(version)]);
        assert!(said.contains("New, TLSv1."), "{said}");
        let said = ask(&site, 1, &[version, "-sess_in", &session(version)]);
        assert!(said.contains("Reused, TLSv1."), "{version} at the other: {said}");
    }
    for server in 0..2 {
        assert!(site.places[server].take().stop().status.success());
        site.places[server].restart();
        for version in versions {
            let said = ask(&site, server, &[version, "-sess_in", &session(version)]);
            assert!(said.contains("Reused, TLSv1."), "{version} after a restart: {said}");
        }
    }
    // Ids are a server's own, and who comes with another's makes a full handshake.
    let id = session("id");
    ask(&site, 0, &["-tls1_2", "-no_ticket", "-sess_out", &id]);
    assert!(ask(&site, 1, &["-tls1_2", "-no_ticket", "-sess_in", &id]).contains("New, TLSv1.2"));
    assert!(ask(&site, 0, &["-tls1_2", "-no_ticket", "-sess_in", &id]).contains("Reused, TLSv1.2"));
}
