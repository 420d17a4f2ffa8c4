//! The one gate: credentials and an RPC's policy in, a scope out.
//!
//! Nothing else in the suite makes a scope, for gRPC and for HTTP alike.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api::{events::v1::Outcome, policy};
use lru::LruCache;

use super::{
    authority::Authority,
    jobs::{self, Job, JobAuthority, Jobs},
    keys::Keys,
    permission::PermissionSet,
    revocation::{Feed, Revocations},
    scope::{Call, OrgScope, PeerScope, PublicScope, Scope, Tenancy, UserScope},
    token::{self, AccessClaims, PublicKey},
};
use crate::{
    config::{Config, SLICES},
    crypto::{ApiKey, KeyRing},
    db::{Db, Refusal},
    error::{Error, Reason, Result},
    ids::{OrgId, Principal},
    lanes::Lanes,
};

/// How long a verified token is remembered; its revocation is checked on every call all the same.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long a permission set is kept; its key holds the version, so nothing stale is found in it.
const PERMISSIONS_KEPT: Duration = Duration::from_secs(30 * 60);
/// How long an API key's token is used before identity is asked again, which notes that the key is in use: with what identity
/// itself leaves out, `last_used_at` is a minute late at most.
const REUSED: Duration = Duration::from_secs(30);
/// How long identity has for that, before it is asked once more; longer than a call to it may take.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);
/// How long an API key that identity refused is refused without asking.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// The longest credential that is looked at, in bytes.
const LONGEST: usize = 2048;
const ENTRIES: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

type PermissionKey = (OrgId, Principal, i64);

/// Verifies callers and admits them to RPCs.
pub struct Gate {
    environment: Arc<str>,
    authority: Arc<dyn Authority>,
    keys: Keys,
    peers: HashMap<String, (&'static str, PublicKey)>,
    revocations: Arc<Revocations>,
    verified: Mutex<LruCache<[u8; 32], (AccessClaims, Instant)>>,
    exchanged: Mutex<LruCache<[u8; 32], Exchanged>>,
    exchanging: Lanes,
    permissions: Mutex<LruCache<PermissionKey, (Arc<PermissionSet>, Instant)>>,
    jobs: Jobs,
    ring: Arc<KeyRing>,
    db: Db,
}

/// What became of an API key's exchange.
enum Exchanged {
    /// What its token says, the id of the key that signed it, and until when nobody is asked again.
    For(AccessClaims, String, Instant),
    Refused(Instant),
}

/// Who calls, before any permission is looked at.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Nobody,
    Someone(AccessClaims),
    Job(Arc<Job>),
    Peer(&'static str),
}

impl Caller {
    /// In whose name the call is counted; nobody's for strangers and peers.
    pub(crate) fn counted(&self) -> Option<Principal> {
        match self {
            Caller::Someone(claims) => Some(claims.principal),
            Caller::Job(job) => Some(job.principal()),
            Caller::Nobody | Caller::Peer(_) => None,
        }
    }
}

impl Gate {
    pub(crate) fn new(
        config: &Config,
        authority: Arc<dyn Authority>,
        jobs: Arc<dyn JobAuthority>,
        revocations: Arc<Revocations>,
        db: Db,
    ) -> Arc<Self> {
        let peers = SLICES
            .iter()
            .filter_map(|(slice, _, _)| {
                let key = PublicKey::parse(config.peer_keys.get(*slice)?)?;
                Some((key.id().to_owned(), (*slice, key)))
            })
            .collect();
        Arc::new(Gate {
            environment: config.environment.clone(),
            keys: Keys::new(
                authority.clone(),
                config.environment.clone(),
                config.root_key.clone(),
                revocations.keys_told(),
            ),
            authority,
            peers,
            revocations,
            verified: Mutex::new(LruCache::new(ENTRIES)),
            exchanged: Mutex::new(LruCache::new(ENTRIES)),
            exchanging: Lanes::default(),
            permissions: Mutex::new(LruCache::new(ENTRIES)),
            jobs: Jobs::new(jobs, config.ring.clone()),
            ring: config.ring.clone(),
            db,
        })
    }

