//! A content on its way out: its chunks, opened and unpacked one after the other.

use std::sync::Arc;

use kit::{Error, Result, crypto::KeyRing};
use secrecy::{ExposeSecret, SecretSlice};

use super::{
    CHUNK, HASH_CONTEXT, Place, Unpacking, aside_for, corrupt, hashed, pack,
    seal::{Body, DataKey, refused},
};
use crate::model::version::Version;

/// What opens the chunks of one version.
enum Keys {
    /// Its own.
    Data(DataKey, Body),
    /// The ring's, as before there were data keys: then nothing is packed either.
    Ring,
}

/// What a version's chunks are opened with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Opening {
    ring: KeyRing,
    place: Place,
    keys: Arc<Keys>,
    chunks: i32,
    size: i64,
}

impl Opening {
    /// # Errors
    /// KEY_MISSING, CONTENT_CORRUPT.
    pub(crate) fn new(ring: &KeyRing, place: Place, version: &Version) -> Result<Opening> {
        let keys = match &version.data_key {
            None => Keys::Ring,
            Some(wrapped) => {
                let body = Body {
                    place,
                    id: version.body_id,
                    base: version.base_number,
                };
                Keys::Data(DataKey::open(ring, &place, wrapped)?, body)
            }
        };
        Ok(Opening {
            ring: ring.clone(),
            place,
            keys: Arc::new(keys),
            chunks: version.chunks,
            size: version.size_bytes,
        })
    }

    /// Its own key, if it has one.
    pub(crate) fn data_key(&self) -> Option<&DataKey> {
        match &*self.keys {
            Keys::Data(key, _) => Some(key),
            Keys::Ring => None,
        }
    }

    fn chunk(&self, chunk: i32, sealed: &[u8]) -> Result<SecretSlice<u8>> {
        let last = chunk + 1 == self.chunks;
        let at = usize::try_from(chunk).map_err(Error::internal)?;
        match &*self.keys {
            Keys::Data(key, body) => key.unseal(body, at, last, sealed),
            Keys::Ring => {
                let opened = self.ring.open(sealed, &self.place.of_chunk(at, last));
                opened.map_err(|error| refused(error, &self.place, "a chunk does not open in its place"))
            }
        }
    }

    /// Reads a whole content as it is stored, part by part.
    ///
    /// # Errors
    /// INTERNAL.
    pub(crate) fn begin(&self) -> Result<Part> {
        let unpacking = match &*self.keys {
            Keys::Data(..) => Some(Unpacking::new().map_err(Error::internal)?),
            Keys::Ring => None,
        };
        Ok(Part {
            opening: self.clone(),
            unpacking,
            packed: SecretSlice::from(Vec::new()),
            used: 0,
            next: 0,
            full: false,
            size: 0,
        })
    }

    /// All of a content from all of its sealed chunks, by the one that it is told by if there is one.
    ///
    /// # Errors
    /// CONTENT_CORRUPT.
    pub(crate) async fn whole(&self, sealed: Vec<Vec<u8>>, base: Option<Arc<Vec<u8>>>) -> Result<Vec<u8>> {
        let opening = self.clone();
        aside_for(usize::try_from(self.size).unwrap_or(usize::MAX), move || {
            let mut packed = Vec::new();
            for (chunk, sealed) in (0..).zip(&sealed) {
                packed.extend_from_slice(opening.chunk(chunk, sealed)?.expose_secret());
            }
            let Place { state, version, .. } = opening.place;
            if opening.data_key().is_none() {
                return Ok(packed);
            }
            let size = usize::try_from(opening.size).map_err(Error::internal)?;
            let base = base.as_ref().map(|base| base.as_slice());
            pack::unpack(&packed, base, size).map_err(|_| corrupt("the content does not unpack", state, version))
        })
        .await?
    }

    /// Whether this is what was written.
    ///
    /// # Errors
    /// CONTENT_CORRUPT where length or hash are not the row's.
    pub(crate) fn check(&self, version: &Version, size: u64, digest: &[u8; 32]) -> Result<()> {
        if u64::try_from(version.size_bytes) != Ok(size) {
            return Err(corrupt(
                "the content's length is another one",
                self.place.state,
                version.number,
            ));
        }
        let told = hashed(&self.place, version.number, version.serial, digest);
        let known = match &*self.keys {
            Keys::Data(key, _) => key.identifies(&told, &version.content_hash),
            Keys::Ring => self.ring.matches(HASH_CONTEXT, &told, &version.content_hash),
        };
        if !known {
            return Err(corrupt(
                "the content's hash is another one",
                self.place.state,
                version.number,
            ));
        }
        Ok(())
    }
}

/// How far a whole content was read.
pub(crate) struct Part {
    opening: Opening,
    unpacking: Option<Unpacking>,
    packed: SecretSlice<u8>,
    used: usize,
    next: i32,
    /// Whether the last part had no more room: there may be more in what was used up.
    full: bool,
    size: i64,
}

impl Part {
    /// The chunk that is needed to go on; none while there is something to be had without one.
    pub(crate) fn wants(&self) -> Option<i32> {
        (self.used == self.packed.expose_secret().len() && !self.full && self.next < self.opening.chunks)
            .then_some(self.next)
    }

    /// Whether all of it was read.
    pub(crate) fn ended(&self) -> bool {
        self.used == self.packed.expose_secret().len() && !self.full && self.next >= self.opening.chunks
    }

    /// Goes on with the chunk that was wanted, if one was: at most [`CHUNK`] bytes, perhaps none.
    ///
    /// # Errors
    /// CONTENT_CORRUPT, KEY_MISSING.
    pub(crate) async fn step(mut self, sealed: Option<Vec<u8>>) -> Result<(Part, Vec<u8>)> {
        aside_for(usize::try_from(self.opening.size).unwrap_or(usize::MAX), move || {
            if let Some(sealed) = sealed {
                self.packed = self.opening.chunk(self.next, &sealed)?;
                self.next += 1;
                self.used = 0;
            }
            let rest = &self.packed.expose_secret()[self.used..];
            let Some(unpacking) = &mut self.unpacking else {
                let plain = rest.to_vec();
                self.used += plain.len();
                return Ok((self, plain));
            };
            let left = usize::try_from(self.opening.size - self.size).unwrap_or(0);
            // One more than there can be: what is longer is seen as longer.
            let mut plain = Vec::with_capacity(CHUNK.min(left + 1));
            let Place { state, version, .. } = self.opening.place;
            let used = unpacking.step(rest, &mut plain);
            let used = used.map_err(|_| corrupt("the content does not unpack", state, version))?;
            self.full = plain.len() == plain.capacity();
            let more = used < rest.len();
            self.used += used;
            self.size += i64::try_from(plain.len()).map_err(Error::internal)?;
            if self.size > self.opening.size || (more && !self.full) {
                return Err(corrupt("the content unpacks to something else", state, version));
            }
            Ok((self, plain))
        })
        .await?
    }
}
