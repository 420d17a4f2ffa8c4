//! What was verified with a key is worth nothing once the key is dropped.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use uuid::Uuid;

use super::{exchange_tests::Nobody, *};
use crate::{
    auth::token::{ACCESS_LIFETIME, KeySet, SigningKey},
    config::Env,
    failpoint,
    ids::UserId,
};

/// An identity whose keys are the test's to choose, and which signs with the last.
struct Desk {
    keys: Mutex<(i64, Vec<u8>)>,
    exchanges: std::sync::atomic::AtomicU32,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn claims() -> AccessClaims {
    AccessClaims {
        principal: Principal::User(UserId::new()),
        org: Some(OrgId::new()),
        session: Uuid::now_v7(),
        epoch: 1,
        permission_version: 1,
        expires_at: std::time::SystemTime::now() + ACCESS_LIFETIME,
    }
}

#[async_trait]
impl Authority for Desk {
    async fn signing_keys(&self) -> Result<String> {
        let (version, seeds) = lock(&self.keys).clone();
        let set = KeySet {
            version,
            keys: seeds.iter().map(|seed| key(*seed).public().clone()).collect(),
            expires_at: std::time::SystemTime::now() + ACCESS_LIFETIME,
        };
        Ok(key(8).sign_keys("dev", &set))
    }
    async fn permission_set(&self, _: OrgId, _: Principal) -> Result<(PermissionSet, i64)> {
        Ok((PermissionSet::none(), 1))
    }
    async fn session_active(&self, _: Uuid, _: Principal, _: i64) -> Result<bool> {
        Ok(true)
    }
    async fn exchange_api_key(&self, _: &str) -> Result<String> {
        self.exchanges.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let last = lock(&self.keys).1.last().copied().unwrap();
        Ok(key(last).sign_access("dev", &claims()))
    }
}

#[tokio::test]
async fn tokens_and_exchanged_keys_that_are_remembered_are_void_once_their_key_is_dropped() {
    let secret = "07".repeat(32);
    let nowhere = "postgresql://nobody@127.0.0.1:1/nowhere";
    let mut env = Env::of(
        [
            ("DATABASE_URL", nowhere),
            ("DATABASE_WORKER_URL", nowhere),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("ENCRYPTION_KEY", &secret),
            ("BOARD3_SERVICE_KEY", &secret),
            ("BOARD3_PEER_KEYS", ","),
            ("BOARD3_ROOT_PUBLIC_KEY", &key(8).public_key()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let config = Config::read(&mut env, "designs").unwrap();
    let desk = Arc::new(Desk {
        keys: Mutex::new((1, vec![7])),
        exchanges: Default::default(),
    });
    let revocations = Arc::new(Revocations::new());
    let db = Db::new(nowhere, 1, "designs", config.ring.clone(), false);
    let gate = Gate::new(&config, desk.clone(), Arc::new(Nobody), revocations, db);
    let api_key = ApiKey::generate("dev");
    let token = key(7).sign_access("dev", &claims());
    let enters = async |credential: &str| gate.authenticate(Some(credential), async || Ok(())).await.is_ok();
    let exchanges = || desk.exchanges.load(std::sync::atomic::Ordering::SeqCst);

    for _ in 0..2 {
        assert!(enters(&token).await && enters(api_key.expose()).await);
    }
    assert_eq!(exchanges(), 1);

    *lock(&desk.keys) = (2, vec![9]);
    gate.keys().refresh().await.unwrap();
    {
        let _off = failpoint::switch_off("keys.believed");
        assert!(
            enters(&token).await,
            "what is remembered would go on until it is forgotten by itself"
        );
    }
    assert!(!enters(&token).await);
    assert!(enters(api_key.expose()).await);
    assert_eq!(exchanges(), 2, "the key was exchanged anew, for a token of the new one");
}
