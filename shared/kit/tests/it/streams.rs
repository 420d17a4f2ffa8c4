//! Calls whose callers stream: what passes, what they repeat, and how they end early.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use api::terraform_state::v1::{
    self as v1, DetectDriftRequest, DetectDriftResponse,
    drift_service_client::DriftServiceClient,
    drift_service_server::{DriftService, DriftServiceServer},
};
use kit::{
    auth::{OrgScope, admitted_stream, repeats},
    config::Env,
    db::{About, Db},
    error::{Error, Reason},
    failpoint,
    ids::OrgId,
    service::{Build, Parts, Service},
};
use prost::Message as _;
use testkit::serve::{Caller, Served};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{events::SLICE, eventually};

/// Counts the bytes of plans; its checks are numbered as they are written.
const COUNTED: Service = Service {
    slice: &SLICE,
    configure,
};

fn configure(_: &mut Env) -> Option<Build> {
    Some(Box::new(|kit| {
        let counted = Counted {
            db: kit.db,
            written: AtomicU64::new(0),
        };
        Box::pin(async { Ok(Parts::new().serve(DriftServiceServer::new(counted))) })
    }))
}

struct Counted {
    db: Db,
    written: AtomicU64,
}

struct Check;

impl About for Check {
    const TYPE: &'static str = "check";
    fn id(&self) -> String {
        String::new()
    }
}

/// How many handlers have read a first message.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// RPCs that nobody calls here.
macro_rules! uncounted {
    ($($name:ident: $request:ident -> $response:ty),+ $(,)?) => {
        $(
            fn $name<'life0, 'async_trait>(
                &'life0 self,
                _: Request<v1::$request>,
            ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async { Err(Error::new(Reason::Internal, "not counted").into()) })
            }
        )+
    };
}

#[tonic::async_trait]
impl DriftService for Counted {
    type WatchDriftStream = tokio_stream::Empty<Result<v1::WatchDriftResponse, Status>>;

    uncounted! {
        list_drift_logs: ListDriftLogsRequest -> v1::ListDriftLogsResponse,
        get_drift_log: GetDriftLogRequest -> v1::GetDriftLogResponse,
        acknowledge_drift: AcknowledgeDriftRequest -> v1::AcknowledgeDriftResponse,
        accept_drift: AcceptDriftRequest -> v1::AcceptDriftResponse,
        resolve_drift: ResolveDriftRequest -> v1::ResolveDriftResponse,
        create_drift_rule: CreateDriftRuleRequest -> v1::CreateDriftRuleResponse,
        list_drift_rules: ListDriftRulesRequest -> v1::ListDriftRulesResponse,
        delete_drift_rule: DeleteDriftRuleRequest -> v1::DeleteDriftRuleResponse,
        get_drift_summary: GetDriftSummaryRequest -> v1::GetDriftSummaryResponse,
        get_three_way_view: GetThreeWayViewRequest -> v1::GetThreeWayViewResponse,
        watch_drift: WatchDriftRequest -> Self::WatchDriftStream,
    }

    async fn detect_drift(
        &self,
        request: Request<tonic::Streaming<DetectDriftRequest>>,
    ) -> Result<Response<DetectDriftResponse>, Status> {
        let (scope, mut parts): (OrgScope, _) = admitted_stream(request)?;
        let mut first = parts.message().await?.unwrap_or_default();
        if first.state_id == "begun" {
            BEGUN.fetch_add(1, Ordering::SeqCst);
        }
        if first.state_id == "nowhere" {
            return Err(Error::not_found("state", "nowhere").into());
        }
        let mut plan = std::mem::take(&mut first.plan_json);
        while let Some(part) = parts.message().await? {
            plan.extend(part.plan_json);
        }
        let mut arguments = first.encode_to_vec();
        arguments.extend(blake3::hash(&plan).as_bytes());
        repeats(&scope, &first.request_id, arguments)?;
        Ok(self
            .db
            .write(&scope, async |tx| {
                tx.about(&Check);
                Ok(DetectDriftResponse {
                    check_id: self.written.fetch_add(1, Ordering::SeqCst).to_string(),
                    drifted_resources: plan.len() as i32,
                    ..DetectDriftResponse::default()
                })
            })
            .await?)
    }
}

fn client(served: &Served) -> DriftServiceClient<Caller> {
    DriftServiceClient::new(served.caller(OrgId::new(), &["terraform_state.drift.write"]))
}

