//! Stand-ins for pipelines and designs, which keep what they are told and refuse what they are told to refuse.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    designs::v1::{design_service_server::*, *},
    pipelines::v1::{runner_service_server::*, *},
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) const API_KEY: &str = "b3k_the-key-of-the-runners-organization";

/// What the stand-ins know and how they behave.
pub(crate) struct Known {
    pub(crate) leases: VecDeque<Lease>,
    pub(crate) plan: Vec<u8>,
    pub(crate) expires_in: Duration,
    pub(crate) cancel: bool,
    /// How a call is refused from now on, by its name.
    pub(crate) refuse: HashMap<&'static str, Status>,
    /// How often a call is refused before it is answered, by its name.
    pub(crate) stumble: HashMap<&'static str, Vec<Status>>,
    pub(crate) configuration: Vec<u8>,
    pub(crate) log: Vec<u8>,
    pub(crate) reports: Vec<CompleteRequest>,
    pub(crate) registered: Vec<RegisterRequest>,
    /// Name, `authorization` and `traceparent` of each call.
    pub(crate) calls: Vec<(&'static str, String, String)>,
}

#[derive(Clone)]
pub(crate) struct Stand {
    pub(crate) known: Arc<Mutex<Known>>,
    pub(crate) address: SocketAddr,
}

impl Stand {
    pub(crate) async fn new(configuration: &str) -> Stand {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let known = Known {
            leases: VecDeque::new(),
            plan: Vec::new(),
            expires_in: Duration::from_secs(30),
            cancel: false,
            refuse: HashMap::new(),
            stumble: HashMap::new(),
            configuration: configuration.as_bytes().to_vec(),
            log: Vec::new(),
            reports: Vec::new(),
            registered: Vec::new(),
            calls: Vec::new(),
        };
        let stand = Stand {
            known: Arc::new(Mutex::new(known)),
            address: listener.local_addr().unwrap(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(RunnerServiceServer::new(stand.clone()))
            .add_service(DesignServiceServer::new(stand.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        stand
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.lock().unwrap())
    }

    pub(crate) fn log(&self) -> String {
        self.with(|known| String::from_utf8_lossy(&known.log).into_owned())
    }

    /// Hands a stage to the runner; the lease's id.
    pub(crate) fn hand_out(&self, kind: StageKind) -> String {
        let id = || uuid::Uuid::now_v7().to_string();
        self.with(|known| {
            let lease = Lease {
                id: id(),
                generation: 7,
                expires_in: known.expires_in.try_into().ok(),
                execution_id: id(),
                stage_id: id(),
                stage_name: "stage".to_owned(),
                kind: kind.into(),
                design_id: id(),
                design_version: 3,
                state_name: "web".to_owned(),
                job_credential: format!("b3j_{}", id()),
            };
            known.leases.push_back(lease.clone());
            lease.id
        })
    }

    /// Waits, at most 40 s, until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Known) -> bool) {
        for _ in 0..2000 {
            if self.with(|known| holds(known)) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{what} did not come about; the log so far:\n{}", self.log());
    }

    /// The report of the only stage.
    pub(crate) async fn report(&self) -> CompleteRequest {
        self.until("a report", |known| !known.reports.is_empty()).await;
        self.with(|known| known.reports[0].clone())
    }

    fn arrived<T>(&self, name: &'static str, request: &Request<T>) -> Result<(), Status> {
        let header = |name| {
            let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        assert!(
            request.metadata().contains_key("grpc-timeout"),
            "{name} has no deadline"
        );
        assert!(!header("x-request-id").is_empty(), "{name} has no request id");
        self.with(|known| {
            known.calls.push((name, header("authorization"), header("traceparent")));
            if let Some(status) = known.stumble.get_mut(name).and_then(Vec::pop) {
                return Err(status);
            }
            known.refuse.get(name).cloned().map_or(Ok(()), Err)
        })
    }
}

/// A refusal as the services make it.
pub(crate) fn refusal(code: Code, reason: &str, metadata: &[(&str, String)]) -> Status {
    let metadata: Vec<_> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    Status::with_error_details(
        code,
        "refused by the stand-in",
        ErrorDetails::with_error_info(reason, "board3", metadata.into_iter().collect::<HashMap<_, _>>()),
    )
}

pub(crate) fn lease_lost() -> Status {
    refusal(Code::FailedPrecondition, "LEASE_LOST", &[])
}

#[async_trait::async_trait]
impl RunnerService for Stand {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        self.arrived("register", &request)?;
        let request = request.into_inner();
        let runner = Runner {
            id: uuid::Uuid::now_v7().to_string(),
            name: request.name.clone(),
            ..Runner::default()
        };
        self.with(|known| known.registered.push(request));
        Ok(Response::new(RegisterResponse { runner: Some(runner) }))
    }

    async fn acquire(&self, request: Request<AcquireRequest>) -> Result<Response<AcquireResponse>, Status> {
        self.arrived("acquire", &request)?;
        for _ in 0..50 {
            if let Some(lease) = self.with(|known| known.leases.pop_front()) {
                return Ok(Response::new(AcquireResponse { lease: Some(lease) }));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Response::new(AcquireResponse { lease: None }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        self.arrived("start", &request)?;
        Ok(Response::new(self.with(|known| StartResponse {
            expires_in: known.expires_in.try_into().ok(),
            plan: known.plan.clone(),
        })))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        self.arrived("renew", &request)?;
        assert_eq!(request.get_ref().generation, 7);
        Ok(Response::new(self.with(|known| RenewResponse {
            expires_in: known.expires_in.try_into().ok(),
            cancel: known.cancel,
            log_offset: known.log.len() as i64,
        })))
    }

    async fn append_log(&self, request: Request<AppendLogRequest>) -> Result<Response<AppendLogResponse>, Status> {
        self.arrived("append_log", &request)?;
        let request = request.into_inner();
        assert!(!request.content.is_empty() && request.content.len() <= 512 * 1024);
        self.with(|known| {
            let (offset, length) = (request.offset as usize, known.log.len());
            if offset > length {
                let expected = [("expected_offset", length.to_string())];
                return Err(refusal(Code::OutOfRange, "LOG_GAP", &expected));
            }
            let fresh = request.content.get(length - offset..).unwrap_or_default();
            known.log.extend_from_slice(fresh);
            Ok(Response::new(AppendLogResponse {
                log_offset: known.log.len() as i64,
            }))
        })
    }

    async fn complete(&self, request: Request<CompleteRequest>) -> Result<Response<CompleteResponse>, Status> {
        self.arrived("complete", &request)?;
        let request = request.into_inner();
        self.with(|known| {
            if request.log_bytes != known.log.len() as i64 {
                let expected = [("expected_offset", known.log.len().to_string())];
                return Err(refusal(Code::OutOfRange, "LOG_GAP", &expected));
            }
            known.reports.push(request);
            Ok(Response::new(CompleteResponse {}))
        })
    }

    async fn list_runners(&self, _: Request<ListRunnersRequest>) -> Result<Response<ListRunnersResponse>, Status> {
        Err(Status::unimplemented("not asked by runners"))
    }
}

macro_rules! not_asked {
    ($($name:ident($request:ident) -> $response:ident),* $(,)?) => {
        #[async_trait::async_trait]
        impl DesignService for Stand {
            type ExportTerraformStream = tokio_stream::Iter<std::vec::IntoIter<Result<ExportTerraformResponse, Status>>>;

            async fn export_terraform(
                &self,
                request: Request<ExportTerraformRequest>,
            ) -> Result<Response<Self::ExportTerraformStream>, Status> {
                self.arrived("export_terraform", &request)?;
                assert_eq!((request.get_ref().version, request.get_ref().state_name.as_str()), (3, "web"));
                let file = self.with(|known| known.configuration.clone());
                let sha256 = hex::encode(Sha256::digest(&file));
                let mut parts: Vec<_> = file.chunks(100).map(|part| ExportTerraformResponse {
                    content: part.to_vec(),
                    ..ExportTerraformResponse::default()
                }).collect();
                parts[0].file_name = "main.tf.json".to_owned();
                parts[0].sha256 = sha256;
                Ok(Response::new(tokio_stream::iter(parts.into_iter().map(Ok).collect::<Vec<_>>())))
            }

            $(
                async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                    Err(Status::unimplemented("not asked by runners"))
                }
            )*
        }
    };
}

not_asked!(
    create_design(CreateDesignRequest) -> CreateDesignResponse,
    get_design(GetDesignRequest) -> GetDesignResponse,
    list_designs(ListDesignsRequest) -> ListDesignsResponse,
    update_design(UpdateDesignRequest) -> UpdateDesignResponse,
    delete_design(DeleteDesignRequest) -> DeleteDesignResponse,
    publish_design(PublishDesignRequest) -> PublishDesignResponse,
    list_versions(ListVersionsRequest) -> ListVersionsResponse,
    list_resources(ListResourcesRequest) -> ListResourcesResponse,
);
