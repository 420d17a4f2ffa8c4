//! The other services, as the test wants them: what identity and pipelines would answer, and every slice's event log.
//!
//! A service under test reaches all of them at these stand-ins, and speaks to itself where it is its own peer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use api::{
    events::v1::{
        Announcement, Event, HeadRequest, HeadResponse, PermissionsChanged, PositionedEvent, ReplayRequest,
        ReplayResponse, SessionRevoked,
        event::Payload,
        event_log_service_server::{EventLogService, EventLogServiceServer},
    },
    identity::v1::{auth_service_server::AuthServiceServer, *},
    pipelines::v1::{
        CheckJobCredentialRequest, CheckJobCredentialResponse, GetJobsRequest, GetJobsResponse, Job, JobStanding,
        job_service_server::{JobService, JobServiceServer},
    },
};
use kit::{
    auth::token::{AccessClaims, KEY_SET_LIFETIME, KeySet, SigningKey},
    config::SLICES,
    ids::{OrgId, Principal},
    redis::Redis,
};
use prost::Message;
use tonic::{
    Request, Response, Status,
    metadata::MetadataMap,
    transport::{Server, server::TcpIncoming},
};
use uuid::Uuid;

/// For how long a job credential holds while the office says nothing about it: a lease and its margin.
const JOB_HOLDS: Duration = Duration::from_secs(45);

/// What the other services would answer, set by the test. Cheap to clone.
#[derive(Clone)]
pub struct Office {
    key: Arc<SigningKey>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    addresses: BTreeMap<&'static str, String>,
    permissions: HashMap<(OrgId, String), Vec<String>>,
    logs: BTreeMap<&'static str, Log>,
    jobs: HashMap<String, CheckJobCredentialResponse>,
    standings: HashMap<String, JobStanding>,
    jobs_away: bool,
    /// Where events are announced, once the service runs.
    redis: Option<Redis>,
}

/// The events of a slice; the first has position 1.
struct Log {
    epoch: Uuid,
    events: Vec<Event>,
}

impl Office {
    /// Serves every slice at an address of its own.
    pub(crate) async fn open() -> Self {
        let office = Office {
            key: Arc::new(SigningKey::from_seed(&[7; 32])),
            state: Arc::default(),
        };
        for (slice, _, _) in SLICES {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port is free");
            let address = format!("http://{}", listener.local_addr().expect("it is bound"));
            let log = Log {
                epoch: Uuid::new_v4(),
                events: Vec::new(),
            };
            office.state().addresses.insert(slice, address);
            office.state().logs.insert(slice, log);
            let of_slice = OfSlice {
                office: office.clone(),
                slice,
            };
            let mut server = Server::builder().add_service(EventLogServiceServer::new(of_slice));
            match slice {
                "identity" => server = server.add_service(AuthServiceServer::new(office.clone())),
                "pipelines" => server = server.add_service(JobServiceServer::new(office.clone())),
                _ => {}
            }
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        }
        office
    }

    /// Events are announced to the service that runs with this Redis.
    pub(crate) fn announces_over(&self, redis: Redis) {
        self.state().redis = Some(redis);
    }

    /// Where it stands in for a slice.
    pub fn address(&self, slice: &str) -> String {
        self.state().addresses[slice].clone()
    }

