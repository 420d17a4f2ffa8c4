//! The gate's verification by itself, for figures: no server, no database, no peer.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{Caller, Gate, invalid, lock};
use crate::{
    auth::{
        authority::Authority,
        jobs::{Job, JobAuthority},
        permission::PermissionSet,
        revocation::Revocations,
        token::{AccessClaims, KEY_SET_LIFETIME, KeySet, PublicKey, SigningKey},
    },
    config::{Config, Env},
    db::Db,
    error::{Error, Result},
    ids::{OrgId, Principal},
};

/// A gate that believes one key and asks nobody.
pub struct Verifier {
    gate: Arc<Gate>,
    key: PublicKey,
}

impl Verifier {
    /// Believes the tokens of this key.
    ///
    /// # Errors
    /// When no gate can be made, which is a fault of this module.
    pub fn new(environment: &str, key: PublicKey) -> Result<Self> {
        let seed = "07".repeat(32);
        let root = SigningKey::from_seed(&[7; 32]);
        let nowhere = "postgresql://nobody@127.0.0.1:1/nowhere";
        let variables = [
            ("BOARD3_ENVIRONMENT", environment),
            ("DATABASE_URL", nowhere),
            ("DATABASE_WORKER_URL", nowhere),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("ENCRYPTION_KEY", &seed),
            ("BOARD3_SERVICE_KEY", &seed),
            ("BOARD3_PEER_KEYS", ","),
            ("BOARD3_ROOT_PUBLIC_KEY", &root.public_key()),
        ];
        let mut env = Env::of(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let config = Config::read(&mut env, "identity");
        let config = config.ok_or_else(|| Error::internal(env.take_problems().join(", ")))?;
        let db = Db::new(nowhere, 1, "identity", config.ring.clone(), false);
        let gate = Gate::new(
            &config,
            Arc::new(Nobody),
            Arc::new(Nobody),
            Arc::new(Revocations::new()),
            db,
        );
        let set = KeySet {
            version: 1,
            keys: vec![key.clone()],
            expires_at: SystemTime::now() + KEY_SET_LIFETIME,
        };
        let taken = gate.keys().take(&root.sign_keys(environment, &set));
        taken.map_err(Error::internal)?;
        Ok(Verifier { gate, key })
    }

    /// Verifies a token that was not seen before, and remembers it.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID.
    pub fn cold(&self, token: &str) -> Result<AccessClaims> {
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        let verified = self.key.verify_access(&self.gate.environment, token);
        let claims = verified.map_err(|_| invalid("refused"))?;
        lock(&self.gate.verified).put(digest, (claims.clone(), Instant::now()));
        self.standing(claims)
    }

    /// What every further call with the token costs.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID.
    pub async fn remembered(&self, token: &str) -> Result<AccessClaims> {
        match self.gate.authenticate(Some(token), async || Ok(())).await? {
            Caller::Someone(claims) => self.standing(claims),
            Caller::Nobody | Caller::Job(_) | Caller::Peer(_) => Err(invalid("nobody's")),
        }
    }

    fn standing(&self, claims: AccessClaims) -> Result<AccessClaims> {
        match self.gate.revocations.revoked(&claims) {
            true => Err(invalid("revoked")),
            false => Ok(claims),
        }
    }
}

/// Answers nothing.
struct Nobody;

fn silent() -> Error {
    Error::unavailable("identity", "there is none")
}

#[async_trait]
impl Authority for Nobody {
    async fn signing_keys(&self) -> Result<String> {
        Err(silent())
    }

    async fn permission_set(&self, _: OrgId, _: Principal) -> Result<(PermissionSet, i64)> {
        Err(silent())
    }

    async fn session_active(&self, _: Uuid, _: Principal, _: i64) -> Result<bool> {
        Err(silent())
    }

    async fn exchange_api_key(&self, _: &str) -> Result<String> {
        Err(silent())
    }
}

#[async_trait]
impl JobAuthority for Nobody {
    async fn check(&self, _: &str) -> Result<(Job, Duration)> {
        Err(silent())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ids::UserId;

    #[tokio::test]
    async fn a_token_is_verified_once_and_then_remembered_and_a_strangers_is_refused() {
        let (key, stranger) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let claims = AccessClaims {
            principal: Principal::User(UserId::new()),
            org: Some(OrgId::new()),
            session: Uuid::now_v7(),
            epoch: 1,
            permission_version: 1,
            expires_at: SystemTime::now() + Duration::from_secs(60),
        };
        let verifier = Verifier::new("test", key.public().clone()).unwrap();
        let token = key.sign_access("test", &claims);
        let seen = verifier.cold(&token).unwrap();
        assert_eq!(verifier.remembered(&token).await.unwrap().session, seen.session);
        let strangers = stranger.sign_access("test", &claims);
        assert!(verifier.cold(&strangers).is_err() && verifier.remembered(&strangers).await.is_err());
    }
}
