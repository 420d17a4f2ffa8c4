//! Leases: attempts that go on.
//!
//! Whoever changes one holds its execution, its stage and the attempt itself, locked in this order everywhere, and asks
//! the database's clock only then. A stage is handed out here and nowhere else.

use api::events::v1::{JobEnded, event::Payload};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl,
    QueryableByName, SelectableHelper,
    dsl::sql_query,
    sql_types::{Bool, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{
    Error, Reason, Result,
    crypto::{self, KeyRing},
    db::Tx,
    failpoint,
    ids::OrgId,
};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{execution, log::opened, stage, terms::Terms};
use crate::{
    model::{
        AttemptId, AttemptStatus, Author, DesignId, ExecutionId, ExecutionStatus, RunnerId, StageId, StageKind,
        StageStatus, StateName,
        attempt::{self, Attempt, End, Tries},
        execution::Execution,
        stage::Stage,
    },
    schema::{clock_timestamp, pipeline_executions, pipeline_stages, stage_attempts},
};

/// How a job credential starts.
const PREFIX: &str = "b3j_";
const CREDENTIAL: &str = "pipelines job credential";
/// What tests take away to see two applies on one state, and a write after the fence.
const ONE_APPLY: &str = "pipelines.one_apply";
const FENCE: &str = "pipelines.fence";

/// A lease with what stands behind it, each row held until the transaction ends.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) execution: Execution,
    pub(crate) stage: Stage,
    pub(crate) attempt: Attempt,
    /// Whether its fence had passed when all of it was held.
    pub(crate) fenced: bool,
}

impl Held {
    /// The lease, while it lasts.
    ///
    /// # Errors
    /// LEASE_LOST for another generation, for what has ended, and from the fence on.
    pub(crate) fn lasting(self, generation: i64) -> Result<Held> {
        let fenced = self.fenced && !failpoint::without(&format!("{FENCE}/{}", self.attempt.id));
        if self.attempt.generation != generation || !self.attempt.status.is_live() || fenced {
            return Err(lost(self.attempt.id));
        }
        Ok(self)
    }
}

/// The lease is no longer the runner's.
pub(crate) fn lost(id: AttemptId) -> Error {
    Error::new(Reason::LeaseLost, "the lease has ended; stop what was done under it").with("lease_id", id.to_string())
}

/// What came of looking for a stage to hand out.
pub(crate) enum Claim {
    /// A lease, and the job's credential, which nobody can read again.
    Taken(Box<Held>, SecretString),
    /// Nothing is ready.
    Nothing,
    /// What was found went to somebody else meanwhile, or must wait for another apply; there may be more.
    Again,
}

#[derive(QueryableByName)]
struct Ready {
    #[diesel(sql_type = SqlUuid)]
    stage_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    execution_id: Uuid,
    #[diesel(sql_type = Bool)]
    apply: bool,
    #[diesel(sql_type = Text)]
    state_name: String,
}

#[derive(QueryableByName)]
struct Blocked {
    #[diesel(sql_type = Bool)]
    blocked: bool,
}

/// The oldest ready stage with its execution, both held, past those that others hold: nobody waits here.
/// An apply that another one on its state keeps waiting is passed over ($2 says whether that counts).
const READY: &str = "
select s.id as stage_id, s.execution_id, s.kind = 'apply' as apply, e.state_name
from pipeline_stages s join pipeline_executions e on e.org_id = s.org_id and e.id = s.execution_id
where s.org_id = $1 and s.status = 'ready' and not (s.kind = 'apply' and $2 and exists (
  select from stage_attempts a
    join pipeline_stages o on o.org_id = a.org_id and o.id = a.stage_id
    join pipeline_executions x on x.org_id = o.org_id and x.id = o.execution_id
  where a.org_id = $1 and a.status in ('leased', 'running') and o.kind = 'apply' and x.state_name = e.state_name))
order by s.created_at, s.id
limit 1
for update of e, s skip locked";

/// Whether an apply on a state goes on.
const APPLYING: &str = "
select exists (
  select from stage_attempts a
    join pipeline_stages o on o.org_id = a.org_id and o.id = a.stage_id
    join pipeline_executions x on x.org_id = o.org_id and x.id = o.execution_id
  where a.org_id = $1 and a.status in ('leased', 'running') and o.kind = 'apply' and x.state_name = $2) as blocked";

