//! The compactor: old versions as what distinguishes them from a newer one, what was on the way to a version gone with its lock,
//! and no more kept than is to be kept.
//!
//! Each step is a transaction of its own: either a version stands as it stood, or as the step says. A state is one replica's
//! while a step lasts. Nothing takes the place of a content before it was opened and read again.

use std::{sync::Arc, time::Duration};

use kit::{
    Error, Result,
    db::Tx,
    failpoint,
    ids::{OrgId, Principal},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    backend::{Backend, reading},
    content::{
        Arriving, CHUNK, Opening, Place, aside, corrupt, identity, pack,
        seal::{Body, DataKey},
    },
    model::{
        StateId,
        compaction::{Plan, Row, Step, Terms, gone, plan},
        state::State,
        version::Version,
    },
    store::{self, compaction::Stored},
};

/// How often it looks at most.
const EVERY: Duration = Duration::from_millis(200);
/// How long it waits where a state waits for something, or the database does not answer.
const WAIT: Duration = Duration::from_secs(5);
/// How long a state is left alone with which something is wrong.
const PUT_OFF: Duration = Duration::from_secs(600);
/// How often a state is looked at whose versions grow old.
const AGING: Duration = Duration::from_secs(3600);
/// The most states that are listed at a time.
const BATCH: i32 = 20;

/// The content that the next step is told by most likely.
type Warm = Option<(Uuid, Arc<Vec<u8>>)>;

/// Compacts for as long as the service runs.
pub(crate) async fn run(backend: Backend) {
    let pause = (backend.compact_after / 4).max(EVERY);
    loop {
        tokio::time::sleep(pause).await;
        if let Err(error) = sweep(&backend).await {
            tracing::warn!(?error, "old versions are not compacted");
            tokio::time::sleep(WAIT).await;
        }
    }
}

/// One look at all states that are due; one that cannot be compacted keeps no other from it.
async fn sweep(backend: &Backend) -> Result<()> {
    let (kit, scope) = (&backend.kit, backend.kit.scope());
    loop {
        let due = kit
            .worker
            .look(&scope, async |tx| store::compaction::list_due(tx, BATCH).await)
            .await?;
        let mut moved = false;
        for due in &due {
            match compact(backend, due.org(), due.state()).await {
                Ok(done) => moved |= done,
                Err(error) => {
                    tracing::warn!(state_id = %due.state(), ?error, "a state's old versions stand as they are");
                    put_off(backend, due.org(), due.state()).await?;
                }
            }
        }
        if !moved {
            return Ok(());
        }
    }
}

/// A transaction with one state, if no other replica has it.
async fn claimed<R>(
    backend: &Backend,
    org: OrgId,
    state: StateId,
    body: impl AsyncFnOnce(&mut Tx) -> Result<R>,
) -> Result<Option<R>> {
    let kit = &backend.kit;
    kit.worker
        .read(&kit.scope(), async |tx| {
            tx.enter(org, Principal::Service(kit.worker.slice())).await?;
            if !store::compaction::claim(tx, state).await? {
                return Ok(None);
            }
            body(tx).await.map(Some)
        })
        .await
}

async fn put_off(backend: &Backend, org: OrgId, state: StateId) -> Result<()> {
    let off = async |tx: &mut Tx| store::compaction::update_due(tx, state, PUT_OFF).await;
    claimed(backend, org, state, off).await.map(drop)
}

