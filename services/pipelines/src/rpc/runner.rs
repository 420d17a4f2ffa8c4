//! RunnerService.
//!
//! Who renews, appends or reports without the lease hears LEASE_LOST, and nothing of it is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::pipelines::v1::{
    AcquireRequest, AcquireResponse, AppendLogRequest, AppendLogResponse, CompleteRequest, CompleteResponse, Lease,
    ListRunnersRequest, ListRunnersResponse, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse,
    StartRequest, StartResponse, runner_service_server::RunnerService,
};
use kit::{
    Error, Reason, Result, Violations,
    auth::scope::{Admitted, OrgScope, admitted},
    crypto::KeyRing,
    db::{Db, Tx},
    page::{Listing, PageSize},
};
use secrecy::{ExposeSecret, SecretSlice};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    doorbell::Doorbell,
    model::{ExecutionStatus, RunnerId, RunnerName, StageKind, attempt::End, log::MOST_LOG_BYTES, stage::Stage},
    store::{
        self,
        lease::{Claim, Report},
        terms::Terms,
    },
    wire::lease::{self, Acquire, Append, Named, Register, Told},
};

/// How often a waiting call looks by itself.
const POLL: Duration = Duration::from_millis(250);
/// What is left of a call's time when it stops waiting.
const ANSWER: Duration = Duration::from_millis(200);
const REPORT: &str = "pipelines stage report";

/// Answers RunnerService.
pub(crate) struct Runners {
    pub(crate) db: Db,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) terms: Terms,
    pub(crate) bell: Doorbell,
    /// How often each runner has registered here.
    pub(crate) registrations: Registrations,
    /// Ends all waiting.
    pub(crate) stopping: CancellationToken,
}

/// Tells calls of a runner's earlier life from those of its present one: a call goes on when its client is gone, and
/// would take a stage that nobody works on. Known of this process only; elsewhere such a lease runs out.
#[derive(Default)]
pub(crate) struct Registrations(Mutex<HashMap<RunnerId, u64>>);

impl Registrations {
    fn count(&self, runner: RunnerId) -> u64 {
        self.all().get(&runner).copied().unwrap_or_default()
    }

