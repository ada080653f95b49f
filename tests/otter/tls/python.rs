//! Python's `ssl` module.

use std::process::Command;

use super::{ECDSA, Stage};
use crate::device::{Device, sha256};

/// Checks in, does so again with the session of before, downloads, and says of each what came.
const DEVICE: &str = r#"
import hashlib, socket, ssl, sys

port, authority, name, version, check_in, download = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)

def ask(request, session=None, half=False):
    with socket.create_connection(("127.0.0.1", int(port)), 30) as plain:
        with context.wrap_socket(plain, server_hostname=name, session=session) as secret:
            secret.sendall(request.encode())
            if half:
                # Sends close_notify, and waits for the server's: nothing else may come before.
                secret.unwrap().close()
                return None, None, None
            answer = b""
            while part := secret.recv(4096):
                answer += part
            return answer, secret.session, secret.session_reused

answer, session, reused = ask(check_in)
assert not reused
print("first", b'"status":"OK"' in answer)
answer, _, reused = ask(check_in, session)
print("again", b'"status":"OK"' in answer, reused)
answer, _, _ = ask(download)
print("image", hashlib.sha256(answer.split(b"\r\n\r\n", 1)[1]).hexdigest())
ask("", half=True)
ask("POST /device/register HT", half=True)
print("unwrapped")
"#;

#[test]
fn a_device_in_python() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("NOT TESTED: python3 is not installed (tests/run installs it)");
        return;
    }
    let stage = Stage::start();
    for (version, n) in [("TLSv1_2", 1), ("TLSv1_3", 2)] {
        let output = Command::new("python3")
            .args(["-c", DEVICE, &stage.https().port().to_string()])
            .arg(stage.ecdsa())
            .args([ECDSA, version, &stage.device(n).check_in_request("1.0.0")])
            .arg(Device::download_request(&stage.token(n), 0))
            .output()
            .expect("python3 runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted =
            format!("first True\nagain True True\nimage {}\nunwrapped\n", sha256(&stage.image));
        assert_eq!(said, wanted, "{version}: {}", String::from_utf8_lossy(&output.stderr));
    }
    stage.end();
}