/// Does what is to be done for a state; false where another replica has it.
async fn compact(backend: &Backend, org: OrgId, state: StateId) -> Result<bool> {
    let mut warm = None;
    loop {
        let planned = claimed(backend, org, state, async |tx| {
            let rows = store::compaction::list_rows(tx, state).await?;
            let held = store::state::find(tx, state).await?;
            let held = held.ok_or_else(|| Error::internal("a state is missing"))?;
            let terms = terms(tx, &held).await?;
            Ok((plan(&rows, &terms), rows))
        });
        let Some((Plan { steps, .. }, rows)) = planned.await? else {
            return Ok(false);
        };
        if steps.is_empty() {
            let Some(ended) = claimed(backend, org, state, async |tx| end(backend, tx, state).await).await? else {
                return Ok(false);
            };
            if ended {
                return Ok(true);
            }
            continue;
        }
        for step in steps {
            let done = claimed(backend, org, state, async |tx| {
                failpoint::hit_in("terraform_state.compact_claimed", &state.to_string()).await?;
                let done = take(backend, tx, state, step, &rows, &mut warm).await?;
                failpoint::hit_in("terraform_state.compact_swapped", &state.to_string()).await?;
                Ok(done)
            });
            match done.await? {
                None => return Ok(false),
                // Somebody wrote meanwhile, or something else has changed: the plan is another one now.
                Some(false) => break,
                Some(true) => failpoint::hit_in("terraform_state.compact_committed", &state.to_string()).await?,
            }
        }
    }
}

async fn terms(tx: &mut Tx, state: &State) -> Result<Terms> {
    let lock = store::lock::find(tx, state.id).await?;
    Ok(Terms {
        retention: state.retention,
        lock: lock.map(|lock| lock.id),
        live: store::execution::is_live(tx, &state.name).await?,
        now: OffsetDateTime::now_utc(),
    })
}

/// Ends a state's turn if nothing is left to do; who writes holds the state's row, and comes before this or after it.
async fn end(backend: &Backend, tx: &mut Tx, id: StateId) -> Result<bool> {
    let state = hold(tx, id).await?;
    let rows = store::compaction::list_rows(tx, id).await?;
    let Plan { steps, again } = plan(&rows, &terms(tx, &state).await?);
    if !steps.is_empty() {
        return Ok(false);
    }
    if again {
        let aging = state.retention.keep_versions.is_some() && store::lock::find(tx, id).await?.is_none();
        let after = if aging { AGING } else { backend.compact_after.max(WAIT) };
        store::compaction::update_due(tx, id, after).await?;
    } else {
        store::compaction::delete(tx, id).await?;
    }
    Ok(true)
}

async fn hold(tx: &mut Tx, id: StateId) -> Result<State> {
    let state = store::state::lock(tx, id).await?;
    state.ok_or_else(|| Error::internal("a state is missing"))
}

/// Takes a step; false where it is not to be taken any more.
async fn take(
    backend: &Backend,
    tx: &mut Tx,
    state: StateId,
    step: Step,
    rows: &[Row],
    warm: &mut Warm,
) -> Result<bool> {
    match step {
        Step::Renew(number) => {
            let Some(version) = store::version::find(tx, state, number).await? else {
                return Ok(false);
            };
            renew(backend, tx, state, &version).await
        }
        Step::Store(number, newer) => store_weighed(backend, tx, state, number, newer, warm).await,
        Step::Remove(number) => {
            let held = hold(tx, state).await?;
            // What may go is looked at anew: a lock may have been taken since, or an execution started.
            let now = store::compaction::list_rows(tx, state).await?;
            let Some(row) = now.iter().find(|row| row.number == number) else {
                return Ok(false);
            };
            let planned = rows
                .iter()
                .any(|planned| planned.number == number && planned.body_id == row.body_id);
            let goes = gone(&now, &terms(tx, &held).await?).contains(&number);
            if !planned || !goes || store::compaction::is_base(tx, state, number).await? {
                return Ok(false);
            }
            store::compaction::delete_version(tx, state, row).await?;
            Ok(true)
        }
    }
}