/// Hands the oldest ready stage to a runner, whose caller is known to be its own.
///
/// Of applies on one state only one goes on: an attempt becomes live only here, under a lock of the state that lasts
/// until the commit, after a statement of its own has seen no other; and it stays in the way until its end is committed,
/// however late it is. Execution and stage are held before the lock is waited for, and its holder waits for nothing more.
pub(crate) async fn claim(tx: &mut Tx, ring: &KeyRing, runner: RunnerId, terms: Terms) -> Result<Claim> {
    let (org, caller) = (tx.org(), Author::of(tx.principal())?);
    let one_apply = !failpoint::without(&format!("{ONE_APPLY}/{org}"));
    let ready: Option<Ready> = sql_query(READY)
        .bind::<SqlUuid, _>(tx.org().0)
        .bind::<Bool, _>(one_apply)
        .get_result(tx)
        .await
        .optional()?;
    let Some(ready) = ready else {
        return Ok(Claim::Nothing);
    };
    if ready.apply && one_apply {
        let lock = format!("pipelines apply|{}|{}", org, ready.state_name);
        sql_query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind::<Text, _>(lock)
            .execute(tx)
            .await?;
        let found: Blocked = sql_query(APPLYING)
            .bind::<SqlUuid, _>(tx.org().0)
            .bind::<Text, _>(&ready.state_name)
            .get_result(tx)
            .await?;
        if found.blocked {
            return Ok(Claim::Again);
        }
    }
    failpoint::hit_in("pipelines.claim.held", &org.to_string()).await?;
    let stage = stage::find(tx, StageId(ready.stage_id)).await?;
    let Some(stage) = stage.filter(|stage| stage.status == StageStatus::Ready) else {
        return Ok(Claim::Again);
    };
    let credential = SecretString::from(format!("{PREFIX}{}", crypto::token::<32>()));
    let attempt: Attempt = diesel::insert_into(stage_attempts::table)
        .values((
            stage_attempts::org_id.eq(tx.org()),
            stage_attempts::id.eq(AttemptId::new()),
            stage_attempts::stage_id.eq(stage.id),
            stage_attempts::number.eq(stage.attempts + 1),
            stage_attempts::runner_id.eq(runner),
            stage_attempts::principal_kind.eq(caller.kind),
            stage_attempts::principal_id.eq(caller.id),
            stage_attempts::expires_at.eq(terms.expiry()),
            stage_attempts::fence_at.eq(terms.fence()),
            stage_attempts::credential_hash.eq(hash(ring, &credential)),
        ))
        .returning(Attempt::as_returning())
        .get_result(tx)
        .await?;
    let stage = stage::update_leased(tx, &stage).await?;
    let execution = execution::advance(tx, ExecutionId(ready.execution_id)).await?;
    let held = Held {
        execution,
        stage,
        attempt,
        fenced: false,
    };
    Ok(Claim::Taken(Box::new(held), credential))
}

/// A lease that the caller took, held.
///
/// # Errors
/// RESOURCE_NOT_FOUND, also for one that somebody else took.
pub(crate) async fn lock_own(tx: &mut Tx, id: AttemptId) -> Result<Held> {
    let caller = Author::of(tx.principal())?;
    let own = stage_attempts::table.filter(
        stage_attempts::org_id
            .eq(tx.org())
            .and(stage_attempts::id.eq(id))
            .and(stage_attempts::principal_kind.eq(caller.kind))
            .and(stage_attempts::principal_id.eq(caller.id)),
    );
    let known: bool = diesel::select(diesel::dsl::exists(own)).get_result(tx).await?;
    let held = if known { lock(tx, id).await? } else { None };
    held.ok_or_else(|| Error::not_found("lease", id))
}

/// A lease, held with its stage and its execution.
pub(crate) async fn lock(tx: &mut Tx, id: AttemptId) -> Result<Option<Held>> {
    let behind: Option<(ExecutionId, StageId)> = stage_attempts::table
        .inner_join(
            pipeline_stages::table.on(pipeline_stages::org_id
                .eq(stage_attempts::org_id)
                .and(pipeline_stages::id.eq(stage_attempts::stage_id))),
        )
        .filter(stage_attempts::org_id.eq(tx.org()).and(stage_attempts::id.eq(id)))
        .select((pipeline_stages::execution_id, pipeline_stages::id))
        .first(tx)
        .await
        .optional()?;
    let Some((execution, stage)) = behind else {
        return Ok(None);
    };
    let Some(execution) = execution::lock(tx, execution).await? else {
        return Ok(None);
    };
    let stage: Stage = pipeline_stages::table
        .find((tx.org(), stage))
        .select(Stage::as_select())
        .for_update()
        .first(tx)
        .await?;
    // The execution is held, so this waits for nobody and the clock is asked after all waiting.
    let (attempt, fenced): (Attempt, bool) = stage_attempts::table
        .find((tx.org(), id))
        .select((Attempt::as_select(), stage_attempts::fence_at.le(clock_timestamp())))
        .for_update()
        .first(tx)
        .await?;
    Ok(Some(Held {
        execution,
        stage,
        attempt,
        fenced,
    }))
}

