//! Calls to the suite in one person's name, each in the demo's own trace.
//!
//! A call that did not arrive is made again, with the same request id in its message: the suite makes one effect of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::variables::Variables;

/// A service that is killed is back before this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where calls are made from.
#[derive(Clone)]
pub(super) struct Desk {
    channels: BTreeMap<&'static str, Channel>,
    /// 32 hex digits that all of the demo's calls have in common.
    pub(super) trace: String,
    /// A token or an API key; empty for nobody's.
    pub(super) credential: String,
}

impl Desk {
    /// The services of a running suite.
    pub(super) fn new(variables: &Variables) -> Result<Desk> {
        let mut channels = BTreeMap::new();
        for service in crate::SERVICES {
            let slice = service.slice.name;
            let name = format!("BOARD3_{}", slice.to_uppercase());
            let address = variables
                .get(&name)
                .with_context(|| format!("{name} is not in the env file"))?;
            let endpoint = Endpoint::from_shared(address.clone())?.connect_timeout(Duration::from_secs(2));
            channels.insert(slice, endpoint.connect_lazy());
        }
        Ok(Desk {
            channels,
            trace: Uuid::new_v4().simple().to_string(),
            credential: String::new(),
        })
    }

    /// The same desk with another credential.
    pub(super) fn with(&self, credential: &str) -> Desk {
        Desk {
            credential: credential.to_owned(),
            ..self.clone()
        }
    }

    /// Makes a call, again and again while the service is away.
    pub(super) async fn ask<M: Clone, R>(
        &self,
        slice: &'static str,
        message: M,
        call: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R> {
        self.answer(slice, message, call)
            .await?
            .map_err(|status| anyhow!("{slice} answered {}", told(&status)))
    }

    /// As [`Desk::ask`]; a refusal is an answer too.
    pub(super) async fn answer<M: Clone, R>(
        &self,
        slice: &'static str,
        message: M,
        call: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<Result<R, Status>> {
        let deadline = Instant::now() + PATIENCE;
        let channel = self.channels.get(slice).context("every slice has a channel")?;
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(Duration::from_secs(20));
            let metadata = request.metadata_mut();
            if !self.credential.is_empty() {
                metadata.insert("authorization", format!("Bearer {}", self.credential).parse()?);
            }
            let span = &Uuid::new_v4().simple().to_string()[..16];
            metadata.insert("traceparent", format!("00-{}-{span}-01", self.trace).parse()?);
            match call(channel.clone(), request).await {
                Ok(answer) => return Ok(Ok(answer.into_inner())),
                Err(status) if !(away(&status) || reason(&status) == "RATE_LIMITED") => return Ok(Err(status)),
                Err(status) if Instant::now() > deadline => bail!("{slice} does not answer: {}", told(&status)),
                Err(status) => sleep(welcome_in(&status)).await,
            }
        }
    }
}

/// When the next try is welcome, where the service says so.
fn welcome_in(status: &Status) -> Duration {
    let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
    told.unwrap_or(Duration::from_millis(100))
}

/// Whether the call may never have arrived, or its answer was lost.
fn away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted
    ) || (status.code() == Code::Internal && reason(status).is_empty())
}

/// The reason in a refusal.
pub(super) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

fn told(status: &Status) -> String {
    format!("{:?} {} ({})", status.code(), reason(status), status.message())
}

/// Waits until `attempt` has an answer.
pub(super) async fn eventually<T>(what: &str, attempt: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        if let Some(answer) = attempt().await? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", 2 * PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A new request id.
pub(super) fn request_id() -> String {
    Uuid::now_v7().to_string()
}
