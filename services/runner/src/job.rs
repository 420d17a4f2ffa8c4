//! A lease from its hand-out to its report: the export, Terraform's commands, and what became of them.

use std::{fs::File, io, path::Path, sync::Arc, time::Duration};

use api::pipelines::v1::{CompleteRequest, Lease, RenewRequest, StageKind, StageOutcome, StartRequest, StartResponse};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    client::{Backoff, Trace},
    diagnosis::plain,
    directory::{Directory, Known},
    drift, export,
    lease::{Keeper, Standing, length},
    log::Log,
    mask::Secrets,
    outcome::{GRACE, Outcome, Stop},
    report,
    runner::Runner,
    terraform::{self, End, Terraform, USER},
};

/// How often Terraform's output is looked at.
const TICK: Duration = Duration::from_millis(200);
/// How long it may take to say that work begins.
const START: Duration = Duration::from_secs(60);
const PLAN: &str = Directory::PLAN;
const APPLY: &str = "terraform apply";
/// Says in clear what a plan holds: what it writes is no part of the log.
const SHOW: &str = "terraform show";
const MOST_PLAN: usize = 3 * 1024 * 1024;

/// Works on a lease that was asked for at `sent`, until it is reported or cannot be.
pub(crate) async fn work(runner: &Runner, lease: Lease, sent: Instant) {
    let span = tracing::info_span!(
        "lease",
        lease = lease.id,
        execution = lease.execution_id,
        stage = lease.stage_name
    );
    Job::work(runner, lease, sent).instrument(span).await;
}

struct Job<'a> {
    runner: &'a Runner,
    lease: &'a Lease,
    trace: Trace,
    keeper: &'a Keeper,
    directory: &'a Directory,
    log: &'a Log,
    known: &'a mut Known,
}

