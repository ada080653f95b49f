//! `otter serve` on either runtime.

use crate::admin;
use crate::device::{Device, image};
use crate::program::Data;

#[test]
fn both_runtimes_serve_count_and_drain() {
    for runtime in ["mio", "tokio"] {
        let data = Data::new();
        let server = data.serve_with(&["--runtime", runtime, "--workers", "2"], &[]);
        let (owner, key) = admin::owner_with_key(&server.admin);
        let device = Device::nth(server.http, &owner, &key, 1);
        device.check_in("1.0.0");
        let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
        let image = image(50_000, 0);
        admin::json(&server.admin, "POST", &target, &image);
        let token = device.token();
        let answer = device.download(&token, 0);
        assert_eq!((answer.status, answer.body == image), (200, true), "{runtime}");
        assert_eq!(device.download(&token, 0).status, 404, "{runtime}");
        let metrics = crate::metrics::scrape(&server.admin);
        assert!(metrics.contains("\notter_tokens_claimed_total 1\n"), "{runtime}: {metrics}");
        assert!(metrics.contains("\notter_connections_accepted_total 4\n"), "{runtime}: {metrics}");
        let ended = server.stop();
        assert!(ended.status.success(), "{runtime}: {}", ended.stderr);
    }
}

#[test]
fn the_environment_chooses_too_and_what_there_is_not_is_named() {
    let data = Data::new();
    drop(data.serve_with(&[], &[("OTTER_RUNTIME", "tokio")]));
    let ran = data.run(&["serve", "--runtime", "glommio"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("mio, tokio"), "{}", ran.stderr);
}