    /// Admits a caller to an RPC.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID, SESSION_REVOKED, CALLER_NOT_ALLOWED, PERMISSION_MISSING, ORGANIZATION_REQUIRED,
    /// REVOCATION_UNKNOWN; DEPENDENCY_UNAVAILABLE when identity must be asked and does not answer.
    /// Revocations are not asked about jobs: what pipelines said of one is never older than it may be.
    /// A caller who is known and refused leaves a row in the audit trail.
    pub(crate) async fn admit(&self, caller: Caller, call: Arc<Call>) -> Result<Scope> {
        let method = call.method;
        let claims = match (method.scope, caller) {
            (policy::Scope::Public, _) => return Ok(Scope::Public(PublicScope { call })),
            (_, Caller::Nobody) => return Err(Error::new(Reason::CredentialInvalid, "a credential is needed")),
            (policy::Scope::Peer, Caller::Peer(slice))
                if method.peers.iter().any(|peer| *peer == "*" || *peer == slice) =>
            {
                return Ok(Scope::Peer(PeerScope { call, slice }));
            }
            (_, Caller::Peer(slice)) => {
                let error = Error::new(Reason::CallerNotAllowed, "this RPC is not for this service");
                let peer = Tenancy {
                    org: OrgId::PLATFORM,
                    principal: Principal::Service(slice),
                };
                self.record_denial(peer, call, &error).await;
                return Err(error);
            }
            (_, Caller::Job(job)) => {
                let who = Tenancy {
                    org: job.org,
                    principal: job.principal(),
                };
                let outcome = permitted_job(job, &call);
                return self.denial_recorded(who, call, outcome).await;
            }
            (_, Caller::Someone(claims)) => claims,
        };
        self.not_revoked(&claims, method.sensitive).await?;
        let who = Tenancy {
            org: claims.org.unwrap_or(OrgId::PLATFORM),
            principal: claims.principal,
        };
        let outcome = self.permitted(&claims, &call).await;
        self.denial_recorded(who, call, outcome).await
    }

    async fn denial_recorded(&self, who: Tenancy, call: Arc<Call>, outcome: Result<Scope>) -> Result<Scope> {
        if let Err(error) = &outcome
            && error.code() == tonic::Code::PermissionDenied
        {
            self.record_denial(who, call, error).await;
        }
        outcome
    }

    /// The service that a bearer credential belongs to, if it is one's own token. Asks nobody.
    pub(crate) fn recognize_peer(&self, credential: Option<&str>) -> Option<&'static str> {
        let credential = credential.filter(|credential| credential.len() <= LONGEST)?;
        let (slice, key) = self.peers.get(&token::key_id(credential).ok()?)?;
        let named = key.verify_service(&self.environment, credential).ok()?;
        (named == *slice).then_some(slice)
    }