impl Job<'_> {
    async fn work(runner: &Runner, lease: Lease, sent: Instant) {
        let Ok(id) = Uuid::parse_str(&lease.id) else {
            tracing::error!("the lease's id is no UUID");
            return;
        };
        let trace = Trace::of(&lease.execution_id);
        let renewal = RenewRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
        };
        let standing = Standing::new(sent, length(lease.expires_in));
        let keeper = Arc::new(Keeper::start(runner.client.clone(), trace, renewal, standing));
        let mut known = Known::of(&lease);
        tracing::info!(kind = known.kind, "a stage is taken");

        let secrets = Secrets::of(&runner.config.api_key, USER, &lease.job_credential);
        let prepared = Directory::create(runner.config.work.path(), id).and_then(|directory| {
            let log = Log::create(&directory.path().join("log"), secrets.clone())?;
            Ok((directory, Arc::new(log)))
        });
        let outcome = match &prepared {
            Ok((directory, log)) => {
                let ship = report::ship(runner.client.clone(), trace, lease.clone(), log.clone(), keeper.clone());
                let mut shipping = AbortOnDropHandle::new(tokio::spawn(ship.in_current_span()));
                let mut job = Job {
                    runner,
                    lease: &lease,
                    trace,
                    keeper: &keeper,
                    directory,
                    log,
                    known: &mut known,
                };
                let outcome = job.stage().await.unwrap_or_else(|outcome| outcome);
                job.tell(&outcome);
                log.end();
                // The report stores what is left of the log.
                shipping.abort();
                let _ = (&mut shipping).await;
                outcome
            }
            Err(error) => Outcome::Failed("RUNNER_FAILED", format!("no directory to work in ({})", error.kind())),
        };
        let log = prepared.as_ref().ok().map(|(_, log)| log);
        if let Some(request) = completed(&lease, &secrets, outcome, &mut known) {
            if let Ok((directory, _)) = &prepared {
                directory.write(&known);
            }
            tokio::select! {
                taken = report::complete(&runner.client, trace, &lease, log, &keeper, request) => known.reported = taken,
                () = keeper.lost() => {}
            }
        }
        tracing::info!(
            outcome = known.outcome,
            reason = known.failure_reason,
            detail = known.failure_detail,
            reported = known.reported,
            "the stage has ended"
        );
        if let Ok((directory, _)) = &prepared {
            directory.write(&known);
            leave(directory, &known);
        }
    }

    /// Everything that a stage is, in order; `Err` is where it ended early.
    async fn stage(&mut self) -> Result<Outcome, Outcome> {
        // What begins is known to begin before pipelines knows it.
        self.step("start");
        let plan = self.start().await?.plan;
        self.step("export");
        let file = tokio::select! {
            file = export::fetch(&self.runner.client, self.trace, self.lease) => file,
            stop = self.stopping() => return Err(stop.outcome(self.lease.kind())),
        };
        let file = file.map_err(|why| Outcome::Failed("EXPORT_FAILED", why))?;
        let work = self.directory.work();
        write(&work.join(export::FILE), &file).map_err(ours)?;
        let mut init = vec!["init".to_owned(), "-input=false".to_owned()];
        if let Some(address) = &self.runner.config.terraform_http {
            init.extend(export::backend_at(&file, address));
        }
        let with_lock = ["-input=false", "-lock-timeout=60s"];
        match self.lease.kind() {
            StageKind::Validate => {
                self.terraform(&["init", "-backend=false", "-input=false"]).await?;
                self.terraform(&["validate"]).await?;
                Ok(Outcome::Succeeded(Vec::new()))
            }
            StageKind::Plan => {
                self.terraform(&init).await?;
                let out = format!("-out={PLAN}");
                self.terraform(&["plan", with_lock[0], with_lock[1], &out]).await?;
                let plan = std::fs::read(work.join(PLAN)).map_err(ours)?;
                if plan.len() > MOST_PLAN {
                    let detail = format!("the plan has {} bytes, more than {MOST_PLAN}", plan.len());
                    return Err(Outcome::Failed("ARTIFACT_TOO_LARGE", detail));
                }
                Ok(Outcome::Succeeded(plan))
            }
            StageKind::Apply => {
                if plan.is_empty() {
                    return Err(Outcome::Failed("RUNNER_FAILED", "there is no plan to apply".to_owned()));
                }
                write(&work.join(PLAN), &plan).map_err(ours)?;
                self.terraform(&init).await?;
                self.terraform(&["apply", with_lock[0], with_lock[1], PLAN]).await?;
                Ok(Outcome::Succeeded(Vec::new()))
            }
            StageKind::Drift => {
                self.terraform(&init).await?;
                let out = format!("-out={PLAN}");
                self.terraform(&["plan", "-refresh-only", "-input=false", "-lock=false", &out])
                    .await?;
                let mut shown = self.terraform(&["show", "-json", PLAN]).await?;
                let plan = drift::plan(&mut shown).map_err(ours)?;
                self.step("report drift");
                let found = tokio::select! {
                    found = drift::report(&self.runner.client, self.trace, self.lease, &plan) => found,
                    stop = self.stopping() => return Err(stop.outcome(self.lease.kind())),
                };
                let found = found.map_err(|why| Outcome::Failed("RUNNER_FAILED", why))?;
                self.say(&format!("[board3-runner: {}]", drift::told(&found)));
                Ok(Outcome::Succeeded(Vec::new()))
            }
            StageKind::Unspecified => Err(Outcome::Failed(
                "RUNNER_FAILED",
                "this runner does not know the stage's kind".to_owned(),
            )),
        }
    }

    /// Says that work begins; `Err` where it may not, and then nothing was done.
    async fn start(&self) -> Result<StartResponse, Outcome> {
        let request = StartRequest {
            lease_id: self.lease.id.clone(),
            generation: self.lease.generation,
            request_id: Uuid::now_v7().to_string(),
        };
        match self.stop() {
            None => {}
            Some(Stop::Cancelled) => return Err(Outcome::Cancelled),
            // Before that was said an apply is attempted again too.
            Some(stop) => return Err(Outcome::Unknown(stop.told().to_owned())),
        }
        let deadline = Instant::now() + START;
        let mut backoff = Backoff::up_to(Duration::from_secs(2));
        loop {
            let sent = Instant::now();
            let refusal = match self.runner.client.start(self.trace, request.clone()).await {
                Ok(started) => {
                    self.keeper.renewed(sent, length(started.expires_in));
                    return Ok(started);
                }
                Err(refusal) => refusal,
            };
            tracing::warn!(refusal = refusal.told(), "the stage could not be begun");
            if refusal.lease_lost() {
                self.keeper.lose();
            } else if refusal.definite() || Instant::now() >= deadline {
                let detail = format!("pipelines could not be told that work begins: {}", refusal.told());
                return Err(Outcome::Failed("RUNNER_FAILED", detail));
            }
            tokio::select! {
                () = sleep(backoff.after(&refusal)) => {}
                stop = self.stopping() => return Err(stop.outcome(self.lease.kind())),
            }
        }
    }

    /// Runs one of Terraform's commands to its end; what it wrote is left to be read where it is not in the log.
    async fn terraform(&mut self, arguments: &[impl AsRef<str>]) -> Result<File, Outcome> {
        if let Some(stop) = self.stop() {
            return Err(stop.outcome(self.lease.kind()));
        }
        let config = &self.runner.config;
        let Some(program) = terraform::find(config) else {
            let detail = format!("there is no {} on this runner's path", config.terraform);
            return Err(Outcome::Failed("TOOL_MISSING", detail));
        };
        let mut arguments: Vec<String> = arguments.iter().map(|argument| argument.as_ref().to_owned()).collect();
        let command = format!("terraform {}", arguments[0]);
        self.step(&command);
        self.say(&format!("$ terraform {}", arguments.join(" ")));
        arguments.insert(1, "-no-color".to_owned());
        let (output, mut written) = self.directory.output().map_err(ours)?;
        let quiet = command == SHOW;
        let credential = &self.lease.job_credential;
        let (dir, left) = (self.directory.work(), self.keeper.standing().left());
        let started = Terraform::start(config, &program, &arguments, &dir, output, credential, left);
        let _ = self.log.diagnosis();

        let mut copied = (!quiet).then_some(&mut written);
        let (end, stopped) = self.attend(started.map_err(ours)?, &mut copied).await;
        self.copy(&mut copied);
        self.logged(self.log.settle());
        self.directory.remove_output();
        let told = self.log.diagnosis();
        match (end, stopped) {
            (End::Exited(0), _) => Ok(written),
            (End::Missing(why), _) => Err(Outcome::Failed("TOOL_MISSING", why)),
            (End::Broken(why), _) => Err(Outcome::Failed("RUNNER_FAILED", why)),
            (End::Unknown, _) if self.applies(&command) => {
                Err(Outcome::Unknown("terraform ended and nobody saw how".to_owned()))
            }
            (End::Unknown, _) => Err(Outcome::Failed(
                "RUNNER_FAILED",
                "terraform ended and nobody saw how".to_owned(),
            )),
            // Killed before it could say what it had changed.
            (End::Signalled(_), Some(stop)) if self.applies(&command) => {
                Err(Outcome::Unknown(format!("{}, and terraform was killed", stop.told())))
            }
            (_, Some(stop)) => Err(stop.outcome(self.lease.kind())),
            (End::Exited(status), None) => {
                let detail = told.unwrap_or_else(|| format!("{command} ended with status {status}"));
                Err(Outcome::Failed("TERRAFORM_FAILED", detail))
            }
            (End::Signalled(signal), None) if self.applies(&command) => {
                Err(Outcome::Unknown(format!("{command} was ended by signal {signal}")))
            }
            (End::Signalled(signal), None) => Err(Outcome::Failed(
                "TERRAFORM_FAILED",
                format!("{command} was ended by signal {signal}"),
            )),
        }
    }

    /// Stands by a Terraform that runs: copies what it writes, passes the lease on, interrupts it where it must end.
    async fn attend(&self, mut terraform: Terraform, written: &mut Option<&mut File>) -> (End, Option<Stop>) {
        let mut changes = self.keeper.watch();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = None;
        let mut leaving = false;
        let end = loop {
            let stop = self.stop();
            if stop > stopped
                && let Some(stop) = stop
            {
                self.copy(written);
                self.say(&format!("[board3-runner: terraform is interrupted, {}]", stop.told()));
                tracing::warn!(why = stop.told(), "terraform is interrupted");
                terraform.interrupt(stop.grace()).await;
                stopped = Some(stop);
            }
            tokio::select! {
                end = terraform.end() => break end,
                _ = tick.tick() => self.copy(written),
                _ = changes.changed() => {
                    let standing = *changes.borrow_and_update();
                    if !standing.lost {
                        terraform.keep(standing.left()).await;
                    }
                }
                () = self.runner.stop.cancelled(), if !leaving => leaving = true,
            }
        };
        if end == End::Unknown {
            self.say("[board3-runner: nobody stands by terraform any more]");
            let lease_ends = || match self.keeper.standing() {
                standing if standing.lost => Instant::now(),
                standing => standing.until(),
            };
            terraform
                .end_alone(stopped.map_or(GRACE, Stop::grace), lease_ends)
                .await;
        }
        (end, stopped)
    }

    fn applies(&self, command: &str) -> bool {
        self.lease.kind() == StageKind::Apply && command == APPLY
    }

    fn stop(&self) -> Option<Stop> {
        let standing = self.keeper.standing();
        match standing {
            Standing { lost: true, .. } => Some(Stop::Lost),
            Standing { fenced: true, .. } => Some(Stop::Fenced),
            Standing { cancel: true, .. } => Some(Stop::Cancelled),
            _ if self.runner.stop.is_cancelled() => Some(Stop::Leaving),
            _ => None,
        }
    }

    async fn stopping(&self) -> Stop {
        let mut changes = self.keeper.watch();
        loop {
            if let Some(stop) = self.stop() {
                return stop;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = self.runner.stop.cancelled() => {}
            }
        }
    }

    fn step(&mut self, step: &str) {
        step.clone_into(&mut self.known.step);
        self.directory.write(self.known);
    }

    /// Says in the log what ended the stage where Terraform did not say it.
    fn tell(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Failed("TERRAFORM_FAILED", _) | Outcome::Succeeded(_) => {}
            Outcome::Failed(reason, detail) => self.say(&format!("[board3-runner: {reason}: {detail}]")),
            Outcome::Cancelled => self.say("[board3-runner: cancelled]"),
            Outcome::Unknown(detail) => self.say(&format!("[board3-runner: {detail}]")),
        }
        if self.directory.has_errored_state() {
            let (name, work) = (&self.runner.config.name, self.directory.work());
            self.say(&format!(
                "[board3-runner: the state could not be stored; {name} keeps it as {}/errored.tfstate]",
                work.display()
            ));
        }
    }

    fn say(&self, text: &str) {
        self.logged(self.log.line(text));
    }

    fn copy(&self, written: &mut Option<&mut File>) {
        if let Some(written) = written {
            self.logged(self.log.copy(written));
        }
    }

    /// A log that cannot be kept on a full disk does not end what Terraform has begun.
    fn logged(&self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "the log could not be written");
        }
    }
}

