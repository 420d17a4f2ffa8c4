//! Rotations: data keys and drift's values sealed by the primary key, some hundred in a transaction, each of which ends with where it
//! stands.

use std::time::Duration;

use kit::{
    Error, Result,
    db::Tx,
    failpoint,
    ids::{OrgId, Principal},
};
use uuid::Uuid;

use crate::{
    backend::Backend,
    compact::renew,
    content::{Place, seal::DataKey},
    model::{
        StateId,
        drift::{DriftLogId, Side},
        key::{Rotation, Stage},
        version::Version,
    },
    store::{self, key::Running},
};

/// How often it looks whether one was asked for.
const EVERY: Duration = Duration::from_millis(500);
/// The longest between two looks while the database does not answer.
const LONGEST: Duration = Duration::from_secs(15);
/// How many rows are sealed in one transaction.
const BATCH: i64 = 250;

/// Rotates keys where it was asked for, for as long as the service runs.
pub(crate) async fn run(backend: Backend) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match sweep(&backend).await {
            Ok(()) => EVERY,
            Err(error) => {
                let next = (pause * 2).min(LONGEST);
                tracing::warn!(
                    ?error,
                    retry_in_ms = next.as_millis() as u64,
                    "a rotation of keys stands"
                );
                next
            }
        };
    }
}

async fn sweep(backend: &Backend) -> Result<()> {
    let (kit, scope, key) = (&backend.kit, backend.kit.scope(), backend.ring.current_id());
    // One to another key is for the replicas that have it as their primary one.
    let running = kit
        .worker
        .look(&scope, async |tx| store::key::list_running(tx, key).await);
    for rotation in running.await? {
        while batch(backend, rotation).await? {
            failpoint::hit_in("terraform_state.rotation_committed", &rotation.org().to_string()).await?;
        }
    }
    Ok(())
}

/// The next versions of a rotation; false where another replica has it, or it has come to its end.
async fn batch(backend: &Backend, running: Running) -> Result<bool> {
    let (kit, key) = (&backend.kit, backend.ring.current_id());
    let me = Principal::Service(kit.worker.slice());
    kit.worker
        .read(&kit.scope(), async |tx| {
            tx.enter(running.org(), me).await?;
            let Some(mut rotation) = store::key::claim(tx, running.id()).await? else {
                return Ok(false);
            };
            failpoint::hit_in("terraform_state.rotation_claimed", &running.org().to_string()).await?;
            let target = if running.org() == OrgId::PLATFORM {
                store::key::next_org(tx, key, rotation.after_org).await?
            } else {
                Some(running.org())
            };
            let Some(target) = target else {
                store::key::update(tx, &rotation, true).await?;
                return Ok(false);
            };
            if target.0 != rotation.after_org {
                rotation.enter(target.0);
            }
            tx.enter(target, me).await?;
            let mut finished = false;
            // What is left of a stage has failed, and so has what is left of an organization after the last one.
            if !seal(backend, tx, &mut rotation).await? && !rotation.advance() {
                if running.org() == OrgId::PLATFORM {
                    rotation.enter(Uuid::from_u128(target.0.as_u128().saturating_add(1)));
                } else {
                    finished = true;
                }
            }
            failpoint::hit_in("terraform_state.rotation_sealed", &running.org().to_string()).await?;
            tx.enter(running.org(), me).await?;
            store::key::update(tx, &rotation, finished).await?;
            Ok(!finished)
        })
        .await
}

