//! Job credentials: what a runner's job may do, as pipelines says.
//!
//! An answer is good for 2 s, so a job that has ended is admitted for at most that long. While pipelines does not answer,
//! the last answer stays good for as long as pipelines said that it would, and never longer.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api::pipelines::v1::{CheckJobCredentialRequest, job_service_client::JobServiceClient};
use async_trait::async_trait;
use lru::LruCache;
use uuid::Uuid;

use super::permission::PermissionSet;
use crate::{
    crypto::KeyRing,
    error::{Error, Reason, Result},
    ids::{self, OrgId, Principal},
    rpc::client::{PeerChannel, Peers, peer_error},
};

/// How a job credential starts.
pub(super) const PREFIX: &str = "b3j_";

/// How long an answer is good without asking again.
const FRESH: Duration = Duration::from_secs(2);
/// How long a credential that pipelines refused is refused without asking.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// How long after a question without an answer the next one is asked.
const AWAY_FOR: Duration = Duration::from_secs(1);
/// Bounds each answer of pipelines.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest credential that is asked about, in bytes.
const LONGEST: usize = 256;
/// Most questions at once; credentials that share a lane wait for each other.
const LANES: usize = 32;
const ENTRIES: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// What a job credential opens: one design and one state of one organization, on behalf of one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: Uuid,
    pub(crate) org: OrgId,
    pub(crate) permissions: Arc<PermissionSet>,
    /// UUID of the design.
    pub(crate) design: String,
    /// Name of the state.
    pub(crate) state: String,
    /// UUID of the execution that the job belongs to.
    pub(crate) execution: String,
}

impl Job {
    pub(crate) fn principal(&self) -> Principal {
        Principal::Job(self.id)
    }

    /// The only thing of a kind that the job may touch.
    pub(crate) fn bound(&self, kind: &str) -> Option<&str> {
        let name = match kind {
            "design" => &self.design,
            "state" => &self.state,
            "execution" => &self.execution,
            _ => return None,
        };
        (!name.is_empty()).then_some(name)
    }
}

/// Who knows about jobs: pipelines.
#[async_trait]
pub(crate) trait JobAuthority: Send + Sync + 'static {
    /// What a credential opens, and for how long that holds where it cannot be asked again.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID for one that is unknown or has ended; DEPENDENCY_UNAVAILABLE.
    async fn check(&self, credential: &str) -> Result<(Job, Duration)>;
}

/// What is known of job credentials.
pub(super) struct Jobs {
    pipelines: Arc<dyn JobAuthority>,
    ring: Arc<KeyRing>,
    known: Mutex<LruCache<[u8; 32], Known>>,
    asking: [tokio::sync::Mutex<()>; LANES],
}

/// What became of the last question about a credential, and when the next one is due.
enum Known {
    Good {
        job: Arc<Job>,
        until: Instant,
        due: Instant,
    },
    Refused {
        due: Instant,
    },
    Away {
        due: Instant,
    },
}

impl Jobs {
    pub(super) fn new(pipelines: Arc<dyn JobAuthority>, ring: Arc<KeyRing>) -> Self {
        Jobs {
            pipelines,
            ring,
            known: Mutex::new(LruCache::new(ENTRIES)),
            asking: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        }
    }

