//! What operators do with releases and tokens.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use otter_protocol::{Alias, DeviceId, Grant, Kind, Offer, OwnerId, ReleaseId, Token};

use crate::error::{OperatorError, Subject};
use crate::job::Outcome;
use crate::operator::{Operator, conflict, not_found, too_long};
use crate::staging::Staged;
use crate::tabled::Tabled;
use crate::tables::{Change, PublishedRelease, Release, Removal, Tables, Touch};
use crate::token::{Mint, TokenHash};

/// Says whether an offer is an update for a device of this version and environment hash. The rule
/// is the core's, so callers bring it.
pub type Judge<'a> = &'a dyn Fn(&Offer, Option<&str>, Option<&str>) -> bool;

/// A token that was just issued. The only moment at which its text is known.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// What it is good for; `None` binds at the first redemption.
    pub release: Option<ReleaseId>,
    /// Unix seconds at which it runs out if nobody tries it.
    pub expires: u64,
}

/// Whom a release is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One device, whatever its platform; it need not be registered yet.
    Device(DeviceId),
    /// All devices of the owner whose platform, or the part of it before `:`, is the release's.
    All,
}

/// A release to publish.
#[derive(Clone, Debug)]
pub struct NewRelease {
    /// Whose it is.
    pub owner: OwnerId,
    /// Whom it is for.
    pub target: Target,
    /// Its version: 1 to [`Offer::VERSION_BYTES_MAX`] bytes that [`Alias::clean`] leaves as they
    /// are, for the same reasons.
    pub version: String,
    /// Its platform; kept in lower case.
    pub platform: String,
    /// Its environment hash, if it has one.
    pub env_hash: Option<String>,
    /// What the image is.
    pub kind: Kind,
    /// Where it came from, such as THiNX' `build_id`; only shown.
    pub source: Option<String>,
}

/// What a publication led to.
#[derive(Clone, Debug)]
pub struct Published {
    /// The release as it is offered from now on.
    pub offer: Arc<Offer>,
    /// Registered devices it is for and is an update for.
    pub devices: u64,
    /// Those of them that wait to be asked, because their `auto_update` is off.
    pub waiting: u64,
}

/// A release, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRow {
    /// The release.
    pub offer: Arc<Offer>,
    /// Whose it is.
    pub owner: OwnerId,
    /// Whom it is for.
    pub target: Target,
    /// Unix seconds of its publication.
    pub published: u64,
    /// Unix seconds of its withdrawal, if it was withdrawn.
    pub withdrawn: Option<u64>,
    /// [`NewRelease::source`].
    pub source: Option<String>,
}

impl Operator {
    /// Copies an image in, durably, without publishing it. Dropping what this returns removes the
    /// copy again, unless it was published or a release uses the same bytes.
    ///
    /// # Errors
    /// [`OperatorError::Invalid`] if the source cannot be read, is empty, or longer than
    /// `bytes_max`; [`OperatorError::Unavailable`] if the copy cannot be written.
    pub fn stage(&self, source: &mut dyn Read, bytes_max: u64) -> Result<Staged, OperatorError> {
        self.backing.stage(source, bytes_max)
    }

    /// Publishes a staged image, atomically: a device sees the old or the new release. Where images
    /// come from an origin that takes them, it is put there first. `is_update` is asked once for
    /// each pair of version and environment hash that devices report.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the owner does not exist; [`OperatorError::Conflict`] if the
    /// target device belongs to another owner; [`OperatorError::Invalid`] for a text that cannot
    /// be offered, or an image that was staged in another store; [`OperatorError::Origin`] if the
    /// origin does not take the image.
    pub fn publish(
        &self,
        release: NewRelease,
        image: Staged,
        is_update: Judge<'_>,
    ) -> Result<Published, OperatorError> {
        self.backing.publish(release, image, is_update)
    }

    /// All releases, or those of one owner, in the order of their publication.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the store cannot be asked.
    pub fn releases(&self, owner: Option<&OwnerId>) -> Result<Vec<ReleaseRow>, OperatorError> {
        self.backing.releases(owner)
    }

