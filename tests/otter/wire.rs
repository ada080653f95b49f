//! Replies as the libraries in the field receive them (docs/wire.md 2.2, rules 1 to 3): a line is
//! written at a time, one line end follows the body uncounted, and whoever waits for the first
//! byte then reads into 512 bytes until the receive queue is empty for a moment.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::device::{Device, image};
use crate::program::{Data, text};

#[test]
fn every_reply_arrives_whole_in_one_segment() {
    let data = Data::new();
    let server = data.serve();
    let owner = text(&data.json(&["owner", "create"]), "owner");
    let key = text(&data.json(&["key", "create", "--owner", &owner]), "key");
    let alias = "a".repeat(64);
    let version = format!("repository-with-a-long-name:1.0.{}", "1".repeat(19));
    for n in 0..20 {
        let device = Device::nth(server.http, &owner, &key, n);
        let registered = check_in(&device);
        assert_eq!(registered["status"], "OK");
        data.json(&["device", "set", &device.udid, "--alias", &alias, "--auto-update", "on"]);
        assert_eq!(check_in(&device)["auto_update"], true);
    }
    let file = data.beside("firmware.bin");
    std::fs::write(&file, image(20_000, 1)).expect("written");
    let file = file.display().to_string();
    let args = ["publish", &file, "--owner", &owner, "--all", "--platform", "arduino"];
    data.json(&[&args[..], &["--version", &version]].concat());
    for n in 0..20 {
        let device = Device::nth(server.http, &owner, &key, n);
        let offered = check_in(&device);
        assert_eq!(offered["status"], "FIRMWARE_UPDATE");
        assert_eq!(offered["alias"], alias);
        assert_eq!(offered["version"], version);
    }
    let stranger = Device { key: "0".repeat(64), ..Device::nth(server.http, &owner, &key, 0) };
    let reply = lines_and_reply(&stranger);
    assert!(reply.contains("owner_found_but_no_key"), "{reply}");
}

/// The object of a reply that a device could read.
fn check_in(device: &Device) -> Value {
    let reply = lines_and_reply(device);
    // As libraries 2.x and 3.x cut it: from the keyword to the first two closing braces.
    let start = reply.find("{\"registration\"").expect("the keyword");
    let end = reply.find("}}").expect("two braces") + 2;
    assert_eq!(end, reply.len(), "the first two braces are the last: {reply}");
    let object: Value = serde_json::from_str(&reply[start..end]).expect("JSON");
    object["registration"].clone()
}

fn lines_and_reply(device: &Device) -> String {
    let body = format!(
        "{{\"registration\":{{\"mac\":\"5CCF7F{}\",\"version\":\"1.0.0\",\"owner\":\"{}\",\
         \"alias\":\"unnamed\",\"udid\":\"{}\",\"platform\":\"arduino\",\
         \"firmware\":\"thinx-lib-esp32-arduino:2.9.450\"}}}}",
        device.udid[30..].to_uppercase(),
        device.owner,
        device.udid
    );
    let length = format!("Content-Length: {}", body.len());
    let key = format!("Authentication: {}", device.key);
    let mut socket = TcpStream::connect(device.server).expect("connected");
    socket.set_nodelay(true).expect("no delay");
    for line in [
        "POST /device/register HTTP/1.1",
        "Host: thinx.cloud",
        &key,
        "Accept: application/json",
        "Origin: device",
        "Content-Type: application/json",
        "User-Agent: THiNX-Client",
        "Connection: close",
        &length,
        "",
        &body,
    ] {
        socket.write_all(format!("{line}\r\n").as_bytes()).expect("written");
    }
    // The first byte is there: what is not there with it is lost to the device.
    assert_eq!(socket.peek(&mut [0]).expect("a first byte"), 1);
    socket.set_nonblocking(true).expect("no waiting");
    let mut buffer = [0; 512];
    let filled = socket.read(&mut buffer).expect("a reply");
    assert!(filled < buffer.len(), "{filled} bytes overflow the device's buffer");
    match socket.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("more after {filled} bytes"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    let reply = String::from_utf8(buffer[..filled].to_vec()).expect("text");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let length = format!("Content-Length: {}", body.len());
    assert!(head.contains(&length), "the whole body is in the first segment: {reply}");
    reply
}
