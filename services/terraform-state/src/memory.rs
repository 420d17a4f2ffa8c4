//! How much contents and plans may take of the process's memory, all of them together.
//!
//! What finds no room is refused at once and comes again; nothing waits with a part of it in hand.

use std::{sync::Arc, time::Duration};

use kit::{Error, Reason, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most that is held at once, in MiB: half of what a pod may take.
const MOST_HELD_MIB: usize = 256;
/// What a content takes that goes by in chunks, in MiB: a few of them, sealed and unsealed.
const CHUNKS: usize = 8;
/// Contents up to this many bytes are small.
const SMALL: u64 = 256 << 10;

/// The room that there is. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self::of(MOST_HELD_MIB)
    }

    /// So many MiB.
    pub(crate) fn of(mib: usize) -> Self {
        Memory(Arc::new(Semaphore::new(mib)))
    }

    /// A share of it, nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            all: self.0.clone(),
            held: None,
        }
    }
}

/// What one call has of it, until it is dropped.
pub(crate) struct Share {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Makes the share at least so many MiB.
    ///
    /// # Errors
    /// OVERLOADED.
    pub(crate) fn grow(&mut self, mib: usize) -> Result<()> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if mib <= held {
            return Ok(());
        }
        let more = u32::try_from(mib - held).map_err(Error::internal)?;
        let more = self.all.clone().try_acquire_many_owned(more).map_err(|_| {
            Error::new(
                Reason::Overloaded,
                "too many states and plans are being read and written; try again",
            )
            .retry_after(Duration::from_secs(1))
        })?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// As [`Share::grow`], by what a content of so many bytes takes on its way: it is never in memory whole, but a few
    /// chunks of it are, sealed and unsealed.
    pub(crate) fn grow_for(&mut self, content_bytes: u64) -> Result<()> {
        self.grow(if content_bytes <= SMALL { 1 } else { CHUNKS })
    }

    /// As [`Share::grow_for`], and beside that the content once.
    pub(crate) fn grow_for_reading(&mut self, content_bytes: u64) -> Result<()> {
        let mib = usize::try_from(content_bytes.div_ceil(1 << 20)).unwrap_or(usize::MAX);
        self.grow(mib.saturating_add(CHUNKS))
    }

    /// Gives back what is more than a content takes that goes by in chunks.
    pub(crate) fn shrink_to_chunks(&mut self) {
        let held = self.held.as_mut();
        drop(held.and_then(|held| held.split(held.num_permits().saturating_sub(CHUNKS))));
    }

    /// As [`Share::grow`], by what a content of so many bytes takes that is in memory whole, with one that it is told by and what
    /// it is packed with.
    pub(crate) fn grow_for_whole(&mut self, content_bytes: u64) -> Result<()> {
        let mib = usize::try_from(content_bytes.div_ceil(1 << 20)).unwrap_or(usize::MAX);
        self.grow(mib.saturating_mul(3).saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_finds_no_room_is_refused_until_others_are_done() {
        let memory = Memory::of(6);
        let (mut one, mut other) = (memory.share(), memory.share());
        one.grow_for(SMALL).unwrap();
        one.grow(5).unwrap();
        one.grow_for(SMALL).unwrap();
        other.grow_for(1).unwrap();
        let refused = other.grow(2).unwrap_err();
        assert_eq!(refused.reason(), Reason::Overloaded);
        assert!(refused.retry_delay().is_some());
        drop(one);
        other.grow(6).unwrap();
        assert!(memory.share().grow(1).is_err());
    }

    #[test]
    fn what_goes_by_in_chunks_gives_back_what_was_kept_before() {
        let memory = Memory::of(24);
        let mut share = memory.share();
        share.grow_for_reading(16 << 20).unwrap();
        assert!(memory.share().grow(1).is_err());
        share.shrink_to_chunks();
        memory.share().grow(16).unwrap();
        assert!(memory.share().grow(17).is_err());
        share.shrink_to_chunks();
    }
}