    /// Withdraws a release: it is offered no more, and tokens for it give nothing. A transfer
    /// that is under way may finish. The image is removed once no other release and no token
    /// needs it.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if there is no such release; [`OperatorError::Conflict`] if it
    /// is withdrawn already.
    pub fn withdraw(&self, release: ReleaseId) -> Result<ReleaseRow, OperatorError> {
        self.backing.withdraw(release)
    }

    /// Issues a token. [`Grant::release`] of `None` stands for the device's newest release; if
    /// there is none, the token binds at its first redemption. The token takes the place of the
    /// one that the device has for the same release.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the device is not registered, or the release is not one of
    /// its owner's; [`OperatorError::Conflict`] if the release is withdrawn.
    pub fn issue_token(
        &self,
        device: DeviceId,
        grant: &Grant,
    ) -> Result<IssuedToken, OperatorError> {
        self.backing.issue_token(device, grant)
    }

    /// Takes a token back, a transfer under way included.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if it is not there: never issued, expired, used or revoked.
    pub fn revoke_token(&self, token: &Token) -> Result<(), OperatorError> {
        self.backing.revoke_token(token)
    }

    /// Takes all tokens of a device back and says how many there were.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the device is not registered.
    pub fn revoke_tokens(&self, device: DeviceId) -> Result<u64, OperatorError> {
        self.backing.revoke_tokens(device)
    }
}

/// The part of a store's side for operators that speaks of releases and tokens; see [`Operator`]
/// for what each means.
pub(crate) trait Publication: Send + Sync {
    fn stage(&self, source: &mut dyn Read, bytes_max: u64) -> Outcome<Staged>;
    fn publish(
        &self,
        release: NewRelease,
        image: Staged,
        is_update: Judge<'_>,
    ) -> Outcome<Published>;
    fn releases(&self, owner: Option<&OwnerId>) -> Outcome<Vec<ReleaseRow>>;
    fn withdraw(&self, release: ReleaseId) -> Outcome<ReleaseRow>;
    fn issue_token(&self, device: DeviceId, grant: &Grant) -> Outcome<IssuedToken>;
    fn revoke_token(&self, token: &Token) -> Outcome<()>;
    fn revoke_tokens(&self, device: DeviceId) -> Outcome<u64>;
}

impl Publication for Tabled {
    fn stage(&self, source: &mut dyn Read, bytes_max: u64) -> Outcome<Staged> {
        let shared = self.shared();
        let (images, needs) = (Arc::clone(&shared.depot.images), Arc::clone(shared));
        Staged::copy(images, &shared.mint, Some(needs), source, bytes_max)
    }