/// Keeps a lease for another term.
pub(crate) async fn update_renewed(tx: &mut Tx, held: &Held, terms: Terms) -> Result<()> {
    diesel::update(stage_attempts::table.find((tx.org(), held.attempt.id)))
        .set((
            stage_attempts::renewed_at.eq(clock_timestamp()),
            stage_attempts::expires_at.eq(terms.expiry()),
            stage_attempts::fence_at.eq(terms.fence()),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Notes that the work of a lease begins.
pub(crate) async fn update_started(tx: &mut Tx, held: &Held) -> Result<()> {
    diesel::update(stage_attempts::table.find((tx.org(), held.attempt.id)))
        .set((
            stage_attempts::status.eq(AttemptStatus::Running),
            stage_attempts::started_at.eq(clock_timestamp().nullable()),
        ))
        .execute(tx)
        .await?;
    stage::update_running(tx, &held.stage).await.map(drop)
}

/// What a runner reports beside the end itself.
pub(crate) struct Report<'a> {
    /// Keyed hash of the whole.
    pub(crate) completion: [u8; 32],
    /// The plan file, where there is one.
    pub(crate) plan: Option<&'a [u8]>,
}

/// Ends a lease: by its runner's report, or without one, where the generation moves on.
/// The job's credential is void, and the execution goes on from here.
pub(crate) async fn update_ended(
    tx: &mut Tx,
    ring: &KeyRing,
    held: &Held,
    end: End,
    report: Option<Report<'_>>,
) -> Result<Execution> {
    let Held {
        execution,
        stage,
        attempt,
        ..
    } = held;
    let cancelling = execution.status == ExecutionStatus::Cancelling;
    let begun: i64 = stage_attempts::table
        .filter(
            stage_attempts::org_id
                .eq(tx.org())
                .and(stage_attempts::stage_id.eq(stage.id))
                .and(stage_attempts::started_at.is_not_null()),
        )
        .count()
        .get_result(tx)
        .await?;
    let tries = Tries {
        leased: attempt.number,
        begun: i32::try_from(begun).unwrap_or(i32::MAX),
    };
    let outcome = attempt::end(stage.kind, attempt.status, tries, cancelling, end);
    let plan = report.as_ref().and_then(|report| report.plan);
    diesel::update(stage_attempts::table.find((tx.org(), attempt.id)))
        .set((
            stage_attempts::status.eq(outcome.attempt),
            stage_attempts::generation.eq(attempt.generation + i64::from(report.is_none())),
            stage_attempts::finished_at.eq(clock_timestamp().nullable()),
            stage_attempts::log_sealed.eq(report.is_some()),
            stage_attempts::plan.eq(plan.map(|plan| ring.seal(plan, &plan_place(tx.org(), attempt.id)))),
            stage_attempts::completion.eq(report.map(|report| report.completion.to_vec())),
        ))
        .execute(tx)
        .await?;
    stage::update_ended(tx, stage, &outcome).await?;
    tx.tell(Payload::JobEnded(JobEnded {
        job_id: attempt.id.to_string(),
    }));
    execution::advance(tx, execution.id).await
}

/// The plan file that an apply is to do: that of the plan it needs.
///
/// # Errors
/// KEY_MISSING, CONTENT_CORRUPT.
pub(crate) async fn find_plan(tx: &mut Tx, ring: &KeyRing, apply: &Stage) -> Result<SecretSlice<u8>> {
    let (attempt, sealed): (AttemptId, Option<Vec<u8>>) = pipeline_stages::table
        .inner_join(
            stage_attempts::table.on(stage_attempts::org_id
                .eq(pipeline_stages::org_id)
                .and(stage_attempts::stage_id.eq(pipeline_stages::id))),
        )
        .filter(
            pipeline_stages::org_id
                .eq(tx.org())
                .and(pipeline_stages::execution_id.eq(apply.execution_id))
                .and(pipeline_stages::name.eq_any(&apply.needs))
                .and(pipeline_stages::kind.eq(StageKind::Plan))
                .and(stage_attempts::status.eq(AttemptStatus::Succeeded)),
        )
        .select((stage_attempts::id, stage_attempts::plan))
        .first(tx)
        .await?;
    let sealed = sealed.ok_or_else(|| Error::internal("a plan that succeeded has a plan file"))?;
    opened(ring, &sealed, &plan_place(tx.org(), attempt))
}

/// A lease that lasts, its stage, and the database's time.
pub(crate) async fn find_lasting(tx: &mut Tx, id: AttemptId) -> Result<Option<(Attempt, Stage, OffsetDateTime)>> {
    Ok(stage_attempts::table
        .inner_join(
            pipeline_stages::table.on(pipeline_stages::org_id
                .eq(stage_attempts::org_id)
                .and(pipeline_stages::id.eq(stage_attempts::stage_id))),
        )
        .filter(
            stage_attempts::org_id
                .eq(tx.org())
                .and(stage_attempts::id.eq(id))
                .and(stage_attempts::status.eq_any([AttemptStatus::Leased, AttemptStatus::Running]))
                .and(stage_attempts::fence_at.gt(clock_timestamp())),
        )
        .select((Attempt::as_select(), Stage::as_select(), clock_timestamp()))
        .first(tx)
        .await
        .optional()?)
}

/// What a job may touch.
pub(crate) struct Job {
    pub(crate) attempt: Attempt,
    pub(crate) kind: StageKind,
    pub(crate) execution: ExecutionId,
    pub(crate) design: DesignId,
    pub(crate) state: StateName,
    /// The database's time when it was asked.
    pub(crate) asked_at: OffsetDateTime,
}

/// The organization and the attempt of a job credential, while it is good.
pub(crate) async fn find_by_credential(
    tx: &mut Tx,
    ring: &KeyRing,
    credential: &SecretString,
) -> Result<Option<(OrgId, AttemptId)>> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = SqlUuid)]
        org_id: Uuid,
        #[diesel(sql_type = SqlUuid)]
        attempt_id: Uuid,
    }
    if !credential.expose_secret().starts_with(PREFIX) {
        return Ok(None);
    }
    for hash in ring.hashes(CREDENTIAL, credential.expose_secret().as_bytes()) {
        let found: Option<Found> = sql_query("select org_id, attempt_id from job_by_credential($1)")
            .bind::<diesel::sql_types::Bytea, _>(hash.to_vec())
            .get_result(tx)
            .await
            .optional()?;
        if let Some(found) = found {
            return Ok(Some((OrgId(found.org_id), AttemptId(found.attempt_id))));
        }
    }
    Ok(None)
}

