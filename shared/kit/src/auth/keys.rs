//! The public keys that callers' tokens verify against, fetched from identity and kept.
//!
//! A set of keys is taken only if the pinned root key vouches for it in this environment, it is not over, and it is not
//! older than the known one; a refused set leaves the known one in force.
//! An unknown key id is asked for once, then taken as unknown for 10 s, and identity is asked at most once a second
//! whatever ids come: made-up ids cost it nothing, and hold up nobody here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use super::{
    authority::Authority,
    token::{self, KeySet, PublicKey, Refused},
};
use crate::{
    error::{Error, Result},
    failpoint,
};

const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// How often identity is asked for the sake of an unknown id.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Most calls that wait for an answer; more are refused at once.
const WAITING: usize = 16;
/// How often the set is fetched where no event tells of a new one.
pub const REFRESH_EVERY: Duration = Duration::from_secs(60);

/// Access-token keys by id.
pub(crate) struct Keys {
    authority: Arc<dyn Authority>,
    environment: Arc<str>,
    root: PublicKey,
    known: RwLock<Known>,
    unknown: Mutex<HashMap<String, Instant>>,
    waiting: tokio::sync::Semaphore,
    /// When identity was last asked for an unknown id, and whether it answered. Held while the set is fetched, so that
    /// an earlier answer never comes after a later one.
    asked: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// The newest version that an event told of.
    told: watch::Receiver<i64>,
    figures: Arc<Figures>,
}

/// The set in force; at first none.
struct Known {
    version: i64,
    expires_at: SystemTime,
    keys: HashMap<String, PublicKey>,
}

/// How sets were fetched and judged.
#[derive(Default)]
pub(crate) struct Figures {
    unknown: AtomicU64,
    fresh: AtomicU64,
    refused: AtomicU64,
    version: AtomicI64,
}

/// Why a set is fetched.
#[derive(Clone, Copy)]
enum Why {
    Unknown,
    Fresh,
}

impl Figures {
    /// What was fetched and why, for `/health/metrics`.
    pub(crate) fn fetched(&self) -> Vec<(String, f64)> {
        [
            ("unknown", &self.unknown),
            ("fresh", &self.fresh),
            ("refused", &self.refused),
        ]
        .map(|(why, count)| (format!("why=\"{why}\""), count.load(Ordering::Relaxed) as f64))
        .into()
    }

    /// The version of the set in force, 0 for none.
    pub(crate) fn version(&self) -> i64 {
        self.version.load(Ordering::Relaxed)
    }
}

impl Known {
    fn find(&self, id: &str) -> Option<&PublicKey> {
        self.keys.get(id).filter(|_| SystemTime::now() < self.expires_at)
    }
}

impl Keys {
    pub(crate) fn new(
        authority: Arc<dyn Authority>,
        environment: Arc<str>,
        root: PublicKey,
        told: watch::Receiver<i64>,
    ) -> Self {
        Keys {
            authority,
            environment,
            root,
            known: RwLock::new(Known {
                version: i64::MIN,
                expires_at: SystemTime::UNIX_EPOCH,
                keys: HashMap::new(),
            }),
            unknown: Mutex::default(),
            waiting: tokio::sync::Semaphore::new(WAITING),
            asked: tokio::sync::Mutex::new(None),
            told,
            figures: Arc::default(),
        }
    }