    fn publish(
        &self,
        release: NewRelease,
        image: Staged,
        is_update: Judge<'_>,
    ) -> Outcome<Published> {
        if !image.belongs_to(&self.shared().depot.images) {
            return Err(invalid("the image was staged in another store; stage it here"));
        }
        let release = checked(release, &image, &self.shared().mint)?;
        let offer = Arc::clone(&release.offer);
        let (owner, target) = (release.owner, release.target);
        if self.shared().tables().owners.find(&owner).is_none() {
            return Err(not_found(Subject::Owner));
        }
        self.shared().depot.put(&offer.sha256, offer.size)?;
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Owner(&owner));
            let row = tables.owners.find(&owner).ok_or_else(|| not_found(Subject::Owner))?;
            if let Target::Device(device) = target {
                plan.reads(Touch::Device(device));
                let known = tables.devices.find(device);
                if known.is_some_and(|known| tables.devices.owner(known) != row) {
                    let reason = "it belongs to another owner; publish for that one";
                    return Err(conflict(Subject::Device, reason));
                }
            }
            let published = PublishedRelease {
                release: Release {
                    offer: Arc::clone(&release.offer),
                    owner: row,
                    target,
                    published: now_ms / 1000,
                    withdrawn: None,
                    source: release.source.clone(),
                },
                owner,
            };
            plan.change(tables, Change::ReleasePublished(Box::new(published)));
            Ok(())
        })?;
        // Only now: until the release is durable, it is this that keeps the file.
        drop(image);
        let (devices, waiting) = self.updates(&offer, &owner, target, is_update);
        Ok(Published { offer, devices, waiting })
    }

    fn releases(&self, owner: Option<&OwnerId>) -> Outcome<Vec<ReleaseRow>> {
        let mut rows = Vec::new();
        let releases = |tables: &Tables| tables.releases.rows.len();
        self.shared().each_row(releases, |tables, row| {
            let release = &tables.releases.rows[row];
            if owner.is_none_or(|owner| tables.owner_id(release.owner) == *owner) {
                rows.push(release_row(tables, release));
            }
        });
        Ok(rows)
    }

    fn withdraw(&self, release: ReleaseId) -> Outcome<ReleaseRow> {
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Release(release));
            let row = tables.releases.find(release).ok_or_else(|| not_found(Subject::Release))?;
            let known = tables.releases.row(row);
            if known.withdrawn.is_some() {
                return Err(conflict(Subject::Release, "it is withdrawn already"));
            }
            let unix_s = now_ms / 1000;
            plan.change(tables, Change::ReleaseWithdrawn { release, unix_s });
            Ok(ReleaseRow { withdrawn: Some(unix_s), ..release_row(tables, known) })
        })
    }

    fn issue_token(&self, device: DeviceId, grant: &Grant) -> Outcome<IssuedToken> {
        let token = self.shared().mint.minted().map_err(OperatorError::unavailable)?.token;
        let grant = *grant;
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Device(device));
            let row = tables.devices.find(device).ok_or_else(|| not_found(Subject::Device))?;
            plan.reads(Touch::Published(tables.devices.owner(row)));
            let release = match grant.release {
                Some(release) => Some(issuable(tables, row, release)?),
                None => tables.newest(row).map(|offer| offer.release),
            };
            let grant = Grant { release, ..grant };
            let deadline_ms = tables.issue((device, Some(row)), &grant, now_ms, &token, plan);
            Ok(IssuedToken { token, release, expires: deadline_ms / 1000 })
        })
    }

    fn revoke_token(&self, token: &Token) -> Outcome<()> {
        let hash = TokenHash::of(token);
        self.write(move |tables, now_ms, plan| {
            let known = tables.tokens.find(&hash).filter(|(_, token)| now_ms < token.end_ms());
            let (device, _) = known.ok_or_else(|| not_found(Subject::Token))?;
            plan.reads(Touch::Device(tables.devices.udid(device)));
            plan.change(tables, revoked(hash));
            Ok(())
        })
    }

    fn revoke_tokens(&self, device: DeviceId) -> Outcome<u64> {
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Device(device));
            let row = tables.devices.find(device).ok_or_else(|| not_found(Subject::Device))?;
            let mut tokens = 0;
            for (hash, _) in tables.tokens.of_device(row, now_ms) {
                plan.change(tables, revoked(hash));
                tokens += 1;
            }
            Ok(tokens)
        })
    }
}

impl Tabled {
    /// For how many devices the offer is the newest and an update, and how many of them wait to be
    /// asked.
    fn updates(
        &self,
        offer: &Arc<Offer>,
        owner: &OwnerId,
        target: Target,
        is_update: Judge<'_>,
    ) -> (u64, u64) {
        let mut reported: HashMap<Reported, (u64, u64)> = HashMap::new();
        let row = self.shared().tables().owners.find(owner);
        let mut add = |tables: &Tables, device: usize| {
            let device = device as u32;
            let concerned = Some(tables.devices.owner(device)) == row
                && tables.newest(device).is_some_and(|newest| newest.release == offer.release);
            if concerned {
                let (version, env_hash, auto_update) = tables.devices.reported(device);
                let counts = reported.entry((version.cloned(), env_hash.cloned())).or_default();
                counts.0 += 1;
                counts.1 += u64::from(!auto_update);
            }
        };
        match target {
            Target::Device(device) => {
                let tables = self.shared().tables();
                if let Some(device) = tables.devices.find(device) {
                    add(&tables, device as usize);
                }
            }
            Target::All => self.shared().each_row(|tables| tables.devices.len() as usize, add),
        }
        let judged = reported.into_iter().filter(|((version, env_hash), _)| {
            is_update(offer, version.as_deref(), env_hash.as_deref())
        });
        judged.fold((0, 0), |sum, (_, counts)| (sum.0 + counts.0, sum.1 + counts.1))
    }
}

