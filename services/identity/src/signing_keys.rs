//! Making, replacing and forgetting the keys that access tokens are signed with.
//!
//! A key is told to all verifiers before it signs, and is believed as long as its last token may live. Every replica looks
//! at the keys each second; the database's clock decides, and one row's lock lets only one replica change them.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use api::events::v1::{SigningKeysChanged, event::Payload};
use kit::{
    Error, Result,
    auth::{
        scope::WorkerScope,
        token::{self, KEY_SET_LIFETIME, KeySet, PublicKey},
    },
    crypto::{self, KeyRing},
    db::{Db, Tx},
    failpoint,
    ids::OrgId,
};
use secrecy::ExposeSecret;
use time::OffsetDateTime;

use crate::{
    model::{KeyState, SigningKey, Standing, Step},
    store::signing_key as store,
};

/// How often the keys are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The longest between two looks while the database does not answer.
const LONGEST: Duration = Duration::from_secs(15);

/// The installation's signing keys, and the root key that vouches for them.
pub(crate) struct SigningKeys {
    environment: Arc<str>,
    root: token::SigningKey,
    /// How long verifiers have to learn of a key before it signs.
    lead: Duration,
    db: Db,
    scope: WorkerScope,
    ring: Arc<KeyRing>,
    signing: RwLock<Option<Arc<token::SigningKey>>>,
}

impl SigningKeys {
    pub(crate) fn new(kit: &kit::service::Kit, root: token::SigningKey, lead: Duration) -> Self {
        SigningKeys {
            environment: kit.config.environment.clone(),
            root,
            lead,
            db: kit.db.clone(),
            scope: kit.scope(),
            ring: kit.ring.clone(),
            signing: RwLock::new(None),
        }
    }

    /// The key that signs now.
    ///
    /// # Errors
    /// DEPENDENCY_UNAVAILABLE before the database has answered once.
    pub(crate) fn current(&self) -> Result<Arc<token::SigningKey>> {
        let signing = self.signing.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        signing
            .clone()
            .ok_or_else(|| Error::unavailable("postgres", "no signing key is known yet"))
    }

    /// What verifiers are given: all believed keys, vouched for by the root key.
    pub(crate) async fn key_set(&self) -> Result<String> {
        let standing = self.refresh().await?;
        let keys: Option<_> = standing
            .keys
            .iter()
            .map(|key| PublicKey::parse(&key.public_key))
            .collect();
        let set = KeySet {
            version: standing.version,
            keys: keys.ok_or_else(|| Error::internal("a stored public key cannot be read"))?,
            expires_at: std::time::SystemTime::now() + KEY_SET_LIFETIME,
        };
        Ok(self.root.sign_keys(&self.environment, &set))
    }

    /// Looks at the keys, does what is due, and signs with what is active from here on.
    pub(crate) async fn refresh(&self) -> Result<Standing> {
        let mut standing = self.look().await?;
        if !standing.steps().is_empty() {
            self.db
                .write(&self.scope, async |tx| {
                    store::lock(tx).await?;
                    self.settle(tx, false).await
                })
                .await?;
            standing = self.look().await?;
        }
        let active = standing
            .active()
            .ok_or_else(|| Error::internal("no signing key is active"))?;
        let known = self.current().is_ok_and(|key| key.key_id() == active.id);
        if !known {
            let key = Arc::new(self.opened(active)?);
            *self.signing.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(key);
        }
        Ok(standing)
    }

    async fn look(&self) -> Result<Standing> {
        self.db.look(&self.scope, async |tx| store::standing(tx).await).await
    }

    /// Looks at the keys for as long as the service runs.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut pause = EVERY;
        loop {
            pause = match self.refresh().await {
                Ok(standing) => {
                    let next = standing.next_in().and_then(|next| next.try_into().ok());
                    EVERY.min(next.unwrap_or(EVERY)).max(Duration::from_millis(50))
                }
                Err(error) => {
                    let next = (pause * 2).min(LONGEST);
                    tracing::warn!(
                        ?error,
                        retry_in_ms = next.as_millis() as u64,
                        "signing keys are not looked after"
                    );
                    next
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes a key that signs once verifiers had time to learn of it.
    pub(crate) async fn rotate(&self, tx: &mut Tx) -> Result<SigningKey> {
        store::lock(tx).await?;
        let key = self.insert(tx, false).await?;
        self.settle(tx, true).await?;
        let made = store::find(tx, &key.id).await?;
        made.ok_or_else(|| Error::internal("a key that was just made is gone"))
    }

    /// Drops a key; the active one is replaced at once. One that is revoked already stays as it is.
    ///
    /// # Errors
    /// RESOURCE_NOT_FOUND.
    pub(crate) async fn revoke(&self, tx: &mut Tx, id: &str) -> Result<SigningKey> {
        store::lock(tx).await?;
        let known = store::find(tx, id).await?;
        let known = known.ok_or_else(|| Error::not_found("signing_key", id))?;
        if known.state == KeyState::Revoked {
            return Ok(known);
        }
        let revoked = store::update_revoked(tx, id).await?;
        self.settle(tx, true).await?;
        Ok(revoked)
    }

    /// Does what is due, under the lock, and tells verifiers of a set that `changed` or changes by it.
    async fn settle(&self, tx: &mut Tx, mut changed: bool) -> Result<()> {
        let standing = store::standing(tx).await?;
        for step in standing.steps() {
            match step {
                Step::Begin => {
                    self.insert(tx, true).await?;
                    changed = true;
                }
                Step::Replace => {
                    let key = self.insert(tx, false).await?;
                    tx.acted("RotateSigningKey", &key);
                    changed = true;
                }
                Step::Activate(id) => store::update_active(tx, &id).await?,
                Step::Retire(id) => store::update_retired(tx, &id).await?,
                Step::Drop(id) => {
                    store::update_dropped(tx, &id).await?;
                    changed = true;
                }
            }
        }
        if changed {
            let version = store::bump(tx).await?;
            // Nobody knows of a set before the first.
            if standing.version > 0 {
                tx.tell_in(
                    OrgId::PLATFORM,
                    Payload::SigningKeysChanged(SigningKeysChanged { version }),
                );
            }
        }
        Ok(())
    }

    async fn insert(&self, tx: &mut Tx, active: bool) -> Result<SigningKey> {
        let seed = secrecy::SecretBox::init_with(crypto::random::<32>);
        let key = token::SigningKey::from_seed(seed.expose_secret());
        let sealed = self.ring.seal(seed.expose_secret(), key.key_id().as_bytes());
        let now: OffsetDateTime = store::standing(tx).await?.now;
        let (state, activates_at) = if active {
            (KeyState::Active, now)
        } else if failpoint::without("identity.publish_lead") {
            (KeyState::Pending, now)
        } else {
            (KeyState::Pending, now + self.lead)
        };
        store::insert(tx, key.key_id(), &key.public_key(), &sealed, state, activates_at).await
    }

    fn opened(&self, key: &SigningKey) -> Result<token::SigningKey> {
        let sealed = key.seed.as_deref().unwrap_or_default();
        let seed = self
            .ring
            .open(sealed, key.id.as_bytes())
            .map_err(|error| Error::internal(format!("a signing key's seed cannot be opened: {error}")))?;
        let seed: &[u8; 32] = seed
            .expose_secret()
            .try_into()
            .map_err(|_| Error::internal("a signing key's seed has not 32 bytes"))?;
        let opened = token::SigningKey::from_seed(seed);
        if opened.key_id() == key.id {
            Ok(opened)
        } else {
            Err(Error::internal("a signing key's seed is of another key"))
        }
    }
}
