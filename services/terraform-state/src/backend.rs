//! What can be done to a state, over gRPC and by Terraform alike: the rules stand here once.
//!
//! Every function that changes something is called with the state's row held.

pub(crate) mod lock;
pub(crate) mod reading;

use std::time::Duration;

use api::events::v1::{StateWritten, event::Payload};
use kit::{Error, Reason, Result, auth::scope::OrgScope, crypto::KeyRing, db::Tx, ids::Principal, service::Kit};

use crate::{
    content::{Content, Opening, Place, corrupt, too_large},
    memory::Memory,
    model::{
        Caller, DesignId, VersionKind,
        lock::{LockId, mismatch},
        state::State,
        version::{Verdict, Version, judge},
    },
    store::{self, limit::Limits},
};

/// Who may take a lock from its holder, and push over the rules of serial and lineage.
pub(crate) const FORCE: &str = "terraform_state.lock.force";

/// What states are kept with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) kit: Kit,
    /// Seals contents, and nothing else does.
    pub(crate) ring: KeyRing,
    /// The most bytes of a content, where its organization has no limit of its own.
    pub(crate) limit: u64,
    /// The most bytes of all versions of an organization as they are stored, where it has no limit of its own.
    pub(crate) quota: Option<u64>,
    /// How long after a write its state is compacted.
    pub(crate) compact_after: Duration,
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
/// STATE_DELETED, CALLER_NOT_ALLOWED.
pub(crate) fn touchable(scope: &OrgScope, state: &State) -> Result<()> {
    state.there()?;
    reachable(scope, state)
}

/// As [`touchable`], deleted or not.
///
/// # Errors
/// CALLER_NOT_ALLOWED.
pub(crate) fn reachable(scope: &OrgScope, state: &State) -> Result<()> {
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
        // Of what is refused nothing is kept, this neither.
        let lock = match store::lock::update_seen(tx, state.id).await? {
            Some(own) => Some(own),
            None => store::lock::find(tx, state.id).await?,
        };
        match (&lock, given) {
            (None, None) if matches!(tx.principal(), Principal::Job(_)) => {
                return Err(mismatch("a job writes under its lock alone"));
            }
            (None, None) => {}
            (Some(held), Some(id)) if held.is_held(id, Caller::of(tx.principal())?) => {}
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
        let same = match &current {
            Some(current) => self.is(tx, content, state, current).await?,
            None => false,
        };
        let forced = may_force && lock.as_ref().is_some_and(|lock| lock.pushes());
        let before = current.clone();
        let kind = match (judge(current.as_ref(), content.heading(), same, forced)?, current) {
            (Verdict::Next(kind), _) => kind,
            (Verdict::Repeated, Some(current)) => return Ok((current, false)),
            (Verdict::Repeated, None) => return Err(Error::internal("nothing was repeated")),
        };
        if let (Some(lock), Some(current)) = (&lock, &before)
            && current.kind == VersionKind::Normal
            && current.lock_id.as_ref() == Some(&lock.id)
            && current.created_at >= lock.created_at
        {
            // Terraform saves while it applies: what this lock wrote before was on the way to this.
            store::version::update_kind(tx, state.id, current.number, VersionKind::Intermediate).await?;
        }
        content.written_under(lock.map(|lock| lock.id));
        let version = self.append(tx, state, kind, content).await?;
        Ok((version, true))
    }

    /// Writes the next version, whatever it is.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE, QUOTA_EXCEEDED.
    pub(crate) async fn append(
        &self,
        tx: &mut Tx,
        state: &State,
        kind: VersionKind,
        content: &mut Content,
    ) -> Result<Version> {
        let first = content.chunk(0).await?;
        let (version, limits) = store::version::insert(tx, state, kind, content, &first, self.compact_after).await?;
        self.room(tx, content, limits).await?;
        for place in 1..version.chunks {
            let sealed = content.chunk(usize::try_from(place).map_err(Error::internal)?).await?;
            store::chunk::insert(tx, version.id, place, sealed).await?;
        }
        store::resource::replace(tx, state, content.index(), &self.ring).await?;
        tx.tell(Payload::StateWritten(StateWritten {
            state_id: state.id.to_string(),
            state_name: state.name.as_str().to_owned(),
            design_id: state.design_id.map(|design| design.to_string()).unwrap_or_default(),
            version: version.number,
            serial: version.serial,
        }));
        Ok(version)
    }

    /// The most bytes of a content of the transaction's organization.
    pub(crate) async fn limit_of(&self, tx: &mut Tx) -> Result<u64> {
        let limits = store::limit::find(tx).await?;
        Ok(limits.state_bytes.unwrap_or(self.limit))
    }

    /// Whether the organization has room for this, which counts already. Of two writers at the same moment neither sees the
    /// other's: they may go over the quota by what they write.
    async fn room(&self, tx: &mut Tx, content: &Content, limits: Limits) -> Result<()> {
        let most = limits.state_bytes.unwrap_or(self.limit);
        if content.size() > most {
            return Err(too_large(most));
        }
        let Some(quota) = limits.stored_bytes.or(self.quota) else {
            return Ok(());
        };
        let stored = store::state::stored_bytes(tx).await?;
        if stored > quota {
            return Err(Error::new(
                Reason::QuotaExceeded,
                "the organization's states take all of the room that it has",
            )
            .with("limit_bytes", quota.to_string())
            .with("stored_bytes", stored.saturating_sub(content.stored()).to_string()));
        }
        Ok(())
    }

    /// Whether a version has these bytes.
    ///
    /// # Errors
    /// KEY_MISSING where that is not known.
    async fn is(&self, tx: &mut Tx, content: &Content, state: &State, version: &Version) -> Result<bool> {
        let same = content.is(version)?;
        if !same && version.data_key.is_none() && version.serial == content.heading().serial {
            // Before there were data keys, contents were hashed with a key of the ring; whether it is there shows by a chunk.
            let place = Place {
                org: tx.org(),
                state: state.id,
                version: version.id,
            };
            let sealed = store::chunk::find(tx, version.id, 0).await?;
            let sealed = sealed.ok_or_else(|| corrupt("a chunk is missing", state.id, version.number))?;
            let opening = Opening::new(&self.ring, place, version)?;
            opening.begin()?.step(Some(sealed)).await?;
        }
        Ok(same)
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
