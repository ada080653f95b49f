//! The images of one store: those that lie here, and where the others come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otter_protocol::{Answer, Offer, Redemption, Release};

use crate::Ticket;
use crate::error::{OpenError, OperatorError};
use crate::image::Image;
use crate::images::{ImageName, Images, Used};
use crate::inbox::Inbox;
#[cfg(feature = "origins")]
use crate::origin::{Fetcher, OriginOptions, OriginState, Waiter};
use crate::stats::StoreStats;

/// Where images lie, and where those come from that do not lie there.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImageOptions {
    /// A directory of images that several servers use at the same time. Nothing is ever removed
    /// from it, since a store does not know which images others need. Default none: `images` in
    /// the store's own directory, from which an image goes that nothing needs any more.
    pub shared: Option<PathBuf>,
    /// How many images are kept open for the next request. Default 64. Beyond: the one that was
    /// used least recently is closed as soon as no transfer needs it.
    pub open_max: usize,
    /// Where images are fetched from that do not lie in the directory, and put to when they are
    /// published. Default nowhere.
    #[cfg(feature = "origins")]
    pub origins: OriginOptions,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            shared: None,
            open_max: 64,
            #[cfg(feature = "origins")]
            origins: OriginOptions::default(),
        }
    }
}

impl fmt::Debug for ImageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("ImageOptions");
        fields.field("shared", &self.shared).field("open_max", &self.open_max);
        #[cfg(feature = "origins")]
        fields.field("origins", &self.origins);
        fields.finish()
    }
}

/// The images of one store. All threads of a store share one.
#[derive(Debug)]
pub(crate) struct Depot {
    /// Those that lie here.
    pub(crate) images: Arc<Images>,
    #[cfg(feature = "origins")]
    fetcher: Option<Fetcher>,
}

impl Depot {
    /// Opens the directory of images and, if there are origins, starts the thread that fetches.
    /// `removes` says whether the store knows everything that images are needed for, so that it
    /// may remove the others.
    ///
    /// # Errors
    /// [`OpenError::Directory`], [`OpenError::Origin`], [`OpenError::Thread`].
    pub(crate) fn open(
        data: &Path,
        options: &ImageOptions,
        removes: bool,
    ) -> Result<Self, OpenError> {
        let (path, used) = match &options.shared {
            Some(shared) => (shared.clone(), Used::Unknown),
            None if removes => (data.join("images"), Used::Alone),
            None => (data.join("images"), Used::Unknown),
        };
        let images = Arc::new(Images::open(&path, used, options.open_max)?);
        Ok(Self {
            #[cfg(feature = "origins")]
            fetcher: Fetcher::start(&options.origins, &images)?,
            images,
        })
    }

    /// Puts the image into an answer that lacks it. `None` if it has to be fetched first: then the
    /// answer comes back through the inbox, to be filled again or without its image. Never blocks
    /// on an origin.
    pub(crate) fn fill(
        &self,
        ticket: Ticket,
        answer: Answer<()>,
        inbox: &Arc<Inbox>,
    ) -> Option<Answer<Image>> {
        let Some(offer) = wanted(&answer) else { return Some(filled(answer, None)) };
        if let Some(image) = self.images.image(&offer.sha256, offer.size) {
            return Some(filled(answer, Some(&image)));
        }
        let answer = self.fetch(ticket, answer, inbox)?;
        self.images.refused();
        Some(filled(answer, None))
    }

    /// Puts an image that lies here to the first origin that takes any, and waits until it is
    /// there. Nothing happens if there is none.
    ///
    /// # Errors
    /// [`OperatorError::Origin`]
    #[cfg(feature = "origins")]
    pub(crate) fn put(&self, name: &ImageName, size: u64) -> Result<(), OperatorError> {
        self.fetcher.as_ref().map_or(Ok(()), |fetcher| fetcher.put(name, size))
    }

    /// Without origins there is nowhere to put it.
    #[cfg(not(feature = "origins"))]
    pub(crate) fn put(&self, _: &ImageName, _: u64) -> Result<(), OperatorError> {
        Ok(())
    }

    /// What became of each origin's fetches.
    #[cfg(feature = "origins")]
    pub(crate) fn origins(&self) -> Vec<OriginState> {
        self.fetcher.as_ref().map(Fetcher::origins).unwrap_or_default()
    }

