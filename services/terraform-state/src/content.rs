//! Contents, sealed in chunks: no chunk opens but in its place, and none can be left out at the end.
//!
//! What arrives is sealed as it comes and never stands unsealed on a disk; what is answered was opened to its end before.

use std::{
    fmt::Display,
    io::{self, Read, Seek, SeekFrom, Write},
};

use kit::{
    Error, Reason, Result,
    crypto::{KeyRing, OpenError},
    ids::OrgId,
};
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretSlice};
use tempfile::SpooledTempFile;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::{
    memory::{Memory, Share},
    model::{
        StateId,
        version::{Heading, Version},
    },
};

/// Bytes of content in a chunk, the last but fewer; its row stays below 1 MiB.
pub(crate) const CHUNK: usize = (1 << 20) - 4096;
/// What is kept in memory of a content that arrives; more goes into a file.
const IN_MEMORY: usize = 1 << 20;
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

/// Opens one chunk of a version.
///
/// # Errors
/// KEY_MISSING where the ring does not hold its key, CONTENT_CORRUPT for all else.
pub(crate) async fn open(
    ring: &KeyRing,
    place: Place,
    (chunk, last): (usize, bool),
    sealed: Vec<u8>,
) -> Result<SecretSlice<u8>> {
    let ring = ring.clone();
    let opened = aside(move || ring.open(&sealed, &place.of_chunk(chunk, last))).await?;
    opened.map_err(|error| match error {
        OpenError::UnknownKey(_) => Error::new(
            Reason::KeyMissing,
            "the state was sealed under a key that the service does not have",
        )
        .retry_after(std::time::Duration::from_secs(30))
        .with_source(error),
        OpenError::Corrupt => corrupt("a chunk does not open in its place", place.state, place.version),
    })
}

/// A content that is not what was written.
pub(crate) fn corrupt(what: &'static str, state: StateId, version: impl Display) -> Error {
    Error::new(Reason::ContentCorrupt, "the state's content is corrupt")
        .with_source(format!("{what} (state {state}, version {version})"))
}

/// Runs what takes long away from the threads that answer calls.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    // What a panic says may hold a part of a content.
    spawn_blocking(work)
        .await
        .map_err(|_| Error::internal("sealing panicked"))
}

/// Checks a content that is read, chunk by chunk, against its version's row.
pub(crate) struct Check {
    digest: blake3::Hasher,
    size: u64,
}

impl Check {
    pub(crate) fn new() -> Self {
        Check {
            digest: blake3::Hasher::new(),
            size: 0,
        }
    }

    pub(crate) fn add(&mut self, plain: &[u8]) {
        self.digest.update(plain);
        self.size += plain.len() as u64;
    }

    /// # Errors
    /// CONTENT_CORRUPT where length or hash are not the row's.
    pub(crate) fn finish(self, ring: &KeyRing, place: &Place, version: &Version) -> Result<()> {
        let digest = *self.digest.finalize().as_bytes();
        let told = hashed(place, version.number, version.serial, &digest);
        if u64::try_from(version.size_bytes) != Ok(self.size) {
            return Err(corrupt(
                "the content's length is another one",
                place.state,
                version.number,
            ));
        }
        if !ring.matches(HASH_CONTEXT, &told, &version.content_hash) {
            return Err(corrupt(
                "the content's hash is another one",
                place.state,
                version.number,
            ));
        }
        Ok(())
    }
}

/// Sealed chunks, one behind the other.
struct Sealed {
    ring: KeyRing,
    place: Place,
    file: SpooledTempFile,
    ends: Vec<u64>,
}

impl Sealed {
    fn append(&mut self, plain: &[u8], last: bool) -> io::Result<()> {
        let sealed = self.ring.seal(plain, &self.place.of_chunk(self.ends.len(), last));
        self.file.write_all(&sealed)?;
        let start = self.ends.last().copied().unwrap_or(0);
        self.ends.push(start + sealed.len() as u64);
        Ok(())
    }

    fn sealed(&mut self, chunk: usize) -> io::Result<Vec<u8>> {
        let start = if chunk == 0 { 0 } else { self.ends[chunk - 1] };
        self.file.seek(SeekFrom::Start(start))?;
        let mut sealed = vec![0; usize::try_from(self.ends[chunk] - start).map_err(io::Error::other)?];
        self.file.read_exact(&mut sealed)?;
        Ok(sealed)
    }

    fn plain(&mut self, chunk: usize) -> io::Result<SecretSlice<u8>> {
        let sealed = self.sealed(chunk)?;
        let last = chunk + 1 == self.ends.len();
        self.ring
            .open(&sealed, &self.place.of_chunk(chunk, last))
            .map_err(io::Error::other)
    }
}

