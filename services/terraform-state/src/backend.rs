//! What can be done to a state, over gRPC and by Terraform alike: the rules stand here once.
//!
//! Every function that changes something is called with the state's row held.

pub(crate) mod lock;

use api::events::v1::{StateWritten, event::Payload};
use bytes::Bytes;
use futures_util::{Stream, stream};
use kit::{
    Error, Reason, Result,
    auth::scope::{OrgScope, Tenancy},
    crypto::KeyRing,
    db::{Db, Tx},
    failpoint,
    ids::Principal,
    service::Kit,
};
use secrecy::ExposeSecret;

use crate::{
    content::{Check, Content, Place, corrupt, open},
    memory::{Memory, Share},
    model::{
        Caller, DesignId,
        lock::{LockId, mismatch},
        state::State,
        version::{Verdict, Version, judge},
    },
    store,
};

/// Who may take a lock from its holder, and push over the rules of serial and lineage.
pub(crate) const FORCE: &str = "terraform_state.lock.force";
/// As many chunks are kept from the check before the answer; the content of a longer one is read again.
const KEPT_CHUNKS: usize = 1;

/// What states are kept with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) kit: Kit,
    /// Seals contents, and nothing else does.
    pub(crate) ring: KeyRing,
    /// The most bytes of a content.
    pub(crate) limit: u64,
    /// The room for contents on their way.
    pub(crate) memory: Memory,
}

/// Whether the caller may go over a holder and over the rules.
pub(crate) fn may_force(scope: &OrgScope) -> bool {
    scope.permissions().holds(FORCE)
}

/// Whether the caller may touch a state that was found: a job's is of its name, and of no other design than its own.
///
/// # Errors
/// CALLER_NOT_ALLOWED.
pub(crate) fn touchable(scope: &OrgScope, state: &State) -> Result<()> {
    scope.within("state", state.name.as_str())?;
    match state.design_id {
        Some(design) if scope.bound("design").is_some() => scope.within("design", &design.to_string()),
        Some(_) | None => Ok(()),
    }
}

/// The design that a state of a job's making belongs to.
pub(crate) fn bound_design(scope: &OrgScope) -> Result<Option<DesignId>> {
    let design = scope.bound("design").map(str::parse).transpose();
    design.map_err(Error::internal)
}

impl Backend {
    /// Waits for news of a design that is not known here.
    pub(crate) async fn learn(&self, scope: &OrgScope, design: DesignId) -> Result<()> {
        let known = async |tx: &mut Tx| store::design::exists(tx, design).await;
        if !self.kit.db.look(scope, known).await? {
            self.kit.caught_up("designs").await;
        }
        Ok(())
    }

    /// Writes a version, and says whether it is a new one.
    ///
    /// # Errors
    /// STATE_LOCKED without a lock id while somebody holds the state, LOCK_MISMATCH with a lock id that is not the
    /// caller's current one, and for a job without one, SERIAL_CONFLICT, KEY_MISSING where the current version cannot be compared.
    pub(crate) async fn write(
        &self,
        tx: &mut Tx,
        state: &State,
        given: Option<&LockId>,
        content: &mut Content,
        may_force: bool,
    ) -> Result<(Version, bool)> {
        let lock = store::lock::find(tx, state.id).await?;
        match (&lock, given) {
            (None, None) if matches!(tx.principal(), Principal::Job(_)) => {
                return Err(mismatch("a job writes under its lock alone"));
            }
            (None, None) => {}
            (Some(held), Some(id)) if held.is_held(id, Caller::of(tx.principal())?) => {
                store::lock::update_seen(tx, state.id).await?;
            }
            (Some(held), None) => return Err(held.refusal()),
            (Some(_), Some(_)) => return Err(mismatch("the lock is not the one that is held, or another caller's")),
            (None, Some(_)) => return Err(mismatch("the lock is no longer held")),
        }
        let current = match state.latest_version {
            0 => None,
            number => {
                let found = store::version::find(tx, state.id, number).await?;
                Some(found.ok_or_else(|| corrupt("the current version is missing", state.id, number))?)
            }
        };
        let same = current.as_ref().is_some_and(|current| content.is(current));
        if let Some(current) = &current
            && !same
            && current.serial == content.heading().serial
        {
            // Whether they differ is only known with the key that the current one was hashed with.
            self.chunk(tx, self.place(state, tx, current), current, 0).await?;
        }
        let forced = may_force && lock.is_some_and(|lock| lock.pushes());
        let kind = match (judge(current.as_ref(), content.heading(), same, forced)?, current) {
            (Verdict::Next(kind), _) => kind,
            (Verdict::Repeated, Some(current)) => return Ok((current, false)),
            (Verdict::Repeated, None) => return Err(Error::internal("nothing was repeated")),
        };
        let number = state.latest_version + 1;
        let version = store::version::insert(tx, state.id, number, kind, content).await?;
        for place in 0..version.chunks {
            let sealed = content.chunk(usize::try_from(place).map_err(Error::internal)?).await?;
            store::chunk::insert(tx, version.id, place, sealed).await?;
        }
        store::state::update_written(tx, state.id, number).await?;
        tx.tell(Payload::StateWritten(StateWritten {
            state_id: state.id.to_string(),
            state_name: state.name.as_str().to_owned(),
            design_id: state.design_id.map(|design| design.to_string()).unwrap_or_default(),
            version: number,
            serial: version.serial,
        }));
        Ok((version, true))
    }

