//! A content as it arrives: held until it is whole, or packed and sealed as it comes; it never stands unsealed on a disk.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    sync::Arc,
};

use kit::{Error, Result, crypto::KeyRing};
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretSlice};
use tempfile::SpooledTempFile;
use tokio::try_join;
use uuid::Uuid;
use zstd::stream::write::Encoder;

use super::{
    CHUNK, Place, aside, aside_for, hashed,
    pack::{LEVEL, pack},
    seal::{Body, DataKey},
    too_large,
};
use crate::{
    memory::{Memory, Share},
    model::{
        lock::LockId,
        resource::Index,
        version::{Heading, Version},
    },
    wire::heading,
};

/// What is kept in memory of a content that arrives; more goes into a file.
const IN_MEMORY: usize = 1 << 20;

/// The most bytes of a content that is kept until it is whole: it is read while it is packed, which takes half as long as
/// unpacking it again.
const MOST_WHOLE: usize = 16 << 20;

/// Sealed chunks, one behind the other; what is written to it is cut and sealed.
struct Sealed {
    key: DataKey,
    wrapped: Vec<u8>,
    body: Body,
    file: SpooledTempFile,
    ends: Vec<u64>,
    /// What has not filled a chunk yet.
    packed: Vec<u8>,
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last chunk is never empty, so that one is sealed only when more comes.
        if self.packed.len() == CHUNK {
            self.seal(false)?;
        }
        let count = bytes.len().min(CHUNK - self.packed.len());
        self.packed.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sealed {
    fn new(ring: &KeyRing, place: Place) -> Self {
        let key = DataKey::new();
        Sealed {
            wrapped: key.sealed(ring, &place),
            key,
            body: Body {
                place,
                id: Uuid::new_v4(),
                base: None,
            },
            file: SpooledTempFile::new(IN_MEMORY),
            ends: Vec::new(),
            packed: Vec::new(),
        }
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let packed = SecretSlice::from(std::mem::take(&mut self.packed));
        let sealed = self.key.seal(&self.body, self.ends.len(), last, packed.expose_secret());
        self.file.write_all(&sealed)?;
        self.ends.push(self.stored() + sealed.len() as u64);
        Ok(())
    }

    fn stored(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn sealed(&mut self, chunk: usize) -> io::Result<Vec<u8>> {
        let start = if chunk == 0 { 0 } else { self.ends[chunk - 1] };
        self.file.seek(SeekFrom::Start(start))?;
        let mut sealed = vec![0; usize::try_from(self.ends[chunk] - start).map_err(io::Error::other)?];
        self.file.read_exact(&mut sealed)?;
        Ok(sealed)
    }

    fn packed(&mut self, chunk: usize) -> io::Result<SecretSlice<u8>> {
        let sealed = self.sealed(chunk)?;
        let last = chunk + 1 == self.ends.len();
        self.key
            .unseal(&self.body, chunk, last, &sealed)
            .map_err(io::Error::other)
    }
}

/// What a content that comes is known by, as far as it was told.
#[derive(Default)]
struct Told {
    size: u64,
    md5: Md5,
    digest: blake3::Hasher,
}

impl Told {
    fn push(&mut self, part: &[u8]) {
        self.size += part.len() as u64;
        self.md5.update(part);
        self.digest.update(part);
    }

    /// What a whole content is known by, and says of itself when it is read.
    ///
    /// # Errors
    /// INVALID_REQUEST where it is not the one whose MD5 was told, and what reading fails with.
    fn known(self, told_md5: Option<[u8; 16]>, read: impl FnOnce() -> Result<(Heading, Index)>) -> Result<Known> {
        let md5: [u8; 16] = self.md5.finalize().into();
        if told_md5.is_some_and(|told| told != md5) {
            return Err(Error::violation("content_md5", "is not the content's"));
        }
        if self.size == 0 {
            return Err(Error::violation("content", "is required"));
        }
        let (heading, index) = read()?;
        Ok(Known {
            heading,
            index,
            size: self.size,
            digest: *self.digest.finalize().as_bytes(),
        })
    }
}

/// What a whole content says of itself, and what it is known by.
struct Known {
    heading: Heading,
    index: Index,
    size: u64,
    digest: [u8; 32],
}

impl Known {
    /// # Errors
    /// INVALID_REQUEST where it is no state, or not the one whose MD5 was told.
    fn whole(plain: &[u8], told_md5: Option<[u8; 16]>) -> Result<Known> {
        let mut told = Told::default();
        told.push(plain);
        told.known(told_md5, || heading::read_whole(plain))
    }
}

/// A content of at most [`CHUNK`] bytes, packed before it is known which state it is for.
pub(crate) struct Small {
    packed: SecretSlice<u8>,
    known: Known,
    share: Share,
}

impl Small {
    /// All of it, with what it says of itself.
    ///
    /// # Errors
    /// INVALID_REQUEST where it is no state, or not the one whose MD5 was told.
    pub(crate) async fn read(plain: Vec<u8>, told_md5: Option<[u8; 16]>, share: Share) -> Result<Small> {
        let bytes = plain.len();
        let plain = SecretSlice::from(plain);
        let read = move || {
            let plain = plain.expose_secret();
            let known = Known::whole(plain, told_md5)?;
            let packed = SecretSlice::from(pack(plain, None).map_err(Error::internal)?);
            Ok(Small { packed, known, share })
        };
        aside_for(bytes, read).await?
    }

    /// The same, sealed as a version's content.
    ///
    /// # Errors
    /// INTERNAL.
    pub(crate) fn sealed(self, ring: &KeyRing, place: Place) -> Result<Content> {
        let mut sealed = Box::new(Sealed::new(ring, place));
        let packed = sealed.write_all(self.packed.expose_secret());
        packed.and_then(|()| sealed.seal(true)).map_err(Error::internal)?;
        Ok(Content::new(sealed, ring.clone(), self.known, self.share))
    }
}

/// A content as it arrives.
pub(crate) struct Arriving {
    place: Place,
    ring: KeyRing,
    /// Packs into sealed chunks what is longer than is kept.
    packing: Option<Box<Encoder<'static, Sealed>>>,
    /// What came since the last was packed.
    plain: Vec<u8>,
    /// What all that was packed is known by.
    told: Told,
    size: u64,
    limit: u64,
    share: Share,
}

impl Arriving {
    /// Nothing yet, and at most `limit` bytes to come.
    pub(crate) fn new(ring: &KeyRing, place: Place, limit: u64, memory: &Memory) -> Self {
        Arriving {
            place,
            ring: ring.clone(),
            packing: None,
            plain: Vec::new(),
            told: Told::default(),
            size: 0,
            limit,
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
        loop {
            let most = if self.packing.is_some() { CHUNK } else { MOST_WHOLE };
            let kept = most.min(self.plain.len() + part.len());
            if kept > CHUNK {
                self.share.grow_for_reading(kept as u64)?;
            } else {
                self.share.grow_for(self.size)?;
            }
            let (now, rest) = part.split_at(kept - self.plain.len());
            self.plain.extend_from_slice(now);
            part = rest;
            if part.is_empty() {
                return Ok(());
            }
            let packing = match self.packing.take() {
                Some(packing) => packing,
                None => packing(&self.ring, self.place)?,
            };
            self.pack(packing).await?;
        }
    }

    /// All of it, with what it says of itself.
    ///
    /// # Errors
    /// INVALID_REQUEST where it is no state, or not the one whose MD5 was told.
    pub(crate) async fn finish(mut self, told_md5: Option<[u8; 16]>) -> Result<Content> {
        let plain = SecretSlice::from(std::mem::take(&mut self.plain));
        let (sealed, known) = match self.packing.take() {
            None => self.whole(plain, told_md5).await?,
            Some(packing) => {
                let told = self.told;
                aside(move || packed(packing, &plain, told, told_md5)).await??
            }
        };
        Ok(Content::new(sealed, self.ring, known, self.share))
    }

    /// Reads what has come whole, and packs it at the same time.
    async fn whole(&self, plain: SecretSlice<u8>, told_md5: Option<[u8; 16]>) -> Result<(Box<Sealed>, Known)> {
        let (bytes, plain) = (plain.expose_secret().len(), Arc::new(plain));
        let (to_pack, packing) = (plain.clone(), packing(&self.ring, self.place)?);
        let known = aside_for(bytes, move || Known::whole(plain.expose_secret(), told_md5));
        let sealed = aside_for(bytes, move || {
            let mut packing = packing;
            packing.write_all(to_pack.expose_secret())?;
            sealed(packing)
        });
        let (known, sealed) = try_join!(known, sealed)?;
        let known = known?;
        Ok((sealed.map_err(Error::internal)?, known))
    }

    async fn pack(&mut self, mut packing: Box<Encoder<'static, Sealed>>) -> Result<()> {
        let plain = SecretSlice::from(std::mem::take(&mut self.plain));
        let mut told = std::mem::take(&mut self.told);
        let packed = aside(move || {
            told.push(plain.expose_secret());
            packing.write_all(plain.expose_secret()).map(|()| (packing, told))
        });
        let (packing, told) = packed.await?.map_err(Error::internal)?;
        (self.packing, self.told) = (Some(packing), told);
        // Of what is longer than is kept no more than chunks is held from here on.
        self.share.shrink_to_chunks();
        Ok(())
    }
}

/// Packs into sealed chunks.
fn packing(ring: &KeyRing, place: Place) -> Result<Box<Encoder<'static, Sealed>>> {
    let encoder = Encoder::new(Sealed::new(ring, place), LEVEL);
    Ok(Box::new(encoder.map_err(Error::internal)?))
}

/// All that was packed, sealed to its end.
fn sealed(packing: Box<Encoder<'static, Sealed>>) -> io::Result<Box<Sealed>> {
    let mut sealed = Box::new(packing.finish()?);
    sealed.seal(true)?;
    Ok(sealed)
}

/// The last of a content whose other parts are packed; it is read as it is unpacked again.
fn packed(
    mut packing: Box<Encoder<'static, Sealed>>,
    last: &SecretSlice<u8>,
    mut told: Told,
    told_md5: Option<[u8; 16]>,
) -> Result<(Box<Sealed>, Known)> {
    told.push(last.expose_secret());
    packing.write_all(last.expose_secret()).map_err(Error::internal)?;
    let mut sealed = sealed(packing).map_err(Error::internal)?;
    let packed = Packed {
        sealed: &mut sealed,
        chunk: 0,
        open: SecretSlice::from(Vec::new()),
        at: 0,
    };
    let unpacked = zstd::stream::read::Decoder::new(packed).map_err(Error::internal)?;
    let known = told.known(told_md5, || heading::read(unpacked))?;
    Ok((sealed, known))
}

/// What arrived, unsealed again for reading; one chunk at a time.
struct Packed<'a> {
    sealed: &'a mut Sealed,
    chunk: usize,
    open: SecretSlice<u8>,
    at: usize,
}

impl Read for Packed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.open.expose_secret().len() {
            if self.chunk == self.sealed.ends.len() {
                return Ok(0);
            }
            self.open = self.sealed.packed(self.chunk)?;
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
    ring: KeyRing,
    known: Known,
    lock: Option<LockId>,
    _share: Share,
}

impl Content {
    fn new(sealed: Box<Sealed>, ring: KeyRing, known: Known, share: Share) -> Self {
        Content {
            sealed: Some(sealed),
            ring,
            known,
            lock: None,
            _share: share,
        }
    }