/// The report of an outcome, written down in `known` too; none where nothing is to be reported.
fn completed(lease: &Lease, secrets: &Secrets, outcome: Outcome, known: &mut Known) -> Option<CompleteRequest> {
    let mut request = CompleteRequest {
        lease_id: lease.id.clone(),
        generation: lease.generation,
        request_id: Uuid::now_v7().to_string(),
        ..CompleteRequest::default()
    };
    let told = match outcome {
        Outcome::Succeeded(plan) => {
            request.plan = plan;
            StageOutcome::Succeeded
        }
        Outcome::Cancelled => StageOutcome::Cancelled,
        Outcome::Failed(reason, detail) => {
            reason.clone_into(&mut request.failure_reason);
            request.failure_detail = plain(&secrets.masked(&detail), 1000);
            StageOutcome::Failed
        }
        Outcome::Unknown(detail) => {
            "unknown".clone_into(&mut known.outcome);
            known.failure_detail = detail;
            return None;
        }
    };
    request.set_outcome(told);
    told.as_str_name().clone_into(&mut known.outcome);
    known.failure_reason.clone_from(&request.failure_reason);
    known.failure_detail.clone_from(&request.failure_detail);
    Some(request)
}

/// Removes a directory, unless it holds what nobody else knows: a state, or what became of an apply.
fn leave(directory: &Directory, known: &Known) {
    let errored = directory.has_errored_state();
    if errored || (known.step == APPLY && !known.reported) {
        directory.strip();
        tracing::warn!(
            directory = %directory.path().display(),
            errored_state = errored,
            reported = known.reported,
            "the directory is kept"
        );
    } else {
        directory.remove();
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)
}

fn ours(error: io::Error) -> Outcome {
    tracing::error!(%error, "the runner failed");
    Outcome::Failed("RUNNER_FAILED", format!("the runner failed ({})", error.kind()))
}
