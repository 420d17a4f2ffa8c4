//! What the gate does while it does not know whether it knows every revocation.

#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::SystemTime,
};

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::{auth::token::SigningKey, config::Env, ids::UserId};

const SENSITIVE: &str = "/board3.identity.v1.ApiKeyService/CreateApiKey";
const READ: &str = "/board3.designs.v1.DesignService/GetDesign";

/// An identity that counts what it is asked.
#[derive(Default)]
struct Asked {
    sessions: AtomicU32,
    permissions: AtomicU32,
    session_over: AtomicBool,
    away: AtomicBool,
}

#[async_trait]
impl Authority for Asked {
    async fn signing_keys(&self) -> Result<String> {
        Ok(String::new())
    }

    async fn permission_set(&self, _: OrgId, _: Principal) -> Result<(PermissionSet, i64)> {
        self.permissions.fetch_add(1, Ordering::SeqCst);
        Ok((PermissionSet::resolve(["*.*.*"]), 1))
    }

    async fn session_active(&self, _: Uuid, _: Principal, _: i64) -> Result<bool> {
        self.sessions.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("identity", "away"));
        }
        Ok(!self.session_over.load(Ordering::SeqCst))
    }

    async fn exchange_api_key(&self, _: &str) -> Result<String> {
        Err(invalid("unknown"))
    }
}

struct Desk {
    gate: Arc<Gate>,
    asked: Arc<Asked>,
    claims: AccessClaims,
}

impl Desk {
    fn new() -> Desk {
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
        let config = Config::read(&mut env, "identity");
        let config = config.unwrap_or_else(|| panic!("{:?}", env.take_problems()));
        let db = Db::new(nowhere, 1, "identity", config.ring.clone(), false);
        let asked = Arc::new(Asked::default());
        let claims = AccessClaims {
            principal: Principal::User(UserId::new()),
            org: Some(OrgId::new()),
            session: Uuid::now_v7(),
            epoch: 1,
            permission_version: 1,
            expires_at: SystemTime::now() + Duration::from_secs(300),
        };
        let gate = Gate::new(
            &config,
            asked.clone(),
            Arc::new(exchange_tests::Nobody),
            Arc::new(Revocations::new()),
            db,
        );
        Desk { gate, asked, claims }
    }

    /// The reason that a call is refused with while the feed was last confirmed so long ago; empty for none.
    async fn call(&self, path: &str, feed_age: u64) -> String {
        self.gate.revocations.confirmed_ago(Duration::from_secs(feed_age));
        let method = policy::find(path).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let call = Call::new(method, "r".to_owned(), String::new(), String::new(), deadline);
        let admitted = self
            .gate
            .admit(Caller::Someone(self.claims.clone()), Arc::new(call))
            .await;
        admitted
            .err()
            .map(|error| error.reason_name().to_owned())
            .unwrap_or_default()
    }

    fn sessions_asked(&self) -> u32 {
        self.asked.sessions.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_sensitive_call_asks_identity_while_the_feed_lags_and_is_refused_once_it_is_lost() {
    let desk = Desk::new();
    assert_eq!(desk.call(SENSITIVE, 0).await, "");
    assert_eq!(desk.sessions_asked(), 0, "a live feed needs no question");

    assert_eq!(desk.call(SENSITIVE, 10).await, "");
    assert_eq!(desk.sessions_asked(), 1);
    desk.asked.session_over.store(true, Ordering::SeqCst);
    assert_eq!(desk.call(SENSITIVE, 10).await, "SESSION_REVOKED");
    desk.asked.away.store(true, Ordering::SeqCst);
    assert_eq!(desk.call(SENSITIVE, 10).await, "REVOCATION_UNKNOWN");
    assert_eq!(desk.sessions_asked(), 3);

    assert_eq!(desk.call(SENSITIVE, 31).await, "REVOCATION_UNKNOWN");
    assert_eq!(desk.sessions_asked(), 3, "beyond 30 s there is nothing to ask");
}

#[tokio::test]
async fn other_calls_of_verified_callers_go_on_whatever_the_feed_does() {
    let desk = Desk::new();
    for feed_age in [0, 10, 31, 60] {
        assert_eq!(desk.call(READ, feed_age).await, "");
    }
    assert_eq!(
        (desk.sessions_asked(), desk.asked.permissions.load(Ordering::SeqCst)),
        (0, 1)
    );
}

#[tokio::test]
async fn a_sensitive_call_takes_no_kept_permissions_while_the_feed_lags() {
    let desk = Desk::new();
    for (feed_age, asked) in [(0, 1), (0, 1), (10, 2), (10, 3)] {
        assert_eq!(desk.call(SENSITIVE, feed_age).await, "");
        assert_eq!(desk.asked.permissions.load(Ordering::SeqCst), asked);
    }
}
