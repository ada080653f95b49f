//! Owners that THiNX made in a Redis that Otter sees for the first time.

use fred::types::Key;
use fred::types::scan::ScanType;
use futures_util::{Stream, StreamExt, TryStreamExt, pin_mut};
use otter_protocol::OwnerId;

use super::desk::Desk;
use super::link::trouble_of;
use super::trouble::Trouble;

/// Takes all owners that have `ak:<owner>` into the index, if that is empty. One who comes later is
/// taken in when it is first asked for.
///
/// # Errors
/// See [`Trouble`].
pub(super) async fn adopt(desk: &Desk) -> Result<(), Trouble> {
    if !desk.owners().await?.is_empty() {
        return Ok(());
    }
    let (count, kind) = (Some(KEYS_PER_LOOK), Some(ScanType::String));
    for node in desk.link.nodes.all() {
        take_in(desk, node.client.scan_buffered(PATTERN, count, kind.clone())).await?;
    }
    Ok(())
}

async fn take_in(
    desk: &Desk,
    found: impl Stream<Item = Result<Key, fred::error::Error>>,
) -> Result<(), Trouble> {
    let found = found.map_err(|error| trouble_of(&error));
    pin_mut!(found);
    while let Some(key) = found.next().await {
        let key = key?;
        if let Some(owner) = key.as_str().and_then(|key| OwnerId::parse(key.strip_prefix("ak:")?)) {
            desk.found(&owner, None).await?;
        }
    }
    Ok(())
}

const PATTERN: &str = "ak:*";
const KEYS_PER_LOOK: u32 = 1000;