    /// Reads a version to its end: what is answered afterwards is whole and what was written.
    ///
    /// # Errors
    /// CONTENT_CORRUPT, KEY_MISSING, OVERLOADED.
    pub(crate) async fn read(&self, tx: &mut Tx, state: &State, version: Version) -> Result<Reading> {
        let place = self.place(state, tx, &version);
        let mut share = self.memory.share();
        share.grow_for(u64::try_from(version.size_bytes).unwrap_or(u64::MAX))?;
        let mut check = Check::new();
        let mut kept = Vec::new();
        for chunk in 0..version.chunks {
            let plain = self.chunk(tx, place, &version, chunk).await?;
            check.add(&plain);
            if kept.len() < KEPT_CHUNKS {
                kept.push(plain);
            }
        }
        check.finish(&self.ring, &place, &version)?;
        Ok(Reading {
            backend: self.clone(),
            tenancy: Tenancy {
                org: tx.org(),
                principal: tx.principal(),
            },
            place,
            version,
            kept,
            _share: share,
        })
    }

    fn place(&self, state: &State, tx: &Tx, version: &Version) -> Place {
        Place {
            org: tx.org(),
            state: state.id,
            version: version.id,
        }
    }

    async fn chunk(&self, tx: &mut Tx, place: Place, version: &Version, chunk: i32) -> Result<Bytes> {
        let sealed = store::chunk::find(tx, version.id, chunk).await?;
        let sealed = sealed.ok_or_else(|| corrupt("a chunk is missing", place.state, version.number))?;
        let at = usize::try_from(chunk).map_err(Error::internal)?;
        let plain = open(&self.ring, place, (at, chunk + 1 == version.chunks), sealed).await?;
        Ok(Bytes::copy_from_slice(plain.expose_secret()))
    }

    fn db(&self) -> &Db {
        &self.kit.db
    }
}

/// A version's content on its way out: checked, and kept as far as memory allows.
pub(crate) struct Reading {
    backend: Backend,
    tenancy: Tenancy,
    place: Place,
    pub(crate) version: Version,
    kept: Vec<Bytes>,
    /// Until the last part is taken, or the answer given up.
    _share: Share,
}

impl Reading {
    /// Its parts, each at most 1 MiB. A part that cannot be had is an error, never the end.
    pub(crate) fn parts(mut self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let kept = std::mem::take(&mut self.kept);
        let first_left = i32::try_from(kept.len()).unwrap_or(i32::MAX);
        let start = (self, kept.into_iter(), first_left);
        stream::try_unfold(start, |(reading, mut kept, mut next)| async move {
            if let Some(part) = kept.next() {
                return Ok(Some((part, (reading, kept, next))));
            }
            if next >= reading.version.chunks {
                return Ok(None);
            }
            let part = reading.again(next).await?;
            next += 1;
            Ok(Some((part, (reading, kept, next))))
        })
    }

    /// A chunk once more, for a caller who reads longer than a call lasts: versions never change.
    async fn again(&self, chunk: i32) -> Result<Bytes> {
        failpoint::hit_in("terraform_state.part", &self.place.state.to_string()).await?;
        let Tenancy { org, principal } = self.tenancy;
        let (backend, place, version) = (&self.backend, self.place, &self.version);
        let read = async |tx: &mut Tx| {
            tx.enter(org, principal).await?;
            backend.chunk(tx, place, version, chunk).await
        };
        backend.db().look(&backend.kit.scope(), read).await
    }
}

/// The refusal of a caller who may not force.
pub(crate) fn force_missing() -> Error {
    Error::new(
        Reason::PermissionMissing,
        format!("{FORCE} is needed to take a lock from its holder"),
    )
    .with("permission", FORCE)
}