    fn note(&self, runner: RunnerId) {
        *self.all().entry(runner).or_default() += 1;
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RunnerId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl RunnerService for Runners {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let new = Register::try_from(request)?;
        let mut registered = None;
        let reply = self.db.write(&scope, async |tx| {
            let runner = store::runner::upsert(tx, &new.name, &new.terraform).await?;
            tx.about(&runner);
            registered = Some(runner.id);
            Ok(RegisterResponse {
                runner: Some(lease::runner(runner)),
            })
        });
        let reply = reply.await?;
        if let Some(runner) = registered {
            self.registrations.note(runner);
            self.bell.ring();
        }
        Ok(reply)
    }

    async fn acquire(&self, request: Request<AcquireRequest>) -> Result<Response<AcquireResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked = Acquire::try_from(request)?;
        let wait = asked.wait.min(scope.call().remaining().saturating_sub(ANSWER));
        let until = Instant::now() + wait;
        let registration = self.registrations.count(asked.runner);
        // A transaction of its own: who waits for a stage holds no row and no connection meanwhile.
        let known = self
            .db
            .write(&scope, async |tx| store::runner::update_seen(tx, asked.runner).await);
        if !known.await?.into_inner() {
            return Err(Error::not_found("runner", asked.runner).into());
        }
        loop {
            let heard = self.bell.heard();
            if self.registrations.count(asked.runner) != registration || self.stopping.is_cancelled() {
                return Ok(Response::new(AcquireResponse { lease: None }));
            }
            if let Some(lease) = self.claim(&scope, &asked).await? {
                return Ok(Response::new(AcquireResponse { lease: Some(lease) }));
            }
            if Instant::now() >= until {
                return Ok(Response::new(AcquireResponse { lease: None }));
            }
            let look = until.min(Instant::now() + POLL);
            tokio::select! {
                () = heard => {}
                () = tokio::time::sleep_until(look) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let lease = Named::try_from(request)?;
        let mut opened = None;
        let begun = self.db.write(&scope, async |tx| {
            let held = store::lease::lock_own(tx, lease.id).await?.lasting(lease.generation)?;
            tx.about(&held.stage);
            // What cannot be opened is not begun.
            opened = Some(self.plan(tx, &held.stage).await?);
            if held.attempt.started_at.is_none() {
                store::lease::update_started(tx, &held).await?;
                store::lease::update_renewed(tx, &held, self.terms).await?;
            }
            Ok(StartResponse::default())
        });
        begun.await?;
        // Read anew, so that a repeat hears how long the lease lasts now and not how long it did.
        let reply = self.db.look(&scope, async |tx| {
            store::lease::lock_own(tx, lease.id).await?.lasting(lease.generation)?;
            let lasting = store::lease::find_lasting(tx, lease.id).await?;
            let (attempt, stage, now) = lasting.ok_or_else(|| store::lease::lost(lease.id))?;
            let plan = match opened.take() {
                Some(plan) => plan,
                None => self.plan(tx, &stage).await?,
            };
            Ok(StartResponse {
                expires_in: Some(lease::left(attempt.expires_at, now)),
                plan: plan.expose_secret().to_vec(),
            })
        });
        Ok(Response::new(reply.await?))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let lease = Named::try_from(request)?;
        let reply = self.db.write(&scope, async |tx| {
            let held = store::lease::lock_own(tx, lease.id).await?.lasting(lease.generation)?;
            store::lease::update_renewed(tx, &held, self.terms).await?;
            store::runner::update_seen(tx, held.attempt.runner_id).await?;
            Ok(RenewResponse {
                expires_in: Some(lease::seconds(self.terms.lease)),
                cancel: held.execution.status == ExecutionStatus::Cancelling,
                log_offset: held.attempt.log_bytes,
            })
        });
        Ok(reply.await?)
    }

    async fn append_log(&self, request: Request<AppendLogRequest>) -> Result<Response<AppendLogResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let append = Append::try_from(request)?;
        let reply = self.db.write(&scope, async |tx| {
            let held = store::lease::lock_own(tx, append.lease.id).await?;
            if held.attempt.generation == append.lease.generation && held.attempt.log_sealed {
                return Err(Error::new(Reason::LogSealed, "the log is complete"));
            }
            let attempt = held.lasting(append.lease.generation)?.attempt;
            let stored = attempt.log_bytes;
            let known = stored - append.offset;
            // Behind the end there is a gap; before it, what is known already may come again.
            let known = usize::try_from(known).map_err(|_| gap(stored))?;
            let Some(new) = append.content.get(known..).filter(|new| !new.is_empty()) else {
                return Ok(AppendLogResponse { log_offset: stored });
            };
            if stored + i64::try_from(new.len()).unwrap_or(i64::MAX) > MOST_LOG_BYTES {
                return Err(Error::violation("content", "makes the log longer than 64 MiB"));
            }
            let log_offset = store::log::insert(tx, &self.ring, &attempt, new).await?;
            Ok(AppendLogResponse { log_offset })
        });
        Ok(reply.await?)
    }

    async fn complete(&self, request: Request<CompleteRequest>) -> Result<Response<CompleteResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let told = Told::try_from(request)?;
        let reply = self.db.write(&scope, async |tx| {
            let held = store::lease::lock_own(tx, told.lease.id).await?;
            tx.about(&held.stage);
            let known = held.attempt.completion.as_deref();
            if held.attempt.generation == told.lease.generation
                && known.is_some_and(|known| self.ring.matches(REPORT, &told.report, known))
            {
                return Ok(CompleteResponse {});
            }
            let held = held.lasting(told.lease.generation)?;
            if told.log_bytes != held.attempt.log_bytes {
                return Err(gap(held.attempt.log_bytes));
            }
            let succeeded = told.end == End::Succeeded;
            let mut violations = Violations::new();
            violations.check(
                !succeeded || held.attempt.started_at.is_some(),
                "outcome",
                "cannot be success before the work has begun",
            );
            violations.check(
                !matches!(told.end, End::Cancelled(_)) || held.execution.status == ExecutionStatus::Cancelling,
                "outcome",
                "cannot be cancelled where nobody has cancelled the execution",
            );
            violations.check(
                (succeeded && held.stage.kind == StageKind::Plan) != told.plan.is_empty(),
                "plan",
                "comes with a plan that succeeded, and with nothing else",
            );
            violations.into_result()?;
            let report = Report {
                completion: self.ring.keyed_hash(REPORT, &told.report),
                plan: Some(told.plan.as_slice()).filter(|plan| !plan.is_empty()),
            };
            store::lease::update_ended(tx, &self.ring, &held, told.end.clone(), Some(report)).await?;
            Ok(CompleteResponse {})
        });
        let reply = reply.await?;
        self.bell.ring();
        Ok(reply)
    }