/// The job of an attempt whose lease lasts.
pub(crate) async fn find_job(tx: &mut Tx, id: AttemptId) -> Result<Option<Job>> {
    let Some((attempt, stage, asked_at)) = find_lasting(tx, id).await? else {
        return Ok(None);
    };
    let (design, state): (DesignId, StateName) = pipeline_executions::table
        .find((tx.org(), stage.execution_id))
        .select((pipeline_executions::design_id, pipeline_executions::state_name))
        .first(tx)
        .await?;
    Ok(Some(Job {
        attempt,
        kind: stage.kind,
        execution: stage.execution_id,
        design,
        state,
        asked_at,
    }))
}

/// A lease whose fence has passed.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub(crate) struct Expired {
    #[diesel(sql_type = SqlUuid)]
    org_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    attempt_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    fence_at: OffsetDateTime,
}

impl Expired {
    /// Whose it is.
    pub(crate) fn org(&self) -> OrgId {
        OrgId(self.org_id)
    }

    /// Its id.
    pub(crate) fn attempt(&self) -> AttemptId {
        AttemptId(self.attempt_id)
    }
}

/// Leases of all organizations whose fence has passed, oldest first, after the given one; at most `most`.
/// For the worker role.
pub(crate) async fn list_expired(tx: &mut Tx, after: Option<Expired>, most: i32) -> Result<Vec<Expired>> {
    let (fence, id) = after.map_or((OffsetDateTime::UNIX_EPOCH, Uuid::nil()), |after| {
        (after.fence_at, after.attempt_id)
    });
    Ok(
        sql_query("select org_id, attempt_id, fence_at from expired_leases($1, $2, $3)")
            .bind::<diesel::sql_types::Integer, _>(most)
            .bind::<Timestamptz, _>(fence)
            .bind::<SqlUuid, _>(id)
            .load(tx)
            .await?,
    )
}

fn hash(ring: &KeyRing, credential: &SecretString) -> Vec<u8> {
    ring.keyed_hash(CREDENTIAL, credential.expose_secret().as_bytes())
        .to_vec()
}

/// Where a plan file stands; sealed elsewhere, it does not open.
fn plan_place(org: OrgId, attempt: AttemptId) -> Vec<u8> {
    format!("stage_attempts.plan|{org}|{attempt}").into_bytes()
}
