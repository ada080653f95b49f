//! Answers of the function inside of Redis: any bytes.

use bytes::Bytes;
use otter_protocol::{DeviceId, OwnerId};

use super::catalog::{Catalog, release_value};
use super::copy::token_from;
use super::device::{Known, Remembered};
use super::reply::Reply;
use super::trouble::Trouble;
use crate::publishing::ReleaseRow;

/// Whatever Redis answers, it is read or refused: as many replies as operations, no field that is
/// not there, and a release that is read says the same when it is written.
///
/// The first byte is the number of operations.
///
/// # Panics
/// If that is not so.
pub fn redis_answers(bytes: &[u8]) {
    let Some((operations, answer)) = bytes.split_first() else { return };
    let operations = usize::from(*operations);
    let answer = Bytes::copy_from_slice(answer);
    let each = || Reply::each(answer.clone(), operations);
    let Ok(replies) = each() else { return };
    assert_eq!(replies.len(), operations, "not one reply for each operation");
    for kind in 0..KINDS {
        for reply in each().expect("as before").into_iter().flatten() {
            // What is wrong with it is said in words.
            if let Err(trouble) = read(kind, reply) {
                assert!(!trouble.to_string().is_empty());
            }
        }
    }
}

/// Answers as the function gives them.
///
/// # Panics
/// Never: memory takes all.
#[must_use]
pub fn redis_seeds() -> Vec<Vec<u8>> {
    let owner = "07cef9718edaad79b3974251bb5ef4aedca58703142e8c4c48c20f96cda4979c";
    let id = "5ccf7fee-1337-4000-8000-00000000ab01";
    let hash = "88eb20839c1d8bf43819818b75a25cef3244c28e77817386b7b73b043193cef4";
    let release = format!(
        r#"1 1795478791 0 {{"version":"1.2.0","platform":"arduino","env_hash":null,
        "sha256":"{hash}","md5":"{}","size":9000,"bundle":false,"device":"{id}","source":"b1"}}"#,
        &hash[..32]
    );
    let keys = format!(r#"[{{"hash":"{hash}","alias":"a","created":7}},{{"key":"{hash}"}}]"#);
    let device = [
        Some(owner),
        Some("5ccf7f3d8f2a"),
        Some("dev1"),
        Some("arduino:esp8266"),
        Some("1.0.0"),
        None,
        Some("1"),
        Some("0"),
        Some("123"),
        Some("1795478791"),
        Some("07070707-0707-0707-0707-070707070707 1 0 9"),
    ];
    let state = [&[Some("s1")][..], &device].concat();
    let row = [&device[..], &[Some("1795478000"), Some("{}"), None]].concat();
    let token = format!("{id} 1795478791000 600000 900000 100");
    vec![
        packed(&[&state]),
        packed(&[&row]),
        packed(&[&[Some("new"), Some("t"), Some("1"), Some(&keys), Some(id), Some(&release)]]),
        packed(&[&[Some("same")], &[Some("!"), Some("no")], &[]]),
        packed(&[&[Some(hash), Some(&token)]]),
        packed(&[&[Some(id), Some(id)], &[Some("1"), None, Some("0")]]),
    ]
}

fn packed(replies: &[&[Option<&str>]]) -> Vec<u8> {
    let mut answer = vec![replies.len() as u8];
    let fits = "memory takes all";
    rmp::encode::write_array_len(&mut answer, replies.len() as u32).expect(fits);
    for reply in replies {
        rmp::encode::write_array_len(&mut answer, reply.len() as u32).expect(fits);
        for field in *reply {
            match field {
                Some(text) => rmp::encode::write_str(&mut answer, text).expect(fits),
                None => rmp::encode::write_nil(&mut answer).expect(fits),
            }
        }
    }
    answer
}

/// Reads a reply as one of the operations answers.
fn read(kind: u8, mut reply: Reply) -> Result<(), Trouble> {
    let (device, owner) = (DeviceId([5; 16]), owner());
    match kind {
        0 => Remembered::read(device, None, reply).map(drop),
        1 => Known::read_row(device, reply).map(drop),
        2 => Known::read_copy(device, reply).map(drop),
        3 => catalog(&owner, reply),
        4 => {
            while !reply.is_empty() {
                token_from(device, owner, &mut reply)?;
            }
            Ok(())
        }
        5 => {
            while !reply.is_empty() {
                reply.parsed(DeviceId::parse)?;
            }
            Ok(())
        }
        6 => {
            while !reply.is_empty() {
                reply.flag()?;
            }
            Ok(())
        }
        7 => {
            while !reply.is_empty() {
                let _ = reply.digits();
                let _: Result<f64, _> = reply.number();
            }
            reply.digits().map(drop)
        }
        _ => {
            while !reply.is_empty() {
                reply.optional()?;
            }
            assert!(reply.optional()?.is_none(), "a field that is not there");
            Ok(())
        }
    }
}

fn catalog(owner: &OwnerId, reply: Reply) -> Result<(), Trouble> {
    let Some(catalog) = Catalog::read(owner, reply)? else { return Ok(()) };
    let _ = (catalog.exists(), catalog.keys().len());
    for (place, release) in catalog.releases.rows.iter().enumerate() {
        let row = ReleaseRow {
            offer: release.offer.clone(),
            owner: *owner,
            target: release.target,
            published: release.published,
            withdrawn: release.withdrawn,
            source: release.source.as_deref().map(str::to_owned),
        };
        let text = release_value(place as u64, &row);
        let (again, read) = super::catalog::release_from(row.offer.release, &text)
            .expect("what was written can be read");
        assert_eq!((again, &read.offer), (place as u64, &row.offer));
        assert!(catalog.release(row.offer.release).is_some(), "a release that is not found");
    }
    Ok(())
}

fn owner() -> OwnerId {
    OwnerId::parse(&"a1".repeat(32)).expect("an owner's id")
}

const KINDS: u8 = 9;