fn parts(state: &str, request_id: &str, count: usize, byte: u8) -> impl Iterator<Item = DetectDriftRequest> + use<> {
    let first = DetectDriftRequest {
        state_id: state.to_owned(),
        request_id: request_id.to_owned(),
        ..DetectDriftRequest::default()
    };
    let rest = (0..count).map(move |_| DetectDriftRequest {
        plan_json: vec![byte; 256 * 1024],
        ..DetectDriftRequest::default()
    });
    std::iter::once(first).chain(rest)
}

async fn send(
    client: &mut DriftServiceClient<Caller>,
    messages: impl Iterator<Item = DetectDriftRequest> + Send + 'static,
) -> Result<(String, i32), String> {
    match client.detect_drift(tokio_stream::iter(messages)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            Ok((answer.check_id, answer.drifted_resources))
        }
        Err(status) => Err(reason(&status)),
    }
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map_or_else(|| format!("{status:?}"), |told| told.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_many_messages_is_read_and_its_repeat_is_answered_the_same() {
    let served = testkit::serve::serve(COUNTED).await;
    let mut client = client(&served);
    let id = Uuid::new_v4().to_string();
    let sum = 160 * 256 * 1024;
    assert_eq!(
        send(&mut client, parts("s", &id, 160, 1)).await,
        Ok(("0".to_owned(), sum))
    );
    assert_eq!(
        send(&mut client, parts("s", &id, 160, 1)).await,
        Ok(("0".to_owned(), sum))
    );
    let reused = Err("REQUEST_ID_REUSED".to_owned());
    assert_eq!(send(&mut client, parts("s", &id, 160, 2)).await, reused);
    assert_eq!(send(&mut client, parts("t", &id, 160, 1)).await, reused);
    assert_eq!(
        send(&mut client, parts("s", "no-uuid", 1, 1)).await,
        Err("INVALID_REQUEST".to_owned())
    );
    for fresh in ["1", "2"] {
        let (check, _) = send(&mut client, parts("s", "", 1, 1)).await.unwrap();
        assert_eq!(check, fresh, "without a request id, each call is one");
    }
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_early_is_told_why() {
    let served = testkit::serve::serve(COUNTED).await;
    let mut sender = client(&served);
    for _ in 0..20 {
        // Far more than fits into any window.
        let told = send(&mut sender, parts("nowhere", "", 400, 1)).await;
        assert_eq!(told, Err("RESOURCE_NOT_FOUND".to_owned()));
    }
    let mut nobody = DriftServiceClient::new(served.with(""));
    let told = send(&mut nobody, parts("s", "", 400, 1)).await;
    assert_eq!(told, Err("CREDENTIAL_INVALID".to_owned()));
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stands_still_meets_its_deadline() {
    let served = testkit::serve::serve(COUNTED).await;
    let (sender, messages) = mpsc::channel(1);
    sender.send(parts("s", "", 0, 0).next().unwrap()).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(messages));
    request.set_timeout(Duration::from_millis(500));
    let status = client(&served).detect_drift(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_is_no_stream_that_ended() {
    let served = testkit::serve::serve(COUNTED).await;
    let refused = "code=\"InvalidArgument\"} 1";
    let unended = break_off(&served).await;
    eventually(async || served.running.kit.metrics.render().contains(refused)).await;
    drop(unended);
    let (first, _) = send(&mut client(&served), parts("s", "", 1, 1)).await.unwrap();
    assert_eq!(first, "0", "what broke off was written");

    // Without the protection, it is.
    let done = |calls: u32| format!("code=\"Ok\"}} {calls}");
    let _without = failpoint::switch_off("whole_requests");
    let unended = break_off(&served).await;
    eventually(async || served.running.kit.metrics.render().contains(&done(2))).await;
    drop(unended);
    let (third, _) = send(&mut client(&served), parts("s", "", 1, 1)).await.unwrap();
    assert_eq!(third, "2");
    served.running.stop().await;
}

/// Calls, and gives up when the handler has read a first message. What is answered must be kept until the service has
/// noticed: its end would be the stream's, which the client may still send before the cancellation.
async fn break_off(served: &Served) -> mpsc::Sender<DetectDriftRequest> {
    let mut hasty = client(served);
    let (sender, messages) = mpsc::channel(1);
    sender.send(parts("begun", "", 0, 0).next().unwrap()).await.unwrap();
    let before = BEGUN.load(Ordering::SeqCst);
    let calling = tokio::spawn(async move { hasty.detect_drift(ReceiverStream::new(messages)).await });
    eventually(async || BEGUN.load(Ordering::SeqCst) > before).await;
    calling.abort();
    assert!(calling.await.unwrap_err().is_cancelled());
    sender
}