/// Gives a version a data key, whatever its length: it is read and sealed as if it arrived. False where it has one.
pub(crate) async fn renew(backend: &Backend, tx: &mut Tx, state: StateId, version: &Version) -> Result<bool> {
    if version.data_key.is_some() {
        return Ok(false);
    }
    let place = Place {
        org: tx.org(),
        state,
        version: version.id,
    };
    let opening = Opening::new(&backend.ring, place, version)?;
    let mut arriving = Arriving::new(&backend.ring, place, u64::MAX, &backend.memory);
    let (mut digest, mut size) = (blake3::Hasher::new(), 0);
    let mut part = opening.begin()?;
    while !part.ended() {
        let sealed = match part.wants() {
            Some(chunk) => store::chunk::find(tx, version.id, chunk).await?,
            None => None,
        };
        if sealed.is_none() {
            return Err(corrupt("a chunk is missing", state, version.number));
        }
        let (next, plain) = part.step(sealed).await?;
        part = next;
        digest.update(&plain);
        size += plain.len() as u64;
        arriving.push(&plain).await?;
    }
    opening.check(version, size, digest.finalize().as_bytes())?;
    let mut content = arriving.finish(None).await?;
    hold(tx, state).await?;
    if !stands(tx, state, version).await? {
        return Ok(false);
    }
    let stored = Stored {
        body: content.body(),
        key: Some((content.wrapped_key().to_vec(), content.hash(version.number))),
        base: None,
        weighed: None,
        chunks: i32::try_from(content.chunks()).map_err(Error::internal)?,
        bytes: i64::try_from(content.stored()).map_err(Error::internal)?,
    };
    store::compaction::update_stored(tx, state, version, &stored).await?;
    for chunk in 0..stored.chunks {
        let sealed = content.chunk(usize::try_from(chunk).map_err(Error::internal)?).await?;
        store::chunk::insert(tx, version.id, chunk, sealed).await?;
    }
    Ok(true)
}

/// Whether a version is stored as it was when it was read; its state's row is held.
async fn stands(tx: &mut Tx, state: StateId, version: &Version) -> Result<bool> {
    let found = store::version::find(tx, state, version.number).await?;
    Ok(found.is_some_and(|found| {
        found.body_id == version.body_id && found.data_key.is_some() == version.data_key.is_some()
    }))
}

/// A content, made small and sealed.
struct Packed {
    sealed: Vec<Vec<u8>>,
    base: Option<i64>,
    bytes: usize,
}

/// Stores a version by what distinguishes it from the newer one, or whole where there is none or little is saved.
async fn store_weighed(
    backend: &Backend,
    tx: &mut Tx,
    state: StateId,
    number: i64,
    newer: Option<i64>,
    warm: &mut Warm,
) -> Result<bool> {
    let Some(version) = store::version::find(tx, state, number).await? else {
        return Ok(false);
    };
    if version.data_key.is_none() {
        return Ok(false);
    }
    if newer.is_none() && version.base_number.is_none() {
        hold(tx, state).await?;
        if !stands(tx, state, &version).await? {
            return Ok(false);
        }
        store::compaction::update_weighed(tx, state, number, None).await?;
        return Ok(true);
    }
    let mut share = backend.memory.share();
    let base = match newer {
        None => None,
        Some(newer) => match store::version::find(tx, state, newer).await? {
            Some(newer) => Some(newer),
            None => return Ok(false),
        },
    };
    let longest = base.as_ref().map_or(0, |base| base.size_bytes).max(version.size_bytes);
    share.grow_for_whole(u64::try_from(longest).map_err(Error::internal)?)?;
    let told_by = match &base {
        None => None,
        Some(base) => Some(content(backend, tx, state, base, warm).await?),
    };
    let plain = content(backend, tx, state, &version, &mut None).await?;
    let place = Place {
        org: tx.org(),
        state,
        version: version.id,
    };
    let wrapped = version.data_key.as_deref().unwrap_or_default();
    let key = DataKey::open(&backend.ring, &place, wrapped)?;
    let whole_bytes = version.base_number.is_none().then_some(version.stored_bytes);
    let body = Uuid::new_v4();
    let (content, known) = (
        Content {
            plain: plain.clone(),
            told_by,
            newer,
        },
        version.clone(),
    );
    let packed = aside(move || seal(&key, place, body, &known, content, whole_bytes)).await??;
    failpoint::hit_in("terraform_state.compact_packed", &state.to_string()).await?;
    hold(tx, state).await?;
    let base_stands = match &base {
        None => true,
        Some(base) => store::version::find(tx, state, base.number).await?.is_some(),
    };
    if !base_stands || !stands(tx, state, &version).await? {
        return Ok(false);
    }
    *warm = Some((version.id, plain));
    let Some(packed) = packed else {
        store::compaction::update_weighed(tx, state, number, newer).await?;
        return Ok(true);
    };
    let stored = Stored {
        body,
        key: None,
        base: packed.base,
        weighed: newer,
        chunks: i32::try_from(packed.sealed.len()).map_err(Error::internal)?,
        bytes: i64::try_from(packed.bytes).map_err(Error::internal)?,
    };
    store::compaction::update_stored(tx, state, &version, &stored).await?;
    failpoint::hit_in("terraform_state.compact_updated", &state.to_string()).await?;
    for (chunk, sealed) in (0..).zip(packed.sealed) {
        store::chunk::insert(tx, version.id, chunk, sealed).await?;
    }
    Ok(true)
}