    async fn list_runners(
        &self,
        request: Request<ListRunnersRequest>,
    ) -> Result<Response<ListRunnersResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let mut violations = Violations::new();
        let size = PageSize::parse(request.page_size, &mut violations);
        let size = violations.finish(size)?;
        let listing = Listing::new(&self.ring, scope.call().method.action, scope.org().0, &());
        let after: Option<RunnerName> = listing.open(&request.page_token)?;
        let found = self
            .db
            .read(&scope, async |tx| store::runner::list(tx, after, size.fetch()).await)
            .await?;
        let page = listing.page(found, size, |runner| runner.name.clone());
        let page = page.map(lease::runner);
        Ok(Response::new(ListRunnersResponse {
            runners: page.items,
            next_page_token: page.next,
        }))
    }
}

impl Runners {
    /// The plan file that a stage is to do, empty where it does none.
    async fn plan(&self, tx: &mut Tx, stage: &Stage) -> Result<SecretSlice<u8>> {
        match stage.kind {
            StageKind::Validate | StageKind::Plan | StageKind::Drift => Ok(SecretSlice::default()),
            StageKind::Apply => store::lease::find_plan(tx, &self.ring, stage).await,
        }
    }

    /// A stage for the runner, if one is ready.
    async fn claim(&self, scope: &OrgScope, asked: &Acquire) -> Result<Option<Lease>> {
        loop {
            let mut again = false;
            let reply = self.db.write(scope, async |tx| {
                let claimed = store::lease::claim(tx, &self.ring, asked.runner, self.terms).await?;
                let (held, credential) = match claimed {
                    Claim::Taken(held, credential) => (held, credential),
                    Claim::Nothing => return Ok(AcquireResponse { lease: None }),
                    Claim::Again => {
                        again = true;
                        return Ok(AcquireResponse { lease: None });
                    }
                };
                Ok(AcquireResponse {
                    lease: Some(Lease {
                        id: held.attempt.id.to_string(),
                        generation: held.attempt.generation,
                        expires_in: Some(lease::seconds(self.terms.lease)),
                        execution_id: held.execution.id.to_string(),
                        stage_id: held.stage.id.to_string(),
                        stage_name: held.stage.name.into(),
                        kind: lease::kind(held.stage.kind).into(),
                        design_id: held.execution.design_id.to_string(),
                        design_version: held.execution.design_version,
                        state_name: held.execution.state_name.into(),
                        job_credential: credential.expose_secret().to_owned(),
                    }),
                })
            });
            let lease = reply.await?.into_inner().lease;
            if lease.is_some() || !again {
                return Ok(lease);
            }
        }
    }
}

/// Bytes of the log are missing before what came.
fn gap(expected: i64) -> Error {
    Error::new(Reason::LogGap, format!("the log goes on at {expected}")).with("expected_offset", expected.to_string())
}