    /// Adds what was counted.
    pub(crate) fn count(&self, stats: &mut StoreStats) {
        stats.images_refused_total = self.images.refused_total();
        #[cfg(feature = "origins")]
        if let Some(fetcher) = &self.fetcher {
            fetcher.count(stats);
        }
    }

    /// Ends all fetches: whoever waits for one is answered as unavailable.
    pub(crate) fn close(&self) {
        #[cfg(feature = "origins")]
        if let Some(fetcher) = &self.fetcher {
            fetcher.close();
        }
    }

    /// Lets an answer wait until its image was fetched; gives back what to answer without one.
    #[cfg(feature = "origins")]
    fn fetch(&self, ticket: Ticket, answer: Answer<()>, inbox: &Arc<Inbox>) -> Option<Answer<()>> {
        match &self.fetcher {
            Some(fetcher) => fetcher.ask(Waiter::new(ticket, answer, inbox)),
            None => Some(lacking(answer)),
        }
    }

    #[cfg(not(feature = "origins"))]
    fn fetch(&self, _: Ticket, answer: Answer<()>, _: &Arc<Inbox>) -> Option<Answer<()>> {
        Some(lacking(answer))
    }
}

/// The offer whose image an answer lacks.
pub(crate) fn wanted(answer: &Answer<()>) -> Option<&Offer> {
    match answer {
        Answer::Release(Some(release)) | Answer::Redemption(Redemption::Ready { release, .. }) => {
            Some(&release.offer)
        }
        Answer::Release(None)
        | Answer::Redemption(Redemption::Nothing | Redemption::Unknown)
        | Answer::Standing(_)
        | Answer::Recorded(_)
        | Answer::Kept
        | Answer::Claimed(_)
        | Answer::Unavailable => None,
    }
}

/// The answer that there is no such image.
pub(crate) fn lacking(answer: Answer<()>) -> Answer<()> {
    match answer {
        Answer::Release(_) => Answer::Release(None),
        Answer::Redemption(Redemption::Ready { .. }) => Answer::Redemption(Redemption::Nothing),
        Answer::Redemption(Redemption::Nothing | Redemption::Unknown)
        | Answer::Standing(_)
        | Answer::Recorded(_)
        | Answer::Kept
        | Answer::Claimed(_)
        | Answer::Unavailable => answer,
    }
}

/// The answer with its image, or as it is without one.
fn filled(answer: Answer<()>, image: Option<&Image>) -> Answer<Image> {
    let with_image =
        |release: Release<()>| Some(Release { offer: release.offer, image: image?.clone() });
    match answer {
        Answer::Release(release) => Answer::Release(release.and_then(with_image)),
        Answer::Redemption(Redemption::Ready { device, release, started, forced }) => {
            let ready = |release| Redemption::Ready { device, release, started, forced };
            Answer::Redemption(with_image(release).map_or(Redemption::Nothing, ready))
        }
        Answer::Redemption(Redemption::Nothing) => Answer::Redemption(Redemption::Nothing),
        Answer::Redemption(Redemption::Unknown) => Answer::Redemption(Redemption::Unknown),
        Answer::Standing(standing) => Answer::Standing(standing),
        Answer::Recorded(recorded) => Answer::Recorded(recorded),
        Answer::Kept => Answer::Kept,
        Answer::Claimed(claimed) => Answer::Claimed(claimed),
        Answer::Unavailable => Answer::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aside::copy_in;
    use crate::token::Mint;

    #[test]
    fn only_a_store_that_knows_all_releases_removes_images() {
        for (removes, is_shared, is_left) in
            [(true, false, false), (false, false, true), (true, true, true)]
        {
            let directory = tempfile::tempdir().expect("a directory");
            let shared = directory.path().join("shared");
            let options =
                ImageOptions { shared: is_shared.then_some(shared), ..ImageOptions::default() };
            let depot = Depot::open(directory.path(), &options, removes).expect("a depot");
            let copied = copy_in(&depot.images, &Mint::new(), &mut &b"firmware"[..], 100);
            let name = copied.expect("copied in").sha256;
            depot.images.let_go(&name, false);
            let is_there = depot.images.verified(&name).is_some();
            assert_eq!(is_there, is_left, "{removes} {is_shared}");
        }
    }
}
