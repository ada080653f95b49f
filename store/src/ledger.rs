//! Changes as SQL: one transaction per group.

use otter_protocol::{Kind, Offer};
use rusqlite::{
    Connection, Error, Params, Result, ToSql, Transaction, TransactionBehavior, params,
};

use crate::publishing::Target;
use crate::tables::{Change, KeptDevice, KeptToken, PublishedRelease, TokenEvent};

/// Makes changes durable, all or none, with the highest time that was ever seen.
///
/// # Errors
/// What the database said. Nothing is kept then, as far as it knows.
pub(crate) fn commit(database: &mut Connection, changes: &[Change], now_ms: u64) -> Result<()> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for change in changes {
        write(&transaction, change)?;
    }
    one_row(&transaction, "UPDATE clock SET unix_ms = max(unix_ms, ?1)", [signed(now_ms)])?;
    transaction.commit()
}

/// SQLite's integers are signed; the bits stay.
pub(crate) fn signed(unsigned: u64) -> i64 {
    unsigned as i64
}

/// How a kind of image is called in the database.
pub(crate) fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "image",
        Kind::Bundle => "bundle",
    }
}

fn write(transaction: &Transaction<'_>, change: &Change) -> Result<()> {
    match change {
        Change::OwnerAdded { owner, created } => one_row(
            transaction,
            "INSERT INTO owners (owner, created) VALUES (?1, ?2)",
            params![owner.as_str(), signed(*created)],
        ),
        Change::KeyAdded { owner, hash, alias, created } => one_row(
            transaction,
            "INSERT INTO keys (hash, owner, alias, created)
             VALUES (?2, (SELECT id FROM owners WHERE owner = ?1), ?3, ?4)",
            params![owner.as_str(), hash, alias, signed(*created)],
        ),
        Change::KeyRevoked { hash } => {
            one_row(transaction, "DELETE FROM keys WHERE hash = ?1", [hash])
        }
        Change::DeviceKept(kept) => write_device(transaction, kept),
        Change::PushKept { device, push } => one_row(
            transaction,
            "UPDATE details SET push = ?2
             WHERE device = (SELECT id FROM devices WHERE udid = ?1)",
            params![device.0, push],
        ),
        Change::TokenKept(kept) => write_token(transaction, kept),
        Change::TokenRemoved { hash, .. } => {
            one_row(transaction, "DELETE FROM tokens WHERE hash = ?1", [hash.0])
        }
        Change::ReleasePublished(published) => write_release(transaction, published),
        Change::ReleaseWithdrawn { release, unix_s } => one_row(
            transaction,
            "UPDATE releases SET withdrawn = ?2 WHERE release = ?1",
            params![release.0, signed(*unix_s)],
        ),
    }
}

fn write_device(transaction: &Transaction<'_>, kept: &KeptDevice) -> Result<()> {
    let facts = &kept.facts;
    let udid = facts.udid.0;
    let offered = facts.offered.as_ref();
    let columns = params![
        udid,
        facts.mac.map(|mac| signed(mac.to_bits())),
        facts.alias.as_str(),
        facts.platform,
        facts.version,
        facts.env_hash,
        facts.auto_update,
        facts.told_auto_update,
        signed(facts.digest),
        signed(facts.seen),
        offered.map(|offered| offered.release.0),
        offered.map(|offered| offered.times),
        offered.map(|offered| offered.failures),
        offered.map(|offered| signed(offered.quiet_until)),
    ];
    match kept.registered {
        None => one_row(transaction, UPDATE_DEVICE, columns)?,
        Some(registered) => {
            let first = params![kept.owner.as_str(), signed(registered)];
            let columns: Vec<&dyn ToSql> = columns.iter().chain(first).copied().collect();
            one_row(transaction, INSERT_DEVICE, &*columns)?;
        }
    }
    match &kept.details {
        None => Ok(()),
        Some(details) => one_row(transaction, KEEP_DETAILS, params![udid, details]),
    }
}

fn write_token(transaction: &Transaction<'_>, kept: &KeptToken) -> Result<()> {
    let facts = &kept.facts;
    let release = facts.release.map(|release| release.0);
    match kept.event {
        TokenEvent::Issued { unix_ms } => one_row(
            transaction,
            "INSERT INTO tokens (hash, device, release, issued_ms, deadline_ms, used_ms,
                                 transfer_ms, started, forced, replaced)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                kept.hash.0,
                kept.device.0,
                release,
                signed(unix_ms),
                signed(facts.deadline_ms),
                signed(facts.used_ms),
                signed(facts.transfer_ms),
                facts.started,
                facts.forced,
                facts.replaced,
            ],
        ),
        TokenEvent::Started | TokenEvent::Replaced => one_row(
            transaction,
            "UPDATE tokens SET release = ?2, deadline_ms = ?3, started = ?4, replaced = ?5
             WHERE hash = ?1",
            params![kept.hash.0, release, signed(facts.deadline_ms), facts.started, facts.replaced],
        ),
    }
}

fn write_release(transaction: &Transaction<'_>, published: &PublishedRelease) -> Result<()> {
    let Offer { release, version, platform, env_hash, sha256, md5, size, kind } =
        &*published.release.offer;
    let target = match published.release.target {
        Target::Device(device) => Some(device.0),
        Target::All => None,
    };
    one_row(
        transaction,
        "INSERT INTO releases (release, owner, target, version, platform, env_hash, kind, sha256,
                               md5, size, published, source)
         VALUES (?1, (SELECT id FROM owners WHERE owner = ?2), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
                 ?11, ?12)",
        params![
            release.0,
            published.owner.as_str(),
            target,
            version,
            platform,
            env_hash,
            kind_text(*kind),
            sha256,
            md5,
            signed(*size),
            signed(published.release.published),
            published.release.source,
        ],
    )
}

/// Runs a statement that must touch exactly one row. Anything else says that the tables in memory
/// and the database have come apart, and then nothing may be kept.
fn one_row(transaction: &Transaction<'_>, sql: &str, params: impl Params) -> Result<()> {
    match transaction.prepare_cached(sql)?.execute(params)? {
        1 => Ok(()),
        rows => Err(Error::StatementChangedRows(rows)),
    }
}

const INSERT_DEVICE: &str = "
    INSERT INTO devices (udid, mac, alias, platform, version, env_hash, auto_update,
                         told_auto_update, digest, seen, offered_release, offered_times,
                         offered_failures, offered_quiet_until, owner, registered)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
            (SELECT id FROM owners WHERE owner = ?15), ?16)";

const UPDATE_DEVICE: &str = "
    UPDATE devices
    SET mac = ?2, alias = ?3, platform = ?4, version = ?5, env_hash = ?6, auto_update = ?7,
        told_auto_update = ?8, digest = ?9, seen = ?10, offered_release = ?11,
        offered_times = ?12, offered_failures = ?13, offered_quiet_until = ?14
    WHERE udid = ?1";

const KEEP_DETAILS: &str = "
    INSERT INTO details (device, facts)
    VALUES ((SELECT id FROM devices WHERE udid = ?1), ?2)
    ON CONFLICT (device) DO UPDATE SET facts = excluded.facts";