    /// Notes the lock that it is written under.
    pub(crate) fn written_under(&mut self, lock: Option<LockId>) {
        self.lock = lock;
    }

    /// The lock that it is written under.
    pub(crate) fn lock(&self) -> Option<&LockId> {
        self.lock.as_ref()
    }

    /// What it says of itself.
    pub(crate) fn heading(&self) -> &Heading {
        &self.known.heading
    }

    /// The resources in it.
    pub(crate) fn index(&self) -> &Index {
        &self.known.index
    }

    /// Its length.
    pub(crate) fn size(&self) -> u64 {
        self.known.size
    }

    /// How many chunks it has.
    pub(crate) fn chunks(&self) -> usize {
        self.sealed().ends.len()
    }

    /// Bytes of its chunks.
    pub(crate) fn stored(&self) -> u64 {
        self.sealed().stored()
    }

    /// What it is sealed to.
    pub(crate) fn place(&self) -> Place {
        self.sealed().body.place
    }

    /// What its chunks are sealed to beside that.
    pub(crate) fn body(&self) -> Uuid {
        self.sealed().body.id
    }

    /// Its data key, sealed.
    pub(crate) fn wrapped_key(&self) -> &[u8] {
        &self.sealed().wrapped
    }

    /// What it is known by as the version of this number.
    pub(crate) fn hash(&self, number: i64) -> [u8; 32] {
        let told = hashed(&self.place(), number, self.known.heading.serial, &self.known.digest);
        self.sealed().key.identity(&told)
    }

