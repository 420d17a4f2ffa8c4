//! The public keys that callers' tokens verify against, fetched from identity and kept.
//!
//! An unknown key id is asked for once, then taken as unknown for 10 s, and identity is asked at most once a second
//! whatever ids come: made-up ids cost it nothing, and hold up nobody here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use super::{authority::Authority, token::PublicKey};
use crate::error::{Error, Result};

const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// How often identity is asked for the sake of an unknown id.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Most calls that wait for an answer; more are refused at once.
const WAITING: usize = 16;
const REFRESH_EVERY: Duration = Duration::from_secs(60);

/// Access-token keys by id.
pub(crate) struct Keys {
    authority: Arc<dyn Authority>,
    known: RwLock<HashMap<String, PublicKey>>,
    unknown: Mutex<HashMap<String, Instant>>,
    waiting: tokio::sync::Semaphore,
    /// When identity was last asked, and whether it answered.
    asked: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl Keys {
    pub(crate) fn new(authority: Arc<dyn Authority>) -> Self {
        Keys {
            authority,
            known: RwLock::default(),
            unknown: Mutex::default(),
            waiting: tokio::sync::Semaphore::new(WAITING),
            asked: tokio::sync::Mutex::new(None),
        }
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
        let fetched = self.fetch().await;
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

    /// Whether there is a key at all: part of readiness.
    pub(crate) fn ready(&self) -> bool {
        !self
            .known
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .is_empty()
    }

    /// Fetches at start, as often as it takes, then every minute.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            let wait = match self.fetch().await {
                Ok(()) => REFRESH_EVERY,
                Err(error) => {
                    tracing::debug!(error = ?error, "signing keys cannot be fetched");
                    if self.ready() {
                        Duration::from_secs(5)
                    } else {
                        Duration::from_millis(100)
                    }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn fetch(&self) -> Result<()> {
        let keys = self.authority.signing_keys().await?;
        let keys = keys
            .iter()
            .filter_map(|key| PublicKey::parse(key))
            .map(|key| (key.id().to_owned(), key))
            .collect();
        *self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = keys;
        Ok(())
    }

    fn known(&self, id: &str) -> Option<PublicKey> {
        self.known
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .get(id)
            .cloned()
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;
    use uuid::Uuid;

    use super::*;
    use crate::{
        auth::{PermissionSet, token::SigningKey},
        ids::{OrgId, Principal},
    };

    #[derive(Default)]
    struct Asked {
        keys: AtomicU32,
        away: AtomicBool,
    }

    #[async_trait]
    impl Authority for Asked {
        async fn signing_keys(&self) -> Result<Vec<String>> {
            self.keys.fetch_add(1, Ordering::SeqCst);
            if self.away.load(Ordering::SeqCst) {
                return Err(unanswered("away"));
            }
            Ok(vec![SigningKey::from_seed(&[7; 32]).public_key()])
        }
        async fn permission_set(&self, _: OrgId, _: Principal) -> Result<(PermissionSet, i64)> {
            Ok((PermissionSet::none(), 0))
        }
        async fn session_active(&self, _: Uuid, _: Principal, _: i64) -> Result<bool> {
            Ok(false)
        }
        async fn exchange_api_key(&self, _: &str) -> Result<String> {
            Err(unanswered("no keys here"))
        }
    }

    #[tokio::test]
    async fn made_up_key_ids_ask_identity_once_however_many_there_are() {
        let asked = Arc::new(Asked::default());
        let keys = Keys::new(asked.clone());
        for number in 0..50 {
            assert!(keys.find(&format!("k4.pid.{number}")).await.unwrap().is_none());
        }
        assert_eq!(asked.keys.load(Ordering::SeqCst), 1);
        let known = SigningKey::from_seed(&[7; 32]);
        assert!(keys.find(known.key_id()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn with_identity_away_an_unknown_key_is_a_matter_of_availability_and_a_known_one_goes_on() {
        let asked = Arc::new(Asked::default());
        let keys = Keys::new(asked.clone());
        let known = SigningKey::from_seed(&[7; 32]);
        asked.away.store(true, Ordering::SeqCst);
        for _ in 0..50 {
            let refused = keys.find(known.key_id()).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unavailable);
        }
        assert_eq!(asked.keys.load(Ordering::SeqCst), 1);
        asked.away.store(false, Ordering::SeqCst);
        keys.fetch().await.unwrap();
        assert!(keys.find(known.key_id()).await.unwrap().is_some());
    }
}
