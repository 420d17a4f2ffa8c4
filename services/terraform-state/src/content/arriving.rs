//! A content as it arrives: packed and sealed as it comes, so that it never stands unsealed on a disk.

use std::io::{self, Read, Seek, SeekFrom, Write};

use kit::{Error, Result, crypto::KeyRing};
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretSlice};
use tempfile::SpooledTempFile;
use uuid::Uuid;

use super::{
    CHUNK, Place, aside, hashed,
    pack::LEVEL,
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
};

/// What is kept in memory of a content that arrives; more goes into a file.
const IN_MEMORY: usize = 1 << 20;

/// Sealed chunks, one behind the other; what is written to it is cut and sealed.
struct Sealed {
    key: DataKey,
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

/// Packs into sealed chunks. It is made when the first of it is needed: a small content waits for its end without one.
enum Packing {
    Not(Box<Sealed>),
    Begun(Box<zstd::stream::write::Encoder<'static, Sealed>>),
}

impl Packing {
    fn write(self, plain: &[u8], size: Option<u64>) -> io::Result<Packing> {
        let mut encoder = match self {
            Packing::Begun(encoder) => encoder,
            Packing::Not(sealed) => {
                let mut encoder = zstd::stream::write::Encoder::new(*sealed, LEVEL)?;
                encoder.set_pledged_src_size(size)?;
                Box::new(encoder)
            }
        };
        encoder.write_all(plain)?;
        Ok(Packing::Begun(encoder))
    }

    fn finish(self) -> io::Result<Box<Sealed>> {
        let mut sealed = match self {
            Packing::Not(sealed) => sealed,
            Packing::Begun(encoder) => Box::new(encoder.finish()?),
        };
        sealed.seal(true)?;
        Ok(sealed)
    }
}

/// A content as it arrives.
pub(crate) struct Arriving {
    packing: Option<Packing>,
    wrapped: Vec<u8>,
    ring: KeyRing,
    /// What came since the last was packed.
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
        let key = DataKey::new();
        let wrapped = key.sealed(ring, &place);
        let sealed = Sealed {
            key,
            body: Body {
                place,
                id: Uuid::new_v4(),
                base: None,
            },
            file: SpooledTempFile::new(IN_MEMORY),
            ends: Vec::new(),
            packed: Vec::new(),
        };
        Arriving {
            packing: Some(Packing::Not(Box::new(sealed))),
            wrapped,
            ring: ring.clone(),
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
            self.pack().await?;
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
        let packing = self.taken();
        let plain = SecretSlice::from(std::mem::take(&mut self.plain));
        let whole = plain.expose_secret().len() as u64 == self.size;
        let size = whole.then_some(self.size);
        let (sealed, heading) = aside(move || -> io::Result<_> {
            let mut sealed = packing.write(plain.expose_secret(), size)?.finish()?;
            let heading = if whole {
                crate::wire::heading::read(plain.expose_secret())
            } else {
                let packed = Packed {
                    sealed: &mut sealed,
                    chunk: 0,
                    open: SecretSlice::from(Vec::new()),
                    at: 0,
                };
                crate::wire::heading::read(zstd::stream::read::Decoder::new(packed)?)
            };
            Ok((sealed, heading))
        })
        .await?
        .map_err(Error::internal)?;
        let (heading, index) = heading?;
        Ok(Content {
            sealed: Some(sealed),
            wrapped: self.wrapped,
            ring: self.ring,
            heading,
            index,
            size: self.size,
            digest: *self.digest.finalize().as_bytes(),
            lock: None,
            _share: self.share,
        })
    }

    fn taken(&mut self) -> Packing {
        self.packing.take().expect("only a failure keeps it, which ended this")
    }

    async fn pack(&mut self) -> Result<()> {
        let packing = self.taken();
        let plain = SecretSlice::from(std::mem::take(&mut self.plain));
        let packing = aside(move || packing.write(plain.expose_secret(), None)).await?;
        self.packing = Some(packing.map_err(Error::internal)?);
        Ok(())
    }
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
    wrapped: Vec<u8>,
    ring: KeyRing,
    heading: Heading,
    index: Index,
    size: u64,
    digest: [u8; 32],
    lock: Option<LockId>,
    _share: Share,
}

impl Content {
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
        &self.heading
    }

    /// The resources in it.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Its length.
    pub(crate) fn size(&self) -> u64 {
        self.size
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
        &self.wrapped
    }

    /// What it is known by as the version of this number.
    pub(crate) fn hash(&self, number: i64) -> [u8; 32] {
        let told = hashed(&self.place(), number, self.heading.serial, &self.digest);
        self.sealed().key.identity(&told)
    }

    /// Whether a version has the same bytes.
    ///
    /// # Errors
    /// KEY_MISSING and CONTENT_CORRUPT where the version's key cannot be had: whether they differ is not known then.
    pub(crate) fn is(&self, version: &Version) -> Result<bool> {
        if version.serial != self.heading.serial {
            return Ok(false);
        }
        let place = Place {
            version: version.id,
            ..self.place()
        };
        let told = hashed(&place, version.number, version.serial, &self.digest);
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
mod tests;
