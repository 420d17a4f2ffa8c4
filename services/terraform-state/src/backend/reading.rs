//! How a version is read: to its end before anything of it is answered, and by newer versions where it is told by one.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use kit::{Error, Reason, Result, auth::scope::Tenancy, crypto::KeyRing, db::Tx, failpoint};
use uuid::Uuid;

use super::Backend;
use crate::{
    content::{CHUNK, Opening, Part, Place, corrupt},
    memory::Share,
    model::{StateId, state::State, version::Version},
    store,
};

/// A content up to this many bytes is kept from the check before the answer; a longer whole one is read again.
const KEPT: i64 = 1 << 20;
/// How often a version is looked at anew that was stored otherwise meanwhile.
const ATTEMPTS: usize = 4;

/// How a version's content stands just now: itself, the newer one that it is told by, and so on, to one that is whole.
async fn chain(tx: &mut Tx, state: StateId, version: Version) -> Result<Vec<Version>> {
    let mut chain = vec![version];
    while let Some(base) = chain.last().and_then(|told| told.base_number) {
        let found = store::version::find(tx, state, base).await?;
        chain.push(found.ok_or_else(|| corrupt("the version that it is told by is missing", state, base))?);
    }
    Ok(chain)
}

fn bodies(chain: &[Version]) -> Vec<(i64, Uuid)> {
    chain.iter().map(|version| (version.number, version.body_id)).collect()
}

async fn sealed(tx: &mut Tx, place: Place, version: &Version, chunk: i32) -> Result<Vec<u8>> {
    let sealed = store::chunk::find(tx, version.id, chunk).await?;
    sealed.ok_or_else(|| corrupt("a chunk is missing", place.state, version.number))
}

/// A version's content in memory, checked, with what opens it. For contents that are told by others, and those that others are
/// told by: these are not long.
///
/// # Errors
/// CONTENT_CORRUPT, KEY_MISSING.
pub(crate) async fn whole(
    tx: &mut Tx,
    ring: &KeyRing,
    state: StateId,
    version: &Version,
    base: Option<Arc<Vec<u8>>>,
) -> Result<(Arc<Vec<u8>>, Opening)> {
    let place = Place {
        org: tx.org(),
        state,
        version: version.id,
    };
    let opening = Opening::new(ring, place, version)?;
    let mut chunks = Vec::new();
    for chunk in 0..version.chunks {
        chunks.push(sealed(tx, place, version, chunk).await?);
    }
    let plain = Arc::new(opening.whole(chunks, base).await?);
    opening.check(version, plain.len() as u64, blake3::hash(&plain).as_bytes())?;
    Ok((plain, opening))
}

/// As [`whole`], by as many other versions as it takes.
pub(crate) async fn told(tx: &mut Tx, ring: &KeyRing, state: StateId, version: &Version) -> Result<Arc<Vec<u8>>> {
    let mut base = None;
    for version in chain(tx, state, version.clone()).await?.iter().rev() {
        base = Some(whole(tx, ring, state, version, base).await?.0);
    }
    base.ok_or_else(|| Error::internal("a version is in its chain"))
}

impl Backend {
    /// Reads a version to its end: what is answered afterwards is whole and what was written.
    ///
    /// # Errors
    /// CONTENT_CORRUPT, KEY_MISSING, OVERLOADED.
    pub(crate) async fn read(&self, tx: &mut Tx, state: &State, version: Version) -> Result<Reading> {
        let mut version = version;
        let mut seen = None;
        for _ in 0..ATTEMPTS {
            let mut stands = Vec::new();
            let error = match self.read_once(tx, state.id, version.clone(), &mut stands).await {
                Err(error) if error.reason() == Reason::ContentCorrupt => error,
                other => return other,
            };
            // The compactor may have stored it, or what it is told by, otherwise while it was read; then it is not what was
            // looked at that is wrong.
            if seen.as_ref() == Some(&stands) {
                return Err(error);
            }
            seen = Some(stands);
            let found = store::version::find(tx, state.id, version.number).await?;
            version = found.ok_or_else(|| Error::not_found("state_version", version.number))?;
        }
        Err(Error::new(
            Reason::Conflict,
            "the version is stored otherwise again and again; try again",
        ))
    }

    async fn read_once(
        &self,
        tx: &mut Tx,
        state: StateId,
        version: Version,
        stands: &mut Vec<(i64, Uuid)>,
    ) -> Result<Reading> {
        *stands = bodies(std::slice::from_ref(&version));
        let place = Place {
            org: tx.org(),
            state,
            version: version.id,
        };
        let mut share = self.memory.share();
        let size = u64::try_from(version.size_bytes).unwrap_or(u64::MAX);
        let opening = Opening::new(&self.ring, place, &version)?;
        let kept = if version.base_number.is_some() {
            share.grow_for_whole(size)?;
            let chain = chain(tx, state, version.clone()).await?;
            *stands = bodies(&chain);
            let mut base = None;
            for version in chain.iter().rev() {
                base = Some(whole(tx, &self.ring, state, version, base).await?.0);
            }
            base.map(Kept::Whole)
        } else {
            share.grow_for(size)?;
            let (mut digest, mut read, mut kept) = (blake3::Hasher::new(), 0, Vec::new());
            let mut part = opening.begin()?;
            while !part.ended() {
                let chunk = match part.wants() {
                    Some(chunk) => Some(sealed(tx, place, &version, chunk).await?),
                    None => None,
                };
                let (next, plain) = part.step(chunk).await?;
                part = next;
                digest.update(&plain);
                read += plain.len() as u64;
                if version.size_bytes <= KEPT && !plain.is_empty() {
                    kept.push(Bytes::from(plain));
                }
            }
            opening.check(&version, read, digest.finalize().as_bytes())?;
            (version.size_bytes <= KEPT).then_some(Kept::Parts(kept))
        };
        Ok(Reading {
            backend: self.clone(),
            tenancy: Tenancy {
                org: tx.org(),
                principal: tx.principal(),
            },
            place,
            version,
            opening,
            kept,
            _share: share,
        })
    }
}