/// A content as it arrives.
pub(crate) struct Arriving {
    sealed: Option<Box<Sealed>>,
    plain: Vec<u8>,
    size: u64,
    limit: u64,
    md5: Md5,
    digest: blake3::Hasher,
    share: Share,
}

impl Arriving {
    /// Nothing yet, and at most `limit` bytes to come.
    pub(crate) fn new(ring: &KeyRing, place: Place, limit: u64, memory: &Memory) -> Self {
        Arriving {
            sealed: Some(Box::new(Sealed {
                ring: ring.clone(),
                place,
                file: SpooledTempFile::new(IN_MEMORY),
                ends: Vec::new(),
            })),
            plain: Vec::new(),
            size: 0,
            limit,
            md5: Md5::new(),
            digest: blake3::Hasher::new(),
            share: memory.share(),
        }
    }

    /// The next part.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE beyond the limit, OVERLOADED where there is no room.
    pub(crate) async fn push(&mut self, mut part: &[u8]) -> Result<()> {
        self.size += part.len() as u64;
        if self.size > self.limit {
            return Err(too_large(self.limit));
        }
        self.share.grow_for(self.size)?;
        self.md5.update(part);
        self.digest.update(part);
        while self.plain.len() + part.len() > CHUNK {
            let (now, rest) = part.split_at(CHUNK - self.plain.len());
            self.plain.extend_from_slice(now);
            part = rest;
            self.seal(false).await?;
        }
        self.plain.extend_from_slice(part);
        Ok(())
    }

    /// All of it, with what it says of itself.
    ///
    /// # Errors
    /// INVALID_REQUEST where it is no state, or not the one whose MD5 was told.
    pub(crate) async fn finish(mut self, told_md5: Option<[u8; 16]>) -> Result<Content> {
        let md5: [u8; 16] = self.md5.clone().finalize().into();
        if told_md5.is_some_and(|told| told != md5) {
            return Err(Error::violation("content_md5", "is not the content's"));
        }
        if self.size == 0 {
            return Err(Error::violation("content", "is required"));
        }
        self.seal(true).await?;
        let mut sealed = self
            .sealed
            .take()
            .expect("only a failed seal keeps it, which ended this");
        let (sealed, heading) = aside(move || {
            let plain = Plain {
                sealed: &mut sealed,
                chunk: 0,
                open: SecretSlice::from(Vec::new()),
                at: 0,
            };
            let heading = crate::wire::heading::read(plain);
            (sealed, heading)
        })
        .await?;
        Ok(Content {
            sealed: Some(sealed),
            heading: heading?,
            size: self.size,
            digest: *self.digest.finalize().as_bytes(),
            _share: self.share,
        })
    }

    async fn seal(&mut self, last: bool) -> Result<()> {
        let mut sealed = self
            .sealed
            .take()
            .expect("only a failed seal keeps it, which ended this");
        let plain = SecretSlice::from(std::mem::take(&mut self.plain));
        let (sealed, done) = aside(move || {
            let done = sealed.append(plain.expose_secret(), last);
            (sealed, done)
        })
        .await?;
        done.map_err(Error::internal)?;
        self.sealed = Some(sealed);
        Ok(())
    }
}

/// The refusal of more than is taken.
pub(crate) fn too_large(limit: u64) -> Error {
    Error::new(Reason::MessageTooLarge, "the state is larger than the service takes")
        .with("limit_bytes", limit.to_string())
}

/// What arrived, unsealed again for reading; one chunk at a time.
struct Plain<'a> {
    sealed: &'a mut Sealed,
    chunk: usize,
    open: SecretSlice<u8>,
    at: usize,
}