    /// The job that a credential belongs to.
    ///
    /// Each credential is asked about once at a time; `charge` runs before one is asked about that is not known to be good.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID; DEPENDENCY_UNAVAILABLE where pipelines must be asked and does not answer.
    pub(super) async fn find(&self, credential: &str, charge: impl AsyncFnOnce() -> Result<()>) -> Result<Arc<Job>> {
        if credential.len() > LONGEST || !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("a malformed job credential"));
        }
        let digest = self.ring.keyed_hash("board3 job credential", credential.as_bytes());
        if let Some(answer) = self.recalled(&digest) {
            return answer;
        }
        let _one_at_a_time = self.asking[usize::from(digest[0]) % LANES].lock().await;
        if let Some(answer) = self.recalled(&digest) {
            return answer;
        }
        if !matches!(self.known().peek(&digest), Some(Known::Good { .. })) {
            charge().await?;
        }
        let asked = Instant::now();
        let answer = tokio::time::timeout(ANSWER, self.pipelines.check(credential))
            .await
            .unwrap_or_else(|_| Err(Error::unavailable("pipelines", "no answer in time")));
        self.learned(digest, asked, answer)
    }

    /// What is remembered of a credential, if it need not be asked about.
    fn recalled(&self, digest: &[u8; 32]) -> Option<Result<Arc<Job>>> {
        let now = Instant::now();
        match self.known().get(digest)? {
            Known::Good { job, until, due } if now < *due && now < *until => Some(Ok(job.clone())),
            Known::Refused { due } if now < *due => Some(Err(invalid("a job credential refused a moment ago"))),
            Known::Away { due } if now < *due => Some(Err(Error::unavailable("pipelines", "away a moment ago"))),
            Known::Good { .. } | Known::Refused { .. } | Known::Away { .. } => None,
        }
    }

    /// Remembers an answer. What holds "from now" is counted from the question on, which is never too long.
    fn learned(&self, digest: [u8; 32], asked: Instant, answer: Result<(Job, Duration)>) -> Result<Arc<Job>> {
        let now = Instant::now();
        let mut known = self.known();
        match answer {
            Ok((job, holds)) => {
                let job = Arc::new(job);
                let good = Known::Good {
                    job: job.clone(),
                    until: asked + holds.min(Duration::from_secs(24 * 60 * 60)),
                    due: asked + FRESH,
                };
                known.put(digest, good);
                Ok(job)
            }
            Err(error) if error.code() == tonic::Code::Unavailable => {
                if let Some(Known::Good { job, until, due }) = known.get_mut(&digest)
                    && now < *until
                {
                    *due = now + AWAY_FOR;
                    return Ok(job.clone());
                }
                known.put(digest, Known::Away { due: now + AWAY_FOR });
                Err(error)
            }
            Err(error) => {
                if error.reason() == Reason::CredentialInvalid {
                    known.put(digest, Known::Refused { due: now + REFUSED_FOR });
                }
                Err(error)
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, LruCache<[u8; 32], Known>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// As if all that is known had been learned so much earlier.
    #[cfg(test)]
    pub(super) fn age(&self, by: Duration) {
        for (_, known) in self.known().iter_mut() {
            match known {
                Known::Good { until, due, .. } => {
                    *until -= by;
                    *due -= by;
                }
                Known::Refused { due } | Known::Away { due } => *due -= by,
            }
        }
    }
}

/// Asks the pipelines service.
pub(crate) struct RemoteJobs(JobServiceClient<PeerChannel>);

impl RemoteJobs {
    pub(crate) fn new(peers: &Peers) -> Self {
        RemoteJobs(JobServiceClient::new(peers.channel("pipelines")))
    }
}

#[async_trait]
impl JobAuthority for RemoteJobs {
    async fn check(&self, credential: &str) -> Result<(Job, Duration)> {
        let request = CheckJobCredentialRequest {
            job_credential: credential.to_owned(),
        };
        let answer = match self.0.clone().check_job_credential(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status)
                if matches!(
                    status.code(),
                    tonic::Code::Unauthenticated | tonic::Code::InvalidArgument
                ) =>
            {
                return Err(Error::new(Reason::CredentialInvalid, "the credential is not valid").with_source(status));
            }
            Err(status) => return Err(peer_error("pipelines", status)),
        };
        let malformed = |_| Error::internal("pipelines answered a malformed id");
        let job = Job {
            id: ids::parse(&answer.job_id).map_err(malformed)?,
            org: answer.organization_id.parse().map_err(malformed)?,
            permissions: Arc::new(PermissionSet::resolve(&answer.permissions)),
            design: answer.design_id,
            state: answer.state_name,
            execution: answer.execution_id,
        };
        let holds = answer
            .expires_in
            .and_then(|holds| Duration::try_from(holds).ok())
            .unwrap_or_default();
        Ok((job, holds))
    }
}

fn invalid(why: &'static str) -> Error {
    Error::new(Reason::CredentialInvalid, "the credential is not valid").with_source(why)
}
