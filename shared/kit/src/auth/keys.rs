//! The public keys that callers' tokens verify against, fetched from identity and kept.
//!
//! An unknown key id is asked for once, then taken as unknown for 10 s, so that made-up ids cost identity nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use super::{authority::Authority, token::PublicKey};
use crate::error::Result;

const UNKNOWN_FOR: Duration = Duration::from_secs(10);
const REFRESH_EVERY: Duration = Duration::from_secs(60);

/// Access-token keys by id.
pub(crate) struct Keys {
    authority: Arc<dyn Authority>,
    known: RwLock<HashMap<String, PublicKey>>,
    unknown: Mutex<HashMap<String, Instant>>,
    fetching: tokio::sync::Mutex<()>,
}

impl Keys {
    pub(crate) fn new(authority: Arc<dyn Authority>) -> Self {
        Keys {
            authority,
            known: RwLock::default(),
            unknown: Mutex::default(),
            fetching: tokio::sync::Mutex::new(()),
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
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(key) = self.known(id) {
            return Ok(Some(key));
        }
        if self.taken_as_unknown(id) {
            return Ok(None);
        }
        self.fetch().await?;
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