/// Seals the next rows of the stage that a rotation is at; false where there are none.
async fn seal(backend: &Backend, tx: &mut Tx, rotation: &mut Rotation) -> Result<bool> {
    let (key, ring, org) = (backend.ring.current_id(), &backend.ring, tx.org());
    match rotation.stage {
        Stage::Versions => {
            let after = (StateId(rotation.after_state), rotation.after_number);
            let versions = store::key::list_otherwise(tx, key, after, BATCH).await?;
            for (state, version) in &versions {
                rotate(backend, tx, rotation, *state, version).await?;
            }
            Ok(!versions.is_empty())
        }
        Stage::DriftLogs => {
            let after = DriftLogId(rotation.after_state);
            let logs = store::key::list_logs_otherwise(tx, key, after, BATCH).await?;
            for log in &logs {
                rotation.after_state = log.id.0;
                // A side that does not open keeps its key, and does not hold the other back.
                let [before, after] = [(Side::Before, &log.before), (Side::After, &log.after)].map(|(side, kept)| {
                    let sealed = log.resealed(ring, org, side)?;
                    counted(rotation, sealed).or_else(|| kept.clone())
                });
                store::key::update_log(tx, log, before, after).await?;
            }
            Ok(!logs.is_empty())
        }
        Stage::DriftViews => {
            let place = i32::try_from(rotation.after_number).map_err(Error::internal)?;
            let after = (StateId(rotation.after_state), place);
            let rows = store::key::list_views_otherwise(tx, key, after, BATCH).await?;
            for row in &rows {
                (rotation.after_state, rotation.after_number) = (row.state_id.0, i64::from(row.place));
                if let Some(sealed) = counted(rotation, row.resealed(ring)) {
                    store::key::update_view(tx, row, sealed).await?;
                }
            }
            Ok(!rows.is_empty())
        }
    }
}

/// What a value of drift is to be from now on; one that does not open keeps its key.
fn counted(rotation: &mut Rotation, sealed: Result<Vec<u8>>) -> Option<Vec<u8>> {
    match sealed {
        Ok(sealed) => {
            rotation.done_values += 1;
            Some(sealed)
        }
        Err(error) => {
            tracing::warn!(?error, "a value of drift keeps its key");
            rotation.failed_values += 1;
            None
        }
    }
}

async fn rotate(
    backend: &Backend,
    tx: &mut Tx,
    rotation: &mut Rotation,
    state: StateId,
    version: &Version,
) -> Result<()> {
    (rotation.after_state, rotation.after_number) = (state.0, version.number);
    let place = Place {
        org: tx.org(),
        state,
        version: version.id,
    };
    let outcome = match &version.data_key {
        Some(sealed) => match DataKey::resealed(&backend.ring, &place, sealed) {
            Ok(sealed) => {
                store::key::update_key(tx, state, version, &sealed).await?;
                Ok(())
            }
            Err(error) => Err(error),
        },
        None => {
            let renewed = tx
                .savepoint(async |tx: &mut Tx| renew(backend, tx, state, version).await)
                .await?;
            renewed.map(drop)
        }
    };
    match outcome {
        Ok(()) => rotation.done += 1,
        Err(error) if error.reason() == kit::Reason::Overloaded => return Err(error),
        Err(error) => {
            tracing::warn!(state_id = %state, version = version.number, ?error, "a version keeps its key");
            rotation.failed += 1;
        }
    }
    Ok(())
}

/// How many versions a rotation has before it.
pub(crate) fn total(backend: &Backend, counts: &[store::key::Sealed]) -> i64 {
    let current = backend.ring.current_id().to_string();
    let otherwise = counts
        .iter()
        .filter(|sealed| sealed.key_id.as_ref().map(hex::encode).as_deref() != Some(current.as_str()));
    otherwise.map(|sealed| sealed.versions).sum()
}

/// How much each key seals, of the organization or of all of them for the platform's.
///
/// # Errors
/// As the database's.
pub(crate) async fn counts(backend: &Backend, org: OrgId, tx: &mut Tx) -> Result<Vec<store::key::Sealed>> {
    if org != OrgId::PLATFORM {
        return store::key::count(tx).await;
    }
    let kit = &backend.kit;
    kit.worker
        .look(&kit.scope(), async |tx| store::key::count_all(tx).await)
        .await
}
