//! Calls to pipelines, designs and terraform_state: each with a deadline, a request id and its execution's trace.

use std::{collections::HashMap, time::Duration};

use api::{
    designs::v1::{ExportTerraformRequest, ExportTerraformResponse, design_service_client::DesignServiceClient},
    pipelines::v1::{
        AcquireRequest, AcquireResponse, AppendLogRequest, AppendLogResponse, CompleteRequest, CompleteResponse,
        RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, StartRequest, StartResponse,
        runner_service_client::RunnerServiceClient,
    },
    terraform_state::v1::{DetectDriftRequest, DetectDriftResponse, drift_service_client::DriftServiceClient},
};
use tokio::time::timeout;
use tonic::{
    Code, Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{config::Config, diagnosis::plain};

/// What a service may ask a lease's runner to wait: it is a third of a lease.
const MOST_ASKED: Duration = Duration::from_secs(10);

/// The trace that a call belongs to. Those of one execution share one, whichever runner makes them.
#[derive(Clone, Copy)]
pub(crate) struct Trace(u128);

impl Trace {
    /// Of an execution.
    pub(crate) fn of(execution_id: &str) -> Self {
        let id = Uuid::parse_str(execution_id).map_or(0, |id| id.as_u128());
        if id == 0 { Self::new() } else { Trace(id) }
    }

    /// Of nothing else.
    pub(crate) fn new() -> Self {
        Trace(Uuid::new_v4().as_u128())
    }
}

/// A bearer credential; prints as nothing.
#[derive(Clone)]
pub(crate) struct Credential(MetadataValue<Ascii>);

impl Credential {
    /// None for what cannot stand in a header.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().ok()?;
        value.set_sensitive(true);
        Some(Credential(value))
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// gRPC's code.
    pub(crate) code: Code,
    /// The suite's reason; empty where the failure is none of its services'.
    pub(crate) reason: String,
    /// The same in words, with broken rules where there are some.
    pub(crate) message: String,
    /// How long it asks to wait.
    retry_delay: Option<Duration>,
    metadata: HashMap<String, String>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let (reason, metadata) = details
            .error_info()
            .map(|about| (about.reason.clone(), about.metadata.clone()))
            .unwrap_or_default();
        let mut message = status.message().to_owned();
        for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
            message.push_str(&format!("; {}: {}", violation.field, violation.description));
        }
        Refusal {
            code: status.code(),
            reason,
            message,
            retry_delay: details.retry_info().and_then(|retry| retry.retry_delay),
            metadata,
        }
    }
}

impl Refusal {
    /// The lease is not ours any more.
    pub(crate) fn lease_lost(&self) -> bool {
        matches!(self.reason.as_str(), "LEASE_LOST" | "LOG_SEALED") || self.code == Code::NotFound
    }

    /// From where on the log is missing.
    pub(crate) fn expected_offset(&self) -> Option<u64> {
        (self.reason == "LOG_GAP").then(|| self.metadata.get("expected_offset")?.parse().ok())?
    }

    /// The same call would be refused again.
    pub(crate) fn definite(&self) -> bool {
        self.lease_lost()
            || matches!(
                self.code,
                Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::OutOfRange
                    | Code::AlreadyExists
                    | Code::Unimplemented
                    | Code::DataLoss
            )
    }

    /// The credential does not allow it.
    pub(crate) fn unwelcome(&self) -> bool {
        matches!(self.code, Code::Unauthenticated | Code::PermissionDenied)
    }

    /// For logs and people.
    pub(crate) fn told(&self) -> String {
        let name = if self.reason.is_empty() {
            format!("{:?}", self.code)
        } else {
            self.reason.clone()
        };
        plain(&format!("{name}: {}", self.message), 900)
    }
}

/// How long to wait between tries: longer each time, never the same for two runners.
#[derive(Clone, Copy)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// From 0.2 s up to `most`.
    pub(crate) fn up_to(most: Duration) -> Self {
        Backoff {
            next: Duration::from_millis(200).min(most),
            most,
        }
    }

    /// Half to the whole of the next step.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        let share = getrandom::u32().unwrap_or(u32::MAX / 2);
        step / 2 + (step / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    /// The same, and no less than a refusal asks for, within reason.
    pub(crate) fn after(&mut self, refusal: &Refusal) -> Duration {
        self.delay() + refusal.retry_delay.unwrap_or_default().min(MOST_ASKED)
    }
}

/// The services that the runner calls. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pipelines: RunnerServiceClient<Channel>,
    designs: DesignServiceClient<Channel>,
    drifts: DriftServiceClient<Channel>,
    key: Credential,
}

