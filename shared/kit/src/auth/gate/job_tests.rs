//! Job credentials at the gate: what pipelines is asked, and what counts while it does not answer.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use uuid::Uuid;

use super::{exchange_tests::Nobody, *};
use crate::{auth::token::SigningKey, config::Env};

const READ: &str = "/board3.designs.v1.DesignService/GetDesign";
const WRITE: &str = "/board3.designs.v1.DesignService/CreateDesign";
const OF_USERS: &str = "/board3.identity.v1.UserService/GetMe";
const OF_PEERS: &str = "/board3.events.v1.EventLogService/Head";

const GOOD: &str = "b3j_good";
const HOLDS: Duration = Duration::from_secs(30);

/// A pipelines service that knows one job, and counts what it is asked.
struct Desk {
    job: Mutex<Option<Job>>,
    away: AtomicU32,
    asked: AtomicU32,
}

#[async_trait]
impl JobAuthority for Desk {
    async fn check(&self, credential: &str) -> Result<(Job, Duration)> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        match self.away.load(Ordering::SeqCst) {
            0 => {}
            1 => return Err(Error::unavailable("pipelines", "away")),
            _ => std::future::pending().await,
        }
        let job = lock(&self.job).clone().filter(|_| credential == GOOD);
        Ok((job.ok_or_else(|| invalid("unknown"))?, HOLDS))
    }
}

struct World {
    gate: Arc<Gate>,
    desk: Arc<Desk>,
    job: Job,
    charged: AtomicU32,
}

impl World {
    fn new() -> World {
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
        let job = Job {
            id: Uuid::now_v7(),
            org: OrgId::new(),
            permissions: Arc::new(PermissionSet::resolve(["designs.design.read"])),
            design: Uuid::now_v7().to_string(),
            state: "network".to_owned(),
            execution: Uuid::now_v7().to_string(),
        };
        let desk = Arc::new(Desk {
            job: Mutex::new(Some(job.clone())),
            away: AtomicU32::new(0),
            asked: AtomicU32::new(0),
        });
        let db = Db::new(nowhere, 1, "designs", config.ring.clone(), false);
        let revocations = Arc::new(Revocations::new());
        World {
            gate: Gate::new(&config, Arc::new(Nobody), desk.clone(), revocations, db),
            desk,
            job,
            charged: AtomicU32::new(0),
        }
    }

    async fn caller(&self, credential: &str) -> Result<Caller> {
        let charge = async || {
            self.charged.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        self.gate.authenticate(Some(credential), charge).await
    }

    /// `job`, or the reason why not.
    async fn known(&self, credential: &str) -> String {
        match self.caller(credential).await {
            Ok(Caller::Job(job)) if *job == self.job => "job".to_owned(),
            Ok(caller) => format!("{caller:?}"),
            Err(error) => error.reason_name().to_owned(),
        }
    }

    async fn admitted(&self, path: &str) -> Result<Scope> {
        let method = policy::find(path).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let call = Call::new(method, "r".to_owned(), String::new(), String::new(), deadline);
        self.gate.admit(self.caller(GOOD).await?, Arc::new(call)).await
    }

    fn asked(&self) -> u32 {
        self.desk.asked.load(Ordering::SeqCst)
    }

    fn charged(&self) -> u32 {
        self.charged.load(Ordering::SeqCst)
    }

    fn later(&self, seconds: u64) {
        self.gate.jobs.age(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn an_answer_is_good_for_two_seconds_and_asked_for_once_however_many_call() {
    let world = World::new();
    let calls = (0..30).map(|_| world.known(GOOD));
    assert!(
        futures_util::future::join_all(calls)
            .await
            .iter()
            .all(|who| who == "job")
    );
    assert_eq!((world.asked(), world.charged()), (1, 1));
    world.later(1);
    assert_eq!((world.known(GOOD).await.as_str(), world.asked()), ("job", 1));
    world.later(1);
    assert_eq!((world.known(GOOD).await.as_str(), world.asked()), ("job", 2));
    // What was good is asked about at nobody's expense.
    assert_eq!(world.charged(), 1);

    // An end is known two seconds later, and then not asked about at every call.
    *lock(&world.desk.job) = None;
    assert_eq!(world.known(GOOD).await, "job");
    world.later(2);
    for _ in 0..3 {
        assert_eq!(world.known(GOOD).await, "CREDENTIAL_INVALID");
    }
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn while_pipelines_is_away_a_job_goes_on_until_its_lease_would_have_ended() {
    for away in [1, 2] {
        let world = World::new();
        assert_eq!(world.known(GOOD).await, "job");
        world.desk.away.store(away, Ordering::SeqCst);
        world.later(10);
        for _ in 0..5 {
            assert_eq!(world.known(GOOD).await, "job");
        }
        assert_eq!(
            world.asked(),
            2,
            "what was away a moment ago is not asked at every call"
        );
        world.later(15);
        assert_eq!(world.known(GOOD).await, "job");
        world.later(5);
        for _ in 0..5 {
            assert_eq!(world.known(GOOD).await, "DEPENDENCY_UNAVAILABLE");
        }
        assert_eq!(world.asked(), 4);
        assert_eq!(world.known("b3j_other").await, "DEPENDENCY_UNAVAILABLE");

        // Back again, it is the one to say so.
        world.desk.away.store(0, Ordering::SeqCst);
        world.later(1);
        assert_eq!(world.known(GOOD).await, "job");
    }
}

#[tokio::test]
async fn what_is_no_job_credential_or_was_just_refused_asks_nobody() {
    let world = World::new();
    let long = format!("b3j_{}", "x".repeat(300));
    for _ in 0..20 {
        for credential in ["b3j_stranger", "b3j_\u{e9}", "b3j_with blanks", &long] {
            assert_eq!(world.known(credential).await, "CREDENTIAL_INVALID", "{credential}");
        }
    }
    assert_eq!((world.asked(), world.charged()), (1, 1));
}

#[tokio::test]
async fn a_job_holds_its_permissions_in_its_organization_for_what_it_is_bound_to() {
    let world = World::new();
    let Scope::Org(scope) = world.admitted(READ).await.unwrap() else {
        panic!("another scope")
    };
    assert_eq!(
        (scope.org(), scope.principal()),
        (world.job.org, Principal::Job(world.job.id))
    );
    assert_eq!(scope.bound("state"), Some("network"));
    assert_eq!(scope.bound("design"), Some(world.job.design.as_str()));
    assert_eq!(scope.bound("pipeline"), None);
    assert!(scope.within("state", "network").is_ok());
    assert!(scope.within("design", &world.job.design).is_ok());
    for (kind, name) in [
        ("state", "database"),
        ("state", ""),
        ("design", "network"),
        ("pipeline", "network"),
    ] {
        let refused = scope.within(kind, name).unwrap_err();
        assert_eq!(refused.reason(), Reason::CallerNotAllowed, "{kind} {name}");
    }

    for (path, reason) in [
        (WRITE, Reason::PermissionMissing),
        (OF_USERS, Reason::CallerNotAllowed),
        (OF_PEERS, Reason::CallerNotAllowed),
    ] {
        assert_eq!(world.admitted(path).await.unwrap_err().reason(), reason, "{path}");
    }
}

#[tokio::test]
async fn users_are_bound_to_nothing() {
    let world = World::new();
    let Scope::Org(mut scope) = world.admitted(READ).await.unwrap() else {
        panic!("another scope")
    };
    scope.job = None;
    assert_eq!(scope.bound("state"), None);
    assert!(scope.within("state", "anything").is_ok());
}