    /// Lets a principal do this in an organization, and nothing else.
    pub fn grant(&self, org: OrgId, principal: Principal, permissions: &[&str]) {
        self.state()
            .permissions
            .insert((org, principal.to_string()), owned(permissions));
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

    /// The credential of a new job with these permissions (grants; `*` for whole segments), which is bound to a design
    /// by its id and to a state by its name.
    pub fn job(&self, org: OrgId, permissions: &[&str], design: &str, state: &str) -> String {
        let credential = format!("b3j_{}", kit::crypto::base62(43));
        let job = CheckJobCredentialResponse {
            organization_id: org.to_string(),
            job_id: Uuid::now_v7().to_string(),
            permissions: owned(permissions),
            design_id: design.to_owned(),
            state_name: state.to_owned(),
            expires_in: JOB_HOLDS.try_into().ok(),
            execution_id: Uuid::now_v7().to_string(),
        };
        let mut state = self.state();
        state.standings.insert(job.job_id.clone(), JobStanding::Live);
        state.jobs.insert(credential.clone(), job);
        drop(state);
        credential
    }

    /// The job that a credential was made for.
    ///
    /// # Panics
    /// When there is none.
    pub fn job_id(&self, credential: &str) -> Uuid {
        let id = self.state().jobs[credential].job_id.parse();
        id.expect("jobs have UUIDs")
    }

    /// Ends a job: its credential is void, which services know 2 s later.
    pub fn end_job(&self, credential: &str) {
        let mut state = self.state();
        if let Some(job) = state.jobs.remove(credential) {
            state.standings.insert(job.job_id, JobStanding::Ended);
        }
    }

    /// Lets pipelines say of a job that it stands so.
    ///
    /// # Panics
    /// When there is no such job.
    pub fn job_stands(&self, credential: &str, standing: JobStanding) {
        let job = self.job_id(credential).to_string();
        self.state().standings.insert(job, standing);
    }

    /// Whether nobody answers about jobs.
    pub fn jobs_away(&self, away: bool) {
        self.state().jobs_away = away;
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

    /// Tells the services anything, as identity.
    pub fn tell(&self, org: OrgId, payload: Payload) {
        self.tell_as("identity", org, payload);
    }

    /// Tells the services anything, as another slice.
    pub fn tell_as(&self, slice: &str, org: OrgId, payload: Payload) {
        self.tell_event(
            slice,
            Event {
                event_id: Uuid::now_v7().to_string(),
                organization_id: org.to_string(),
                occurred_at: Some(SystemTime::now().into()),
                action: format!("{slice}.Test"),
                payload: Some(payload),
                ..Event::default()
            },
        );
    }

    /// Puts an event as it is into a slice's log, and announces it.
    ///
    /// # Panics
    /// For what is no slice.
    pub fn tell_event(&self, slice: &str, event: Event) {
        let mut state = self.state();
        let log = state.logs.get_mut(slice).expect("a slice of the suite");
        log.events.push(event);
        let announcement = Announcement {
            source: slice.to_owned(),
            epoch: log.epoch.to_string(),
            head: log.events.len() as i64,
            events: log.after(slice, log.events.len() - 1),
            waiting_ms: 0,
        };
        let Some(redis) = state.redis.clone() else { return };
        let channel = kit::events::channel(&redis, slice);
        // Whom it does not reach, and in what order, is as in life: who misses an announcement fetches.
        tokio::spawn(async move { redis.publish(&channel, &announcement.encode_to_vec()).await });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the office")
    }
}

impl Log {
    fn after(&self, slice: &str, after: usize) -> Vec<PositionedEvent> {
        let positioned = |index: usize| PositionedEvent {
            source: slice.to_owned(),
            epoch: self.epoch.to_string(),
            position: index as i64 + 1,
            event: Some(self.events[index].clone()),
        };
        (after..self.events.len()).map(positioned).collect()
    }
}

/// The office in the place of one slice.
struct OfSlice {
    office: Office,
    slice: &'static str,
}

#[tonic::async_trait]
impl EventLogService for OfSlice {
    type ReplayStream = tokio_stream::Iter<std::vec::IntoIter<Result<ReplayResponse, Status>>>;

    async fn head(&self, _: Request<HeadRequest>) -> Result<Response<HeadResponse>, Status> {
        let state = self.office.state();
        let log = &state.logs[self.slice];
        Ok(Response::new(HeadResponse {
            source: self.slice.to_owned(),
            epoch: log.epoch.to_string(),
            head: log.events.len() as i64,
            waiting_ms: 0,
        }))
    }

    async fn replay(&self, request: Request<ReplayRequest>) -> Result<Response<Self::ReplayStream>, Status> {
        let after = usize::try_from(request.into_inner().after).unwrap_or(0);
        let state = self.office.state();
        let log = &state.logs[self.slice];
        let answer = ReplayResponse {
            events: log.after(self.slice, after),
            head: log.events.len() as i64,
            epoch: log.epoch.to_string(),
            waiting_ms: 0,
        };
        Ok(Response::new(tokio_stream::iter(vec![Ok(answer)])))
    }
}

#[tonic::async_trait]
impl JobService for Office {
    async fn check_job_credential(
        &self,
        request: Request<CheckJobCredentialRequest>,
    ) -> Result<Response<CheckJobCredentialResponse>, Status> {
        if !from_a_service(request.metadata()) {
            return Err(Status::permission_denied("only services ask about jobs"));
        }
        let state = self.state();
        if state.jobs_away {
            return Err(Status::unavailable("away"));
        }
        let job = state.jobs.get(&request.into_inner().job_credential).cloned();
        job.map(Response::new)
            .ok_or_else(|| Status::unauthenticated("no such job"))
    }

    async fn get_jobs(&self, request: Request<GetJobsRequest>) -> Result<Response<GetJobsResponse>, Status> {
        if !from_a_service(request.metadata()) {
            return Err(Status::permission_denied("only services ask about jobs"));
        }
        let state = self.state();
        if state.jobs_away {
            return Err(Status::unavailable("away"));
        }
        let asked = request.into_inner().job_ids.into_iter();
        let jobs = asked.filter_map(|id| {
            let standing = *state.standings.get(&id)?;
            Some(Job {
                id,
                execution_id: String::new(),
                standing: standing.into(),
            })
        });
        Ok(Response::new(GetJobsResponse { jobs: jobs.collect() }))
    }
}

fn from_a_service(metadata: &MetadataMap) -> bool {
    let bearer = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = bearer
        .and_then(|bearer| bearer.strip_prefix("Bearer "))
        .unwrap_or_default();
    SLICES
        .iter()
        .any(|(slice, _, _)| service_key(slice).public().verify_service("test", token).is_ok())
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
        Ok(Response::new(GetSigningKeysResponse {
            key_set: root_key().sign_keys(
                "test",
                &KeySet {
                    version: 1,
                    keys: vec![self.key.public().clone()],
                    expires_at: SystemTime::now() + KEY_SET_LIFETIME,
                },
            ),
        }))
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

    async fn verify_email(&self, _: Request<VerifyEmailRequest>) -> Result<Response<VerifyEmailResponse>, Status> {
        closed()
    }

    async fn request_password_reset(
        &self,
        _: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<RequestPasswordResetResponse>, Status> {
        closed()
    }

    async fn reset_password(
        &self,
        _: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        closed()
    }

    async fn change_password(
        &self,
        _: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        closed()
    }

    async fn enroll_totp(&self, _: Request<EnrollTotpRequest>) -> Result<Response<EnrollTotpResponse>, Status> {
        closed()
    }

    async fn confirm_totp(&self, _: Request<ConfirmTotpRequest>) -> Result<Response<ConfirmTotpResponse>, Status> {
        closed()
    }

    async fn disable_totp(&self, _: Request<DisableTotpRequest>) -> Result<Response<DisableTotpResponse>, Status> {
        closed()
    }

    async fn regenerate_recovery_codes(
        &self,
        _: Request<RegenerateRecoveryCodesRequest>,
    ) -> Result<Response<RegenerateRecoveryCodesResponse>, Status> {
        closed()
    }

    async fn introspect_token(
        &self,
        _: Request<IntrospectTokenRequest>,
    ) -> Result<Response<IntrospectTokenResponse>, Status> {
        closed()
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

/// The seed of the key that vouches for the keys of access tokens.
pub(crate) const ROOT_SEED: [u8; 32] = [8; 32];

pub(crate) fn root_key() -> SigningKey {
    SigningKey::from_seed(&ROOT_SEED)
}

/// Each slice signs with a key of its own: one key for two would name the wrong one.
pub(crate) fn service_key(slice: &str) -> SigningKey {
    SigningKey::from_seed(&service_seed(slice))
}

pub(crate) fn service_seed(slice: &str) -> [u8; 32] {
    let mut seed = [9; 32];
    seed.iter_mut()
        .zip(slice.bytes())
        .for_each(|(byte, letter)| *byte = letter);
    seed
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