/// A unary call of RunnerService under the API key.
macro_rules! call {
    ($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident, $seconds:literal s) => {
        $(#[$doc])*
        pub(crate) async fn $name(&self, trace: Trace, message: $request) -> Result<$response, Refusal> {
            let deadline = Duration::from_secs($seconds);
            let request = request(message, &self.key, trace, deadline);
            let mut pipelines = self.pipelines.clone();
            let answered = timeout(deadline, pipelines.$name(request)).await.map_err(late)?;
            Ok(answered?.into_inner())
        }
    };
}

impl Client {
    /// Channels that connect when they are used. Needs a tokio runtime.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let channel = |endpoint: &Endpoint| {
            endpoint
                .clone()
                .connect_timeout(Duration::from_secs(2))
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5))
                .tcp_nodelay(true)
                .connect_lazy()
        };
        Some(Client {
            pipelines: RunnerServiceClient::new(channel(&config.pipelines)),
            designs: DesignServiceClient::new(channel(&config.designs)),
            drifts: DriftServiceClient::new(channel(&config.terraform_state)),
            key: Credential::new(&config.api_key)?,
        })
    }

    call!(
        /// Makes the runner known.
        register(RegisterRequest) -> RegisterResponse, 10 s
    );
    call!(
        /// Takes a stage; its deadline leaves room for a wait of 5 s.
        acquire(AcquireRequest) -> AcquireResponse, 10 s
    );
    call!(
        /// Says that work begins.
        start(StartRequest) -> StartResponse, 5 s
    );
    call!(
        /// Keeps a lease.
        renew(RenewRequest) -> RenewResponse, 5 s
    );
    call!(
        /// Stores bytes of a log.
        append_log(AppendLogRequest) -> AppendLogResponse, 10 s
    );
    call!(
        /// Ends a lease.
        complete(CompleteRequest) -> CompleteResponse, 10 s
    );

    /// A design version's configuration, under a job's credential.
    pub(crate) async fn export(
        &self,
        trace: Trace,
        credential: &Credential,
        message: ExportTerraformRequest,
    ) -> Result<Streaming<ExportTerraformResponse>, Refusal> {
        let deadline = Duration::from_secs(30);
        let request = request(message, credential, trace, deadline);
        let mut designs = self.designs.clone();
        let answered = timeout(deadline, designs.export_terraform(request))
            .await
            .map_err(late)?;
        Ok(answered?.into_inner())
    }

    /// Has a plan checked for drift, under a job's credential.
    pub(crate) async fn detect_drift(
        &self,
        trace: Trace,
        credential: &Credential,
        parts: Vec<DetectDriftRequest>,
    ) -> Result<DetectDriftResponse, Refusal> {
        let deadline = Duration::from_secs(60);
        let request = request(tokio_stream::iter(parts), credential, trace, deadline);
        let mut drifts = self.drifts.clone();
        let answered = timeout(deadline, drifts.detect_drift(request)).await.map_err(late)?;
        Ok(answered?.into_inner())
    }
}

fn request<T>(message: T, credential: &Credential, trace: Trace, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    let span = Uuid::new_v4().as_u128() as u64 | 1;
    let metadata = request.metadata_mut();
    metadata.insert("authorization", credential.0.clone());
    for (name, value) in [
        ("x-request-id", Uuid::now_v7().to_string()),
        ("traceparent", format!("00-{:032x}-{span:016x}-01", trace.0)),
    ] {
        metadata.insert(name, value.parse().expect("hex digits and dashes are ASCII"));
    }
    request
}

fn late<E>(_: E) -> Refusal {
    Status::deadline_exceeded("no answer in time").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_differ() {
        let most = Duration::from_secs(2);
        let mut backoff = Backoff::up_to(most);
        let delays: Vec<_> = (0..50).map(|_| backoff.delay()).collect();
        assert!(delays[0] >= Duration::from_millis(100) && delays[0] <= Duration::from_millis(200));
        assert!(delays[10..].iter().all(|delay| *delay >= most / 2 && *delay <= most));
        assert!(delays[10..].windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept_within_reason() {
        let delay = |asked| {
            let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(asked)));
            let refused = Status::with_error_details(Code::ResourceExhausted, "too many calls", details);
            Backoff::up_to(Duration::from_secs(2)).after(&refused.into())
        };
        assert!(delay(3) > Duration::from_secs(3) && delay(3) < Duration::from_secs(4));
        assert!(delay(3600) < MOST_ASKED + Duration::from_secs(1));
    }

    #[test]
    fn an_executions_calls_share_its_trace() {
        let id = "0198f0aa-0000-7000-8000-000000000001";
        let key = Credential::new("b3k_x").unwrap();
        let header = |trace| {
            let request = request((), &key, trace, Duration::from_secs(1));
            request
                .metadata()
                .get("traceparent")
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert!(header(Trace::of(id)).starts_with("00-0198f0aa000070008000000000000001-"));
        assert_ne!(header(Trace::of(id)), header(Trace::of(id)));
        assert_ne!(header(Trace::of("x"))[..35], header(Trace::new())[..35]);
    }

    #[test]
    fn a_gap_names_the_offset_that_is_expected() {
        let metadata = [("expected_offset".to_owned(), "17".to_owned())];
        let details = tonic_types::ErrorDetails::with_error_info("LOG_GAP", "board3", metadata);
        let refusal = Refusal::from(Status::with_error_details(Code::OutOfRange, "a gap", details));
        assert_eq!(refusal.expected_offset(), Some(17));
        assert!(refusal.definite() && !refusal.lease_lost());
        assert!(!Refusal::from(Status::unavailable("gone")).definite());
    }
}