/// A version's content, which never changes, so that the one at hand serves.
async fn content(
    backend: &Backend,
    tx: &mut Tx,
    state: StateId,
    version: &Version,
    warm: &mut Warm,
) -> Result<Arc<Vec<u8>>> {
    if let Some((id, plain)) = warm
        && *id == version.id
    {
        return Ok(plain.clone());
    }
    let plain = reading::told(tx, &backend.ring, state, version).await?;
    *warm = Some((version.id, plain.clone()));
    Ok(plain)
}

/// A content, and the newer one that may tell it, with its version's number.
struct Content {
    plain: Arc<Vec<u8>>,
    told_by: Option<Arc<Vec<u8>>>,
    newer: Option<i64>,
}

/// Packs and seals a content, and opens it again. None where it is whole, and being told by the other one saves little.
fn seal(
    key: &DataKey,
    place: Place,
    body: Uuid,
    version: &Version,
    content: Content,
    whole_bytes: Option<i64>,
) -> Result<Option<Packed>> {
    let Content { plain, told_by, newer } = content;
    let told_by = told_by.as_ref().map(|base| base.as_slice());
    let (mut packed, mut base) = (pack::pack(&plain, told_by).map_err(Error::internal)?, newer);
    if base.is_some() {
        let told = i64::try_from(packed.len()).map_err(Error::internal)?;
        // At least a tenth is saved, for it costs the reader time.
        let saves = |whole: i64| told < whole - whole / 10;
        match whole_bytes {
            Some(whole) if !saves(whole) => return Ok(None),
            Some(_) => {}
            None => {
                let whole = pack::pack(&plain, None).map_err(Error::internal)?;
                if !saves(i64::try_from(whole.len()).map_err(Error::internal)?) {
                    (packed, base) = (whole, None);
                }
            }
        }
    }
    if failpoint::without(&format!("terraform_state.packing_sound/{}", place.state)) {
        let middle = packed.len() / 2;
        packed[middle] ^= 1;
    }
    let sealed_to = Body { place, id: body, base };
    let count = packed.len().div_ceil(CHUNK);
    let chunks = packed.chunks(CHUNK).enumerate();
    let sealed: Vec<_> = chunks
        .map(|(at, chunk)| key.seal(&sealed_to, at, at + 1 == count, chunk))
        .collect();
    if !failpoint::without(&format!("terraform_state.compact_verified/{}", place.state)) {
        let mut opened = Vec::with_capacity(packed.len());
        for (at, chunk) in sealed.iter().enumerate() {
            use secrecy::ExposeSecret;
            opened.extend_from_slice(key.unseal(&sealed_to, at, at + 1 == count, chunk)?.expose_secret());
        }
        let told_by = told_by.filter(|_| base.is_some());
        let wrong = || Error::internal("a content that was packed does not come back");
        let back = pack::unpack(&opened, told_by, plain.len()).map_err(|_| wrong())?;
        if back != *plain || identity(key, &place, version, &back)[..] != version.content_hash[..] {
            return Err(wrong());
        }
    }
    let bytes = sealed.iter().map(Vec::len).sum();
    Ok(Some(Packed { sealed, base, bytes }))
}
