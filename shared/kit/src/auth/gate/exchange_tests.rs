//! What made-up and genuine API keys cost identity and whoever sends them.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::{
    auth::token::{ACCESS_LIFETIME, KeySet, SigningKey},
    config::Env,
};

/// An identity that knows one key, and counts what it is asked; where it is away, it is silent.
struct Desk {
    known: String,
    asked: AtomicU32,
    away: AtomicBool,
}

#[async_trait]
impl Authority for Desk {
    async fn signing_keys(&self) -> Result<String> {
        let root = SigningKey::from_seed(&[8; 32]);
        let set = KeySet {
            version: 1,
            keys: vec![SigningKey::from_seed(&[7; 32]).public().clone()],
            expires_at: std::time::SystemTime::now() + ACCESS_LIFETIME,
        };
        Ok(root.sign_keys("dev", &set))
    }
    async fn permission_set(&self, _: OrgId, _: Principal) -> Result<(PermissionSet, i64)> {
        Ok((PermissionSet::none(), 1))
    }
    async fn session_active(&self, _: Uuid, _: Principal, _: i64) -> Result<bool> {
        Ok(true)
    }
    async fn exchange_api_key(&self, key: &str) -> Result<String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.away.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if key != self.known {
            return Err(invalid("unknown"));
        }
        let claims = AccessClaims {
            principal: Principal::ApiKey(Uuid::now_v7()),
            org: Some(OrgId::new()),
            session: Uuid::now_v7(),
            epoch: 1,
            permission_version: 1,
            expires_at: std::time::SystemTime::now() + ACCESS_LIFETIME,
        };
        Ok(SigningKey::from_seed(&[7; 32]).sign_access("dev", &claims))
    }
}

/// Who knows nobody, where that plays no part.
pub(super) struct Nobody;

#[async_trait]
impl JobAuthority for Nobody {
    async fn check(&self, _: &str) -> Result<(Job, Duration)> {
        Err(Error::unavailable("pipelines", "away"))
    }
}

#[async_trait]
impl Authority for Nobody {
    async fn signing_keys(&self) -> Result<String> {
        Ok(String::new())
    }
    async fn permission_set(&self, _: OrgId, _: Principal) -> Result<(PermissionSet, i64)> {
        Ok((PermissionSet::none(), 1))
    }
    async fn session_active(&self, _: Uuid, _: Principal, _: i64) -> Result<bool> {
        Ok(false)
    }
    async fn exchange_api_key(&self, _: &str) -> Result<String> {
        Err(invalid("unknown"))
    }
}

fn gate(known: &str) -> (Arc<Gate>, Arc<Desk>) {
    let key = "07".repeat(32);
    let nowhere = "postgresql://nobody@127.0.0.1:1/nowhere";
    let mut env = Env::of(
        [
            ("DATABASE_URL", nowhere),
            ("DATABASE_WORKER_URL", nowhere),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("ENCRYPTION_KEY", &key),
            ("BOARD3_SERVICE_KEY", &key),
            ("BOARD3_PEER_KEYS", ","),
            ("BOARD3_ROOT_PUBLIC_KEY", &SigningKey::from_seed(&[8; 32]).public_key()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let config = Config::read(&mut env, "designs").unwrap();
    let desk = Arc::new(Desk {
        known: known.to_owned(),
        asked: AtomicU32::new(0),
        away: AtomicBool::new(false),
    });
    let db = Db::new(nowhere, 1, "designs", config.ring.clone(), false);
    (
        Gate::new(
            &config,
            desk.clone(),
            Arc::new(Nobody),
            Arc::new(Revocations::new()),
            db,
        ),
        desk,
    )
}

#[tokio::test]
async fn what_is_no_key_or_was_just_refused_asks_nobody() {
    let (gate, desk) = gate("none");
    let charged = AtomicU32::new(0);
    let stranger = ApiKey::generate("dev");
    let elsewhere = ApiKey::generate("prod");
    for _ in 0..20 {
        for key in ["b3_x", "b3_dev_aaaa_bbbb", stranger.expose(), elsewhere.expose()] {
            let charge = async || {
                charged.fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            let refused = gate.authenticate(Some(key), charge).await.unwrap_err();
            assert_eq!(refused.reason(), Reason::CredentialInvalid, "{key}");
        }
    }
    assert_eq!(
        (desk.asked.load(Ordering::SeqCst), charged.load(Ordering::SeqCst)),
        (1, 1)
    );
}

#[tokio::test]
async fn a_genuine_key_is_exchanged_once_however_many_call_with_it_at_once() {
    let key = ApiKey::generate("dev");
    let (gate, desk) = gate(key.expose());
    let calls = (0..30).map(|_| gate.authenticate(Some(key.expose()), async || Ok(())));
    for caller in futures_util::future::join_all(calls).await {
        assert!(matches!(caller.unwrap(), Caller::Someone(_)));
    }
    assert_eq!(desk.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_key_in_use_is_told_of_again_and_does_without_identity_for_as_long_as_its_token() {
    let key = ApiKey::generate("dev");
    let (gate, desk) = gate(key.expose());
    let charged = AtomicU32::new(0);
    let call = async || {
        let charge = async || {
            charged.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        gate.authenticate(Some(key.expose()), charge).await.map(drop)
    };
    // As if the time were over for which nobody is asked.
    let later = || {
        for (_, exchanged) in lock(&gate.exchanged).iter_mut() {
            if let Exchanged::For(_, _, until) = exchanged {
                *until = Instant::now();
            }
        }
    };
    // Nobody waits for the renewal, so that this must.
    let renewed = async || {
        while lock(&gate.exchanged)
            .iter()
            .any(|(_, e)| !matches!(e, Exchanged::For(_, _, until) if *until > Instant::now() + RENEWED_WITHIN))
        {
            tokio::task::yield_now().await;
        }
    };
    call().await.unwrap();
    later();
    call().await.unwrap();
    renewed().await;
    assert_eq!(desk.asked.load(Ordering::SeqCst), 2);
    desk.away.store(true, Ordering::SeqCst);
    later();
    for _ in 0..5 {
        call().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (desk.asked.load(Ordering::SeqCst), charged.load(Ordering::SeqCst)),
        (3, 1)
    );
}