    /// What became of the sets so far.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    /// The key with this id; `None` if identity does not know it either.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<PublicKey>> {
        if let Some(key) = self.known(id) {
            return Ok(Some(key));
        }
        if self.taken_as_unknown(id) {
            return Ok(None);
        }
        let _place = self
            .waiting
            .try_acquire()
            .map_err(|_| unanswered("too many calls wait for its keys"))?;
        let mut asked = self.asked.lock().await;
        if let Some(key) = self.known(id) {
            return Ok(Some(key));
        }
        if self.taken_as_unknown(id) {
            return Ok(None);
        }
        if let Some((when, answered)) = *asked
            && when.elapsed() < ASKED_EVERY
        {
            return if answered {
                Ok(None)
            } else {
                Err(unanswered("it did not answer a moment ago"))
            };
        }
        let fetched = self.fetch(Why::Unknown).await;
        *asked = Some((Instant::now(), fetched.is_ok()));
        fetched?;
        let found = self.known(id);
        if found.is_none() {
            let mut unknown = self.unknown.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            unknown.retain(|_, since| since.elapsed() < UNKNOWN_FOR);
            if unknown.len() < 10_000 {
                unknown.insert(id.to_owned(), Instant::now());
            }
        }
        Ok(found)
    }

    /// Whether tokens of this key are believed now: what was verified with it before is worth nothing once it is dropped.
    pub(crate) fn believed(&self, id: &str) -> bool {
        failpoint::without("keys.believed") || self.read().find(id).is_some()
    }

    /// Whether there is a key at all: part of readiness.
    pub(crate) fn ready(&self) -> bool {
        let known = self.read();
        !known.keys.is_empty() && SystemTime::now() < known.expires_at
    }

    /// Fetches at start, as often as it takes, then at once when an event tells of a new set, and every minute.
    pub(crate) async fn keep_fresh(&self) {
        let mut told = self.told.clone();
        loop {
            let newest = *told.borrow_and_update();
            let wait = match self.refresh().await {
                Ok(()) => REFRESH_EVERY,
                Err(error) => {
                    tracing::debug!(error = ?error, "signing keys cannot be fetched");
                    if !self.ready() {
                        Duration::from_millis(100)
                    } else if self.figures.version() < newest {
                        Duration::from_millis(250)
                    } else {
                        Duration::from_secs(5)
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = told.changed() => {}
            }
        }
    }

    /// Fetches the set, whoever else does.
    pub(crate) async fn refresh(&self) -> Result<()> {
        failpoint::hit_in("keys.refresh", &self.environment).await?;
        let _one_at_a_time = self.asked.lock().await;
        self.fetch(Why::Fresh).await
    }

    async fn fetch(&self, why: Why) -> Result<()> {
        let fetched = match why {
            Why::Unknown => &self.figures.unknown,
            Why::Fresh => &self.figures.fresh,
        };
        fetched.fetch_add(1, Ordering::Relaxed);
        let text = self.authority.signing_keys().await?;
        self.take(&text).map_err(|why| {
            self.figures.refused.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                why,
                "a set of signing keys is refused, and the known one stays in force"
            );
            unanswered("its set of signing keys is refused")
        })
    }

    /// Puts a set in force, or says why not.
    pub(super) fn take(&self, text: &str) -> Result<(), &'static str> {
        let set = self.judged(text)?;
        let mut known = self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if set.version < known.version && !failpoint::without("keys.rollback") {
            return Err("it is older than the known one");
        }
        if set.version > known.version {
            self.unknown
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .clear();
        }
        self.figures.version.store(set.version, Ordering::Relaxed);
        *known = Known {
            version: set.version,
            expires_at: set.expires_at,
            keys: set.keys.into_iter().map(|key| (key.id().to_owned(), key)).collect(),
        };
        Ok(())
    }

    fn judged(&self, text: &str) -> Result<KeySet, &'static str> {
        let verified = if failpoint::without("keys.signature") {
            token::unverified_keys(text)
        } else {
            self.root.verify_keys(&self.environment, text)
        };
        let set = verified.map_err(|refused| match refused {
            Refused::Malformed => "it is malformed",
            Refused::UnknownKey => "another root key signed it",
            Refused::Forged | Refused::Expired => "it is forged or of another environment",
        })?;
        if SystemTime::now() >= set.expires_at && !failpoint::without("keys.expiry") {
            return Err("it is over");
        }
        Ok(set)
    }

    fn known(&self, id: &str) -> Option<PublicKey> {
        self.read().find(id).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn taken_as_unknown(&self, id: &str) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        unknown.get(id).is_some_and(|since| since.elapsed() < UNKNOWN_FOR)
    }
}

fn unanswered(why: &'static str) -> Error {
    Error::unavailable("identity", why)
}

#[cfg(test)]
mod tests;