impl Read for Plain<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.open.expose_secret().len() {
            if self.chunk == self.sealed.ends.len() {
                return Ok(0);
            }
            self.open = self.sealed.plain(self.chunk)?;
            self.chunk += 1;
            self.at = 0;
        }
        let rest = &self.open.expose_secret()[self.at..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// A content that has arrived whole and is a state.
pub(crate) struct Content {
    sealed: Option<Box<Sealed>>,
    heading: Heading,
    size: u64,
    digest: [u8; 32],
    _share: Share,
}

impl Content {
    /// What it says of itself.
    pub(crate) fn heading(&self) -> &Heading {
        &self.heading
    }

    /// Its length.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many chunks it has.
    pub(crate) fn chunks(&self) -> usize {
        self.sealed().ends.len()
    }

    /// What it is sealed to.
    pub(crate) fn place(&self) -> Place {
        self.sealed().place
    }

    /// Its keyed hash as the version of this number.
    pub(crate) fn hash(&self, number: i64) -> [u8; 32] {
        let told = hashed(&self.place(), number, self.heading.serial, &self.digest);
        self.sealed().ring.keyed_hash(HASH_CONTEXT, &told)
    }

    /// Whether a version has the same bytes.
    pub(crate) fn is(&self, version: &Version) -> bool {
        let told = hashed(&self.place(), version.number, version.serial, &self.digest);
        self.sealed().ring.matches(HASH_CONTEXT, &told, &version.content_hash)
    }

    /// Its plain digest, for what makes a call the repeat of another; it is kept nowhere.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// A chunk, sealed.
    pub(crate) async fn chunk(&mut self, chunk: usize) -> Result<Vec<u8>> {
        let mut sealed = self
            .sealed
            .take()
            .ok_or_else(|| Error::internal("a chunk was not read"))?;
        let (sealed, bytes) = aside(move || {
            let bytes = sealed.sealed(chunk);
            (sealed, bytes)
        })
        .await?;
        self.sealed = Some(sealed);
        bytes.map_err(Error::internal)
    }

    fn sealed(&self) -> &Sealed {
        self.sealed
            .as_deref()
            .expect("it is away only while a chunk is read, and that holds `self`")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place() -> Place {
        Place {
            org: OrgId::new(),
            state: StateId::new(),
            version: Uuid::new_v4(),
        }
    }

    /// A state of about so many bytes.
    fn state(bytes: usize) -> Vec<u8> {
        let filler = "x".repeat(bytes);
        format!(r#"{{"version":4,"serial":3,"lineage":"l","outputs":{{}},"resources":[],"check_results":"{filler}"}}"#)
            .into_bytes()
    }

    #[tokio::test]
    async fn every_length_comes_back_byte_by_byte_and_each_chunk_opens_in_its_place_alone() {
        let ring = KeyRing::ephemeral();
        let whole = state(0).len();
        for bytes in [
            0,
            CHUNK - whole - 1,
            CHUNK - whole,
            CHUNK - whole + 1,
            2 * CHUNK - whole,
            3 * CHUNK,
        ] {
            let place = place();
            let sent = state(bytes);
            let mut arriving = Arriving::new(&ring, place, u64::MAX, &Memory::new());
            for part in sent.chunks(70_001) {
                arriving.push(part).await.unwrap();
            }
            let mut content = arriving.finish(Some(Md5::digest(&sent).into())).await.unwrap();
            assert_eq!(content.chunks(), sent.len().div_ceil(CHUNK));
            assert_eq!(content.heading().serial, 3);
            let mut back = Vec::new();
            let chunks = content.chunks();
            for chunk in 0..chunks {
                let sealed = content.chunk(chunk).await.unwrap();
                assert!(sealed.len() <= 1 << 20);
                let last = chunk + 1 == chunks;
                let wrong = open(&ring, place, (chunk, !last), sealed.clone()).await;
                assert_eq!(wrong.unwrap_err().reason(), Reason::ContentCorrupt);
                let plain = open(&ring, place, (chunk, last), sealed.clone()).await.unwrap();
                back.extend_from_slice(plain.expose_secret());
                let other = Place {
                    version: Uuid::new_v4(),
                    ..place
                };
                assert!(open(&ring, other, (chunk, last), sealed).await.is_err());
            }
            assert_eq!(back, sent);
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_not_what_was_told_is_refused() {
        let ring = KeyRing::ephemeral();
        let sent = state(10);
        let mut arriving = Arriving::new(&ring, place(), sent.len() as u64 - 1, &Memory::new());
        assert_eq!(
            arriving.push(&sent).await.unwrap_err().reason(),
            Reason::MessageTooLarge
        );
        let mut arriving = Arriving::new(&ring, place(), sent.len() as u64, &Memory::new());
        arriving.push(&sent).await.unwrap();
        let error = arriving.finish(Some([0; 16])).await.err().unwrap();
        assert_eq!(error.violations()[0].field, "content_md5");
        let empty = Arriving::new(&ring, place(), 1, &Memory::new())
            .finish(None)
            .await
            .err()
            .unwrap();
        assert_eq!(empty.violations()[0].field, "content");
    }

    #[tokio::test]
    async fn a_large_content_leaves_no_plain_text_in_its_file() {
        let ring = KeyRing::ephemeral();
        let mut arriving = Arriving::new(&ring, place(), u64::MAX, &Memory::new());
        let sent = state(6 << 20);
        arriving.push(&sent).await.unwrap();
        let mut content = arriving.finish(None).await.unwrap();
        let sealed = content.sealed.as_mut().unwrap();
        assert!(sealed.file.is_rolled());
        let mut on_disk = Vec::new();
        sealed.file.seek(SeekFrom::Start(0)).unwrap();
        sealed.file.read_to_end(&mut on_disk).unwrap();
        assert!(on_disk.len() > sent.len());
        assert!(!on_disk.windows(16).any(|window| window == b"xxxxxxxxxxxxxxxx"));
    }
}