    /// Whether a version has the same bytes.
    ///
    /// # Errors
    /// KEY_MISSING and CONTENT_CORRUPT where the version's key cannot be had: whether they differ is not known then.
    pub(crate) fn is(&self, version: &Version) -> Result<bool> {
        if version.serial != self.known.heading.serial {
            return Ok(false);
        }
        let place = Place {
            version: version.id,
            ..self.place()
        };
        let told = hashed(&place, version.number, version.serial, &self.known.digest);
        match &version.data_key {
            Some(wrapped) => {
                let key = DataKey::open(&self.ring, &place, wrapped)?;
                Ok(key.identifies(&told, &version.content_hash))
            }
            None => Ok(self.ring.matches(super::HASH_CONTEXT, &told, &version.content_hash)),
        }
    }

    /// Its plain digest, for what makes a call the repeat of another; it is kept nowhere.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.known.digest
    }

    /// A chunk, sealed.
    pub(crate) async fn chunk(&mut self, chunk: usize) -> Result<Vec<u8>> {
        let mut sealed = self
            .sealed
            .take()
            .ok_or_else(|| Error::internal("a chunk was not read"))?;
        let on_disk = sealed.file.is_rolled();
        let read = move || {
            let bytes = sealed.sealed(chunk);
            (sealed, bytes)
        };
        let (sealed, bytes) = if on_disk { aside(read).await? } else { read() };
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
mod tests;