/// A content that is in memory.
enum Kept {
    Parts(Vec<Bytes>),
    Whole(Arc<Vec<u8>>),
}

/// A version's content on its way out: checked, and kept as far as memory allows.
pub(crate) struct Reading {
    backend: Backend,
    tenancy: Tenancy,
    place: Place,
    pub(crate) version: Version,
    opening: Opening,
    kept: Option<Kept>,
    /// Until the last part is taken, or the answer given up.
    _share: Share,
}

/// Where an answer stands.
struct Going {
    reading: Reading,
    /// What is in memory, and how much of it was answered.
    kept: Option<Kept>,
    at: usize,
    part: Option<Part>,
    /// How many bytes were answered, and how many are not to be answered again.
    answered: usize,
    skip: usize,
}

impl Going {
    fn new(mut reading: Reading, skip: usize) -> Result<Going> {
        let kept = reading.kept.take();
        let part = match kept {
            Some(_) => None,
            None => Some(reading.opening.begin()?),
        };
        Ok(Going {
            reading,
            kept,
            at: 0,
            part,
            answered: 0,
            skip,
        })
    }

    /// The next part, empty ones and those that were answered before among them; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match &self.kept {
            Some(Kept::Parts(parts)) => {
                self.at += 1;
                return Ok(parts.get(self.at - 1).cloned());
            }
            Some(Kept::Whole(plain)) => {
                let part = &plain[self.at..plain.len().min(self.at + CHUNK)];
                self.at += part.len();
                return Ok((!part.is_empty()).then(|| Bytes::copy_from_slice(part)));
            }
            None => {}
        }
        let part = self.part.as_ref().filter(|part| !part.ended());
        let Some(wanted) = part.map(Part::wants) else {
            return Ok(None);
        };
        let sealed = match wanted {
            Some(chunk) => Some(self.reading.again(chunk).await?),
            None => None,
        };
        let part = self.part.take().ok_or_else(|| Error::internal("a part was not read"))?;
        let (part, plain) = part.step(sealed).await?;
        self.part = Some(part);
        Ok(Some(Bytes::from(plain)))
    }

    /// The next part that was not answered yet. Where the version is stored otherwise by now, it is read anew from there.
    async fn answer(&mut self) -> Result<Option<Bytes>> {
        loop {
            let mut part = match self.next().await {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(None),
                Err(error) if error.reason() == Reason::ContentCorrupt => {
                    *self = Going::new(self.reading.anew(error).await?, self.answered)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let known = part.len().min(self.skip);
            self.skip -= known;
            let part = part.split_off(known);
            if !part.is_empty() {
                self.answered += part.len();
                return Ok(Some(part));
            }
        }
    }
}

impl Reading {
    /// Its parts, each at most 1 MiB. A part that cannot be had is an error, never the end.
    pub(crate) fn parts(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let going = Going::new(self, 0);
        stream::try_unfold(Some(going), |going| async move {
            let Some(going) = going else { return Ok(None) };
            let mut going = going?;
            Ok(going.answer().await?.map(|part| (part, Some(Ok(going)))))
        })
    }

    fn tenancy(&self) -> Tenancy {
        Tenancy {
            org: self.tenancy.org,
            principal: self.tenancy.principal,
        }
    }

    /// A chunk once more, for a caller who reads longer than a call lasts: what a version says never changes.
    async fn again(&self, chunk: i32) -> Result<Vec<u8>> {
        failpoint::hit_in("terraform_state.part", &self.place.state.to_string()).await?;
        let Tenancy { org, principal } = self.tenancy();
        let (backend, place, version) = (&self.backend, self.place, &self.version);
        let read = async |tx: &mut Tx| {
            tx.enter(org, principal).await?;
            sealed(tx, place, version, chunk).await
        };
        backend.kit.db.look(&backend.kit.scope(), read).await
    }

    /// The same version as it stands now.
    ///
    /// # Errors
    /// The one that was met, where it stands as it stood.
    async fn anew(&self, met: Error) -> Result<Reading> {
        let Tenancy { org, principal } = self.tenancy();
        let (backend, place, version) = (&self.backend, self.place, &self.version);
        let read = async |tx: &mut Tx| {
            tx.enter(org, principal).await?;
            let state = store::state::find(tx, place.state).await?;
            let found = store::version::find(tx, place.state, version.number).await?;
            match state.zip(found) {
                Some((state, found)) if found.body_id != version.body_id => {
                    backend.read(tx, &state, found).await.map(Some)
                }
                Some(_) | None => Ok(None),
            }
        };
        backend.kit.db.look(&backend.kit.scope(), read).await?.ok_or(met)
    }
}