/// Version and environment hash as a device reports them.
pub(crate) type Reported = (Option<Arc<str>>, Option<Arc<str>>);

/// A release that can be offered.
pub(crate) struct Checked {
    pub(crate) owner: OwnerId,
    pub(crate) target: Target,
    pub(crate) offer: Arc<Offer>,
    pub(crate) source: Option<Box<str>>,
}

/// Makes an offer of what the operator says, or says what is wrong with it.
pub(crate) fn checked(
    release: NewRelease,
    image: &Staged,
    mint: &Mint,
) -> Result<Checked, OperatorError> {
    let NewRelease { owner, target, version, platform, env_hash, kind, source } = release;
    check_text("the version", &version, 1, Offer::VERSION_BYTES_MAX)?;
    check_reply("the version", &version)?;
    check_text("the platform", &platform, 1, PLATFORM_BYTES_MAX)?;
    if let Some(env_hash) = &env_hash {
        check_text("the environment hash", env_hash, 1, ENV_HASH_BYTES_MAX)?;
    }
    if let Some(source) = &source {
        check_text("the source", source, 0, SOURCE_BYTES_MAX)?;
    }
    let offer = Offer {
        release: mint.release().map_err(OperatorError::unavailable)?,
        version: version.into(),
        platform: platform.to_lowercase().into(),
        env_hash: env_hash.map(Into::into),
        sha256: image.sha256(),
        md5: image.md5(),
        size: image.size(),
        kind,
    };
    Ok(Checked { owner, target, offer: Arc::new(offer), source: source.map(Into::into) })
}

/// A release for which the device in a row may have a token.
fn issuable(tables: &Tables, row: u32, release: ReleaseId) -> Result<ReleaseId, OperatorError> {
    let known = tables.releases.find(release).map(|known| tables.releases.row(known));
    match known.filter(|known| known.owner == tables.devices.owner(row)) {
        None => Err(not_found(Subject::Release)),
        Some(known) if known.withdrawn.is_some() => {
            Err(conflict(Subject::Release, "it is withdrawn; publish it again"))
        }
        Some(_) => Ok(release),
    }
}

fn release_row(tables: &Tables, release: &Release) -> ReleaseRow {
    ReleaseRow {
        offer: Arc::clone(&release.offer),
        owner: tables.owner_id(release.owner),
        target: release.target,
        published: release.published,
        withdrawn: release.withdrawn,
        source: release.source.as_deref().map(str::to_owned),
    }
}

fn revoked(hash: TokenHash) -> Change {
    Change::TokenRemoved { hash, removal: Removal::Revoked }
}

pub(crate) fn invalid(reason: &str) -> OperatorError {
    OperatorError::Invalid { reason: reason.to_owned() }
}

/// What goes into a reply that old libraries cut apart by text search must not contain what they
/// search for (docs/wire.md 2.2): the same rules as for an alias.
fn check_reply(what: &str, text: &str) -> Result<(), OperatorError> {
    match Alias::clean(text) {
        Some(clean) if clean.as_str() == text => Ok(()),
        Some(_) | None => Err(invalid(&format!(
            "{what} would be misunderstood by devices; leave out braces, blanks around it, and \
             words of the protocol such as `registration`"
        ))),
    }
}

fn check_text(
    what: &str,
    text: &str,
    bytes_min: usize,
    bytes_max: usize,
) -> Result<(), OperatorError> {
    if text.len() < bytes_min {
        return Err(invalid(&format!("{what} is empty; give one")));
    }
    if text.len() > bytes_max {
        return Err(too_long(what, bytes_max));
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) {
        return Err(invalid(&format!("{what} contains a quote, backslash or control character")));
    }
    Ok(())
}

/// As long as any that THiNX knows, many times over.
const PLATFORM_BYTES_MAX: usize = 64;
/// A hash in hexadecimal digits has at most 128.
const ENV_HASH_BYTES_MAX: usize = 128;
const SOURCE_BYTES_MAX: usize = 1024;
