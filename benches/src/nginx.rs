//! What nginx is told: Debian's settings, as far as they count, and no log of requests.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tls::Certificate;

/// The program. An ordinary user's `PATH` often lacks the folder it is in.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join("nginx")).find(|program| program.is_file())
}

/// An address of loopback that is free now; nginx cannot choose one by itself.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// How files are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Downloads {
    /// As Debian's settings say.
    Stock,
    /// As is best over loopback.
    Tuned,
}

/// One worker. Below `/images/` lie the files of its folder; whatever else is asked, and
/// whatever the body says, the answer is a constant of the length of a check-in's reply.
pub(crate) fn configuration(
    address: SocketAddr,
    downloads: Downloads,
    secure: Option<(SocketAddr, &Certificate)>,
) -> String {
    let reply = format!("{{\"registration\":{{\"padding\":\"{}\"}}}}", "x".repeat(216));
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    let tls = secure.map(|(address, certificate)| {
        let (pem, key) = (quoted(&certificate.pem()), quoted(&certificate.key()));
        format!(
            "listen {address} ssl; ssl_certificate {pem}; ssl_certificate_key {key};
             ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:devices:10m;"
        )
    });
    let tls = tls.unwrap_or_default();
    let (nopush, buffer) = match downloads {
        Downloads::Stock => ("on", ""),
        Downloads::Tuned => ("off", " sndbuf=256k"),
    };
    // Its own folders for bodies need not be there, nor belong to who runs this.
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};"))
        .concat();
    format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid;
         error_log stderr crit; events {{ worker_connections 20000; }}
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; {folders}
           sendfile on; tcp_nopush {nopush};
           server {{ listen {address}{buffer}; {tls}
             location /images/ {{ alias ./; }}
             location / {{ default_type application/json; return 200 '{reply}'; }} }} }}"
    )
}