    /// Who a bearer credential belongs to: an access token, an API key, or a job's credential.
    ///
    /// `charge` runs before anybody is asked about a key or a job that is not known here, so that made-up keys are paid for
    /// by the address that sends them, and not by this service's good name.
    pub(crate) async fn authenticate(
        self: &Arc<Self>,
        credential: Option<&str>,
        charge: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Caller> {
        let Some(credential) = credential else {
            return Ok(Caller::Nobody);
        };
        if credential.len() > LONGEST {
            return Err(invalid("malformed"));
        }
        if credential.starts_with(jobs::PREFIX) {
            return Ok(Caller::Job(self.jobs.find(credential, charge).await?));
        }
        if credential.starts_with("b3_") {
            return Ok(Caller::Someone(self.exchange(credential, charge).await?));
        }
        let id = token::key_id(credential).map_err(|_| invalid("malformed"))?;
        if self.peers.contains_key(&id) {
            return Err(invalid("a service's token that is refused"));
        }
        Ok(Caller::Someone(self.verify(&id, credential).await?))
    }

    /// Whether the keys to verify callers with are there.
    pub(crate) fn ready(&self) -> bool {
        self.keys.ready()
    }

    /// The keys that callers' tokens verify against.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Keeps the keys fresh for as long as the service runs.
    pub(crate) async fn keep_keys_fresh(&self) {
        self.keys.keep_fresh().await;
    }

    async fn verify(&self, key_id: &str, credential: &str) -> Result<AccessClaims> {
        let digest = *blake3::hash(credential.as_bytes()).as_bytes();
        if let Some((claims, since)) = lock(&self.verified).get(&digest)
            && since.elapsed() < REMEMBERED
            && self.keys.believed(key_id)
            && claims.expires_at > std::time::SystemTime::now()
        {
            return Ok(claims.clone());
        }
        let key = self
            .keys
            .find(key_id)
            .await?
            .ok_or_else(|| invalid("signed with an unknown key"))?;
        let claims = key
            .verify_access(&self.environment, credential)
            .map_err(|refused| match refused {
                token::Refused::Expired => invalid("expired"),
                _ => invalid("refused"),
            })?;
        lock(&self.verified).put(digest, (claims.clone(), Instant::now()));
        Ok(claims)
    }

    /// An API key is exchanged for a token, whose claims are remembered under a keyed hash until they end. Identity is asked
    /// again long before that; nobody waits for its answer, and while there is none, the claims are good.
    /// Each key is exchanged once at a time, and one that identity refused is not asked about again for a moment.
    async fn exchange(self: &Arc<Self>, key: &str, charge: impl AsyncFnOnce() -> Result<()>) -> Result<AccessClaims> {
        let parsed = ApiKey::parse(key).map_err(|_| invalid("a malformed API key"))?;
        if parsed.env() != &*self.environment {
            return Err(invalid("an API key of another environment"));
        }
        let digest = self.ring.keyed_hash("board3 exchanged api key", key.as_bytes());
        if let Some(answer) = self.exchanged(&digest, &parsed) {
            return answer;
        }
        let _one_at_a_time = self.exchanging.enter(&digest).await;
        if let Some(answer) = self.exchanged(&digest, &parsed) {
            return answer;
        }
        charge().await?;
        self.ask(digest, &parsed).await
    }

    /// What is remembered of a key's exchange; what is old is good for this call, and is renewed meanwhile.
    fn exchanged(self: &Arc<Self>, digest: &[u8; 32], key: &ApiKey) -> Option<Result<AccessClaims>> {
        match lock(&self.exchanged).get_mut(digest)? {
            Exchanged::For(claims, key_id, until) if self.good(claims, key_id) => {
                if *until <= Instant::now() {
                    *until = Instant::now() + RENEWED_WITHIN;
                    let (gate, digest, key) = (self.clone(), *digest, key.clone());
                    tokio::spawn(async move {
                        if let Err(error) = gate.ask(digest, &key).await {
                            tracing::debug!(%error, "an API key's token was not renewed");
                        }
                    });
                }
                Some(Ok(claims.clone()))
            }
            Exchanged::Refused(since) if since.elapsed() < REFUSED_FOR => {
                Some(Err(invalid("an API key refused a moment ago")))
            }
            Exchanged::For(..) | Exchanged::Refused(_) => None,
        }
    }

    /// Asks identity about a key, and remembers its word; where it has none, what was remembered stays.
    async fn ask(&self, digest: [u8; 32], key: &ApiKey) -> Result<AccessClaims> {
        let token = match self.authority.exchange_api_key(key.expose()).await {
            Ok(token) => token,
            Err(error) => {
                if error.reason() == Reason::CredentialInvalid {
                    lock(&self.exchanged).put(digest, Exchanged::Refused(Instant::now()));
                }
                return Err(error);
            }
        };
        let id = token::key_id(&token).map_err(|_| Error::internal("identity answered a malformed token"))?;
        let claims = self.verify(&id, &token).await?;
        let until = Instant::now() + REUSED;
        lock(&self.exchanged).put(digest, Exchanged::For(claims.clone(), id, until));
        Ok(claims)
    }

    fn good(&self, claims: &AccessClaims, key_id: &str) -> bool {
        claims.expires_at > std::time::SystemTime::now() && self.keys.believed(key_id)
    }

    async fn not_revoked(&self, claims: &AccessClaims, sensitive: bool) -> Result<()> {
        if self.revocations.revoked(claims) {
            return Err(session_over());
        }
        if !sensitive {
            return Ok(());
        }
        match self.revocations.feed() {
            Feed::Live => Ok(()),
            Feed::Lagging => {
                let active = self
                    .authority
                    .session_active(claims.session, claims.principal, claims.epoch)
                    .await
                    .map_err(|error| {
                        Error::new(Reason::RevocationUnknown, "revocations cannot be checked just now")
                            .retry_after(Duration::from_secs(1))
                            .with_source(error)
                    })?;
                if active { Ok(()) } else { Err(session_over()) }
            }
            Feed::Lost => Err(
                Error::new(Reason::RevocationUnknown, "revocations cannot be checked just now")
                    .retry_after(Duration::from_secs(5)),
            ),
        }
    }

    async fn permitted(&self, claims: &AccessClaims, call: &Arc<Call>) -> Result<Scope> {
        let method = call.method;
        match method.scope {
            policy::Scope::User => {
                let user = claims
                    .principal
                    .user()
                    .ok_or_else(|| Error::new(Reason::CallerNotAllowed, "this RPC is for signed-in users"))?;
                Ok(Scope::User(UserScope {
                    call: call.clone(),
                    user,
                    org: claims.org,
                    session: claims.session,
                }))
            }
            policy::Scope::Organization => {
                let org = claims.org.ok_or_else(|| {
                    Error::new(
                        Reason::OrganizationRequired,
                        "the token names no organization; call SwitchOrganization",
                    )
                })?;
                let permissions = self.permissions(org, claims, method.sensitive).await?;
                holds(&permissions, method)?;
                Ok(Scope::Org(OrgScope {
                    call: call.clone(),
                    org,
                    principal: claims.principal,
                    permissions,
                    job: None,
                }))
            }
            policy::Scope::Peer => Err(Error::new(
                Reason::CallerNotAllowed,
                "this RPC is for services of the suite",
            )),
            policy::Scope::Public => Ok(Scope::Public(PublicScope { call: call.clone() })),
        }
    }

    async fn permissions(&self, org: OrgId, claims: &AccessClaims, sensitive: bool) -> Result<Arc<PermissionSet>> {
        let version = self.revocations.permission_version(org, claims.permission_version);
        let key = (org, claims.principal, version);
        // With a feed that lags, the version may be old: a sensitive call asks anew.
        let trusted = !sensitive || self.revocations.feed() == Feed::Live;
        if trusted
            && let Some((permissions, since)) = lock(&self.permissions).get(&key)
            && since.elapsed() < PERMISSIONS_KEPT
        {
            return Ok(permissions.clone());
        }
        let (permissions, _) = self.authority.permission_set(org, claims.principal).await?;
        let permissions = Arc::new(permissions);
        lock(&self.permissions).put(key, (permissions.clone(), Instant::now()));
        Ok(permissions)
    }

    /// Writes a refusal of a known caller to the audit trail.
    pub(crate) async fn record_denial(&self, who: Tenancy, call: Arc<Call>, error: &Error) {
        let refusal = Refusal {
            org: who.org,
            actor: who.principal,
            outcome: Outcome::Denied,
            about: None,
        };
        let scope = PublicScope { call };
        if let Err(failure) = self.db.refuse(&scope, refusal, error).await {
            tracing::warn!(error = ?failure, "a denial could not be recorded");
        }
    }
}

/// Jobs call RPCs of organizations, with the permissions that pipelines gave them.
fn permitted_job(job: Arc<Job>, call: &Arc<Call>) -> Result<Scope> {
    if call.method.scope != policy::Scope::Organization {
        return Err(Error::new(Reason::CallerNotAllowed, "this RPC is not for jobs"));
    }
    holds(&job.permissions, call.method)?;
    Ok(Scope::Org(OrgScope {
        call: call.clone(),
        org: job.org,
        principal: job.principal(),
        permissions: job.permissions.clone(),
        job: Some(job),
    }))
}

fn holds(permissions: &PermissionSet, method: &policy::Method) -> Result<()> {
    if permissions.holds(method.permission) {
        return Ok(());
    }
    Err(Error::new(
        Reason::PermissionMissing,
        format!("the permission {} is needed", method.permission),
    )
    .with("permission", method.permission))
}

fn invalid(why: &'static str) -> Error {
    // One text for all: a forger learns nothing from it.
    Error::new(Reason::CredentialInvalid, "the credential is not valid").with_source(why)
}

fn session_over() -> Error {
    Error::new(Reason::SessionRevoked, "the session has ended")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub mod measure;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod exchange_tests;

#[cfg(test)]
mod job_tests;

#[cfg(test)]
mod key_tests;
