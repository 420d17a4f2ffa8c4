//! A service in the test's own process, real from the socket to the tables, and callers with chosen permissions.
//!
//! Each server has a database and a Redis prefix of its own. For a service other than identity, an [`Office`] answers
//! at identity's address: keys, permissions and sessions as the test sets them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use api::{
    events::v1::{
        Event, HeadRequest, HeadResponse, PermissionsChanged, PositionedEvent, ReplayRequest, ReplayResponse,
        SessionRevoked,
        event::Payload,
        event_log_service_server::{EventLogService, EventLogServiceServer},
    },
    identity::v1::{auth_service_server::AuthServiceServer, *},
};
use kit::{
    auth::token::{AccessClaims, SigningKey},
    config::{Env, SLICES},
    ids::{OrgId, Principal, UserId},
    service::{Running, Service},
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use uuid::Uuid;

use crate::{Database, Role, database, servers};

/// A channel with a caller's credential, for generated clients.
pub type Caller = InterceptedService<Channel, Bearer>;

/// Puts a credential on calls.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// This credential; none for the empty text.
    pub fn new(credential: &str) -> Self {
        Bearer((!credential.is_empty()).then(|| format!("Bearer {credential}").parse().expect("a credential is ASCII")))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A service under test.
pub struct Served {
    /// The service.
    pub running: Running,
    /// Its database.
    pub database: Database,
    /// The stand-in for identity.
    pub office: Office,
    /// The service's environment, to start another replica.
    pub env: Vec<(String, String)>,
}

/// Starts a service with its own database and waits until it is ready.
pub async fn serve(service: Service) -> Served {
    serve_with(service, &[]).await
}

/// As [`serve`], with more environment.
pub async fn serve_with(service: Service, more: &[(&str, &str)]) -> Served {
    let office = Office::open().await;
    let database = database(&[service.slice]).await;
    let seed = |byte: u8| hex(&[byte; 32]);
    let slice = service.slice.name;
    let peer_keys = SLICES.map(|(name, _, _)| format!("{name}={}", service_key(name).public_key()));
    let mut env: Vec<(String, String)> = [
        ("BOARD3_ENVIRONMENT", "test".to_owned()),
        ("BOARD3_INSTANCE", Uuid::new_v4().simple().to_string()),
        ("BOARD3_GRPC_LISTEN", "127.0.0.1:0".to_owned()),
        ("BOARD3_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ("DATABASE_URL", database.url(service.slice, Role::App)),
        ("DATABASE_WORKER_URL", database.url(service.slice, Role::Worker)),
        ("REDIS_URL", servers::redis_url().await),
        ("ENCRYPTION_KEY", seed(1)),
        ("BOARD3_SERVICE_KEY", hex(&service_seed(slice))),
        ("BOARD3_PEER_KEYS", peer_keys.join(",")),
        ("BOARD3_IDENTITY", office.address.clone()),
        ("BOARD3_SIGNING_KEY", seed(7)),
        ("PASSWORD_PEPPER", seed(4)),
        ("API_KEY_PEPPER", seed(5)),
        ("BOARD3_RATE_SCALE", "1000".to_owned()),
        (
            "BOARD3_LOG",
            std::env::var("BOARD3_LOG").unwrap_or_else(|_| "warn".to_owned()),
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    env.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    env.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let running = match kit::service::start(service, Env::of(env.clone())).await {
        Ok(running) => running,
        Err(problems) => panic!("{slice} does not start: {problems}"),
    };
    let served = Served {
        running,
        database,
        office,
        env,
    };
    served.ready().await;
    served
}

impl Served {
    /// A channel without a credential.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.running.grpc))
            .expect("an address is a URI")
            .connect_lazy()
    }

    /// A channel with this credential.
    pub fn with(&self, credential: &str) -> Caller {
        InterceptedService::new(self.channel(), Bearer::new(credential))
    }

    /// A new user of an organization with these permissions (grants; `*` for whole segments).
    pub fn caller(&self, org: OrgId, permissions: &[&str]) -> Caller {
        self.caller_as(org, UserId::new(), permissions)
    }

    /// A given user with these permissions.
    pub fn caller_as(&self, org: OrgId, user: UserId, permissions: &[&str]) -> Caller {
        let principal = Principal::User(user);
        self.office.grant(org, principal, permissions);
        self.with(&self.office.token(org, principal, Uuid::now_v7(), 1))
    }

    /// A peer of the suite.
    pub fn peer(&self, slice: &str) -> Caller {
        self.with(&service_key(slice).sign_service("test", slice))
    }

    /// Waits until the service is ready, at most 20 s.
    pub async fn ready(&self) {
        use std::io::{Read, Write};
        let address = self.running.http;
        let asked = async {
            loop {
                let ready = tokio::task::spawn_blocking(move || {
                    let mut stream = std::net::TcpStream::connect(address).ok()?;
                    stream.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n").ok()?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).ok()?;
                    answer.lines().next().filter(|line| line.contains(" 200 ")).map(|_| ())
                });
                if ready.await.ok().flatten().is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked)
            .await
            .expect("the service becomes ready");
    }
}

/// What identity would answer, set by the test. Cheap to clone.
#[derive(Clone)]
pub struct Office {
    /// Where it is served.
    pub address: String,
    key: Arc<SigningKey>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    permissions: HashMap<(OrgId, String), Vec<String>>,
    events: Vec<Event>,
    epoch: Uuid,
}

impl Office {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let state = State {
            epoch: Uuid::new_v4(),
            ..State::default()
        };
        let office = Office {
            address,
            key: Arc::new(SigningKey::from_seed(&[7; 32])),
            state: Arc::new(Mutex::new(state)),
        };
        let served = Server::builder()
            .add_service(AuthServiceServer::new(office.clone()))
            .add_service(EventLogServiceServer::new(office.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(served);
        office
    }

    /// Lets a principal do this in an organization, and nothing else.
    pub fn grant(&self, org: OrgId, principal: Principal, permissions: &[&str]) {
        let permissions = permissions.iter().map(|&permission| permission.to_owned()).collect();
        self.state()
            .permissions
            .insert((org, principal.to_string()), permissions);
    }

    /// An access token.
    pub fn token(&self, org: OrgId, principal: Principal, session: Uuid, permission_version: i64) -> String {
        let expires_at = SystemTime::now() + Duration::from_secs(300);
        self.key.sign_access(
            "test",
            &AccessClaims {
                principal,
                org: Some(org),
                session,
                epoch: 1,
                permission_version,
                expires_at,
            },
        )
    }

    /// Tells the services that a session is over.
    pub fn revoke_session(&self, org: OrgId, session: Uuid) {
        self.tell(
            org,
            Payload::SessionRevoked(SessionRevoked {
                session_id: session.to_string(),
            }),
        );
    }

    /// Tells the services that permissions of an organization have a new version.
    pub fn change_permissions(&self, org: OrgId, permission_version: i64) {
        self.tell(
            org,
            Payload::PermissionsChanged(PermissionsChanged { permission_version }),
        );
    }

    /// Tells the services anything.
    pub fn tell(&self, org: OrgId, payload: Payload) {
        self.state().events.push(Event {
            event_id: Uuid::now_v7().to_string(),
            organization_id: org.to_string(),
            occurred_at: Some(SystemTime::now().into()),
            action: "identity.Test".to_owned(),
            payload: Some(payload),
            ..Event::default()
        });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the office")
    }
}

#[tonic::async_trait]
impl EventLogService for Office {
    type ReplayStream = tokio_stream::Iter<std::vec::IntoIter<Result<ReplayResponse, Status>>>;

    async fn head(&self, _: Request<HeadRequest>) -> Result<Response<HeadResponse>, Status> {
        let state = self.state();
        Ok(Response::new(HeadResponse {
            source: "identity".to_owned(),
            epoch: state.epoch.to_string(),
            head: state.events.len() as i64,
            ..HeadResponse::default()
        }))
    }

    async fn replay(&self, request: Request<ReplayRequest>) -> Result<Response<Self::ReplayStream>, Status> {
        let state = self.state();
        let after = usize::try_from(request.into_inner().after).unwrap_or(0);
        let events: Vec<_> = (after..state.events.len())
            .map(|index| PositionedEvent {
                source: "identity".to_owned(),
                epoch: state.epoch.to_string(),
                position: index as i64 + 1,
                event: Some(state.events[index].clone()),
            })
            .collect();
        let answer = ReplayResponse {
            events,
            head: state.events.len() as i64,
            epoch: state.epoch.to_string(),
            ..ReplayResponse::default()
        };
        Ok(Response::new(tokio_stream::iter(vec![Ok(answer)])))
    }
}

fn closed<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the office only answers services"))
}

#[tonic::async_trait]
impl auth_service_server::AuthService for Office {
    async fn get_signing_keys(
        &self,
        _: Request<GetSigningKeysRequest>,
    ) -> Result<Response<GetSigningKeysResponse>, Status> {
        let key = api::identity::v1::SigningKey {
            key_id: self.key.key_id().to_owned(),
            public_key: self.key.public_key(),
        };
        Ok(Response::new(GetSigningKeysResponse { keys: vec![key] }))
    }

    async fn get_permission_set(
        &self,
        request: Request<GetPermissionSetRequest>,
    ) -> Result<Response<GetPermissionSetResponse>, Status> {
        let request = request.into_inner();
        let kind = if request.principal_kind() == PrincipalKind::ApiKey {
            "key"
        } else {
            "user"
        };
        let org: OrgId = request
            .organization_id
            .parse()
            .map_err(|_| Status::invalid_argument("organization_id"))?;
        let permissions = self
            .state()
            .permissions
            .get(&(org, format!("{kind}:{}", request.principal_id)))
            .cloned()
            .unwrap_or_default();
        Ok(Response::new(GetPermissionSetResponse {
            permissions,
            permission_version: 1,
        }))
    }

    async fn check_session(&self, _: Request<CheckSessionRequest>) -> Result<Response<CheckSessionResponse>, Status> {
        Ok(Response::new(CheckSessionResponse { active: true }))
    }

    async fn sign_up(&self, _: Request<SignUpRequest>) -> Result<Response<SignUpResponse>, Status> {
        closed()
    }

    async fn login(&self, _: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        closed()
    }

    async fn refresh_token(&self, _: Request<RefreshTokenRequest>) -> Result<Response<RefreshTokenResponse>, Status> {
        closed()
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        closed()
    }

    async fn switch_organization(
        &self,
        _: Request<SwitchOrganizationRequest>,
    ) -> Result<Response<SwitchOrganizationResponse>, Status> {
        closed()
    }

    async fn exchange_api_key(
        &self,
        _: Request<ExchangeApiKeyRequest>,
    ) -> Result<Response<ExchangeApiKeyResponse>, Status> {
        closed()
    }
}

/// Each slice signs with a key of its own: one key for two would name the wrong one.
fn service_key(slice: &str) -> SigningKey {
    SigningKey::from_seed(&service_seed(slice))
}

fn service_seed(slice: &str) -> [u8; 32] {
    let mut seed = [9; 32];
    seed.iter_mut()
        .zip(slice.bytes())
        .for_each(|(byte, letter)| *byte = letter);
    seed
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
