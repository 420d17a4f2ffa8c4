//! Contents: packed, then sealed in chunks of which none opens but in its place, and none can be left out at the end.
//!
//! What arrives never stands unsealed on a disk: up to 16 MiB are held until they are whole, and what is longer is sealed as it
//! comes. What is answered was opened to its end before.

mod arriving;
pub(crate) mod pack;
mod reading;
pub(crate) mod seal;

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
};

use kit::{Error, Reason, Result, ids::OrgId};
use tokio::task::spawn_blocking;
use uuid::Uuid;

pub(crate) use self::{
    arriving::{Arriving, Content, Small},
    reading::{Opening, Part},
};
use self::{pack::Unpacking, seal::DataKey};
use crate::model::{StateId, version::Version};

/// Bytes in a chunk before it is sealed, the last but fewer; its row stays below 1 MiB.
pub(crate) const CHUNK: usize = (1 << 20) - 4096;
/// So many bytes are packed or unpacked in about a millisecond.
const SOON: usize = 128 << 10;
/// What contents were known by before they had data keys.
const HASH_CONTEXT: &str = "terraform_state content";

/// Where a content belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) org: OrgId,
    pub(crate) state: StateId,
    /// The version's id.
    pub(crate) version: Uuid,
}

impl Place {
    /// What a chunk was sealed to before there were data keys.
    fn of_chunk(&self, chunk: usize, last: bool) -> Vec<u8> {
        let Place { org, state, version } = self;
        let end = if last { "last" } else { "more" };
        format!("terraform_state.state_chunks|{org}|{state}|{version}|{chunk}|{end}").into_bytes()
    }
}

/// What a version's row says about its content, hashed with it: a row whose serial was changed fits no content.
fn hashed(place: &Place, number: i64, serial: i64, digest: &[u8; 32]) -> Vec<u8> {
    let Place { org, state, .. } = place;
    let mut hashed = format!("{org}|{state}|{number}|{serial}|").into_bytes();
    hashed.extend_from_slice(digest);
    hashed
}

/// What a whole content is known by, as this version's.
pub(crate) fn identity(key: &DataKey, place: &Place, version: &Version, plain: &[u8]) -> [u8; 32] {
    let digest = *blake3::hash(plain).as_bytes();
    key.identity(&hashed(place, version.number, version.serial, &digest))
}

/// A content that is not what was written.
pub(crate) fn corrupt(what: &'static str, state: StateId, version: impl Display) -> Error {
    Error::new(Reason::ContentCorrupt, "the state's content is corrupt")
        .with_source(format!("{what} (state {state}, version {version})"))
}

/// Runs what takes long away from the threads that answer calls.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    // What a panic says may hold a part of a content.
    spawn_blocking(work)
        .await
        .map_err(|_| Error::internal("sealing panicked"))
}

/// As [`aside`], unless it is about so few bytes that handing it over and back would take as long.
pub(crate) async fn aside_for<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if bytes > SOON {
        return aside(work).await;
    }
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Error::internal("sealing panicked"))
}

/// The refusal of more than is taken.
pub(crate) fn too_large(limit: u64) -> Error {
    Error::new(Reason::MessageTooLarge, "the state is larger than the service takes")
        .with("limit_bytes", limit.to_string())
}
