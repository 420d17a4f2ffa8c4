//! The whole suite as separate processes on a private database and Redis, for tests that stop, freeze and kill them.
//!
//! Everything ends with the test process, however that ends. The services are the binaries beside `board3`.

mod pages;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub(crate) use self::pages::{figure, get};
use kit::{auth::token::SigningKey, db::migrate::Slice};
use suite::mail::{self, Mailbox};
use testkit::{Caller, Database, Role, database, guard::Guard, serve::Bearer, servers::Redis};
use tokio::sync::OnceCell;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

/// The slices that there are services of.
pub(crate) const SLICES: [&str; 5] = ["identity", "designs", "terraform_state", "pipelines", "audit"];

/// A service that is not ready after this has failed.
const START: Duration = Duration::from_secs(30);

/// A running suite.
pub(crate) struct House {
    // Dropped in this order: processes before what they use.
    services: BTreeMap<&'static str, Service>,
    terraform: SocketAddr,
    redis: Redis,
    database: Database,
    secrets: Secrets,
    instance: String,
    mail: Mailbox,
    more: Vec<(String, String)>,
}

struct Service {
    door: Door,
    log: PathBuf,
    guard: Mutex<Option<Arc<Guard>>>,
}

/// Where a service is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    /// gRPC.
    pub(crate) grpc: SocketAddr,
    /// Health and metrics.
    pub(crate) http: SocketAddr,
}

/// What nobody but the services may know: 64 hex digits each.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) encryption_key: String,
    pub(crate) state_key: String,
    pub(crate) root_key: String,
    pub(crate) password_pepper: String,
    pub(crate) api_key_pepper: String,
    service_keys: BTreeMap<&'static str, String>,
}

impl House {
    /// A suite of the test's own, ready.
    pub(crate) async fn open() -> House {
        House::open_with(&[]).await
    }

    /// As [`House::open`], with more environment for every service.
    pub(crate) async fn open_with(more: &[(&str, &str)]) -> House {
        House::open_each(more, &[]).await
    }

    /// As [`House::open_with`], and more for some: `("designs", "BOARD3_WITHOUT", "publish")`.
    pub(crate) async fn open_each(more: &[(&str, &str)], each: &[(&str, &str, &str)]) -> House {
        let redis = Redis::start().await.unwrap();
        let database = database(&SLICES.map(slice)).await;
        let mail = Mailbox::in_dir(&beside(&redis).join("mail")).unwrap();
        let mut house = House {
            services: BTreeMap::new(),
            terraform: SocketAddr::from(([127, 0, 0, 1], 0)),
            redis,
            database,
            secrets: Secrets::new(),
            instance: Uuid::new_v4().simple().to_string(),
            mail,
            more: owned(more),
        };
        // Addresses must be known to all before any starts; somebody else may take a port in between.
        for attempt in 1.. {
            (house.services, house.terraform) = house.places();
            for slice in SLICES {
                let own: Vec<_> = each
                    .iter()
                    .filter(|(name, ..)| *name == slice)
                    .map(|(_, k, v)| (*k, *v))
                    .collect();
                house.start(slice, &own).await;
            }
            match house.became_ready(&SLICES).await {
                Ok(()) => break,
                Err(why) if attempt < 5 && why.contains("cannot be listened on") => continue,
                Err(why) => panic!("{why}"),
            }
        }
        house
    }

    /// One suite for all tests of this process that change nothing global and stop nothing.
    pub(crate) async fn shared() -> &'static House {
        static HOUSE: OnceCell<House> = OnceCell::const_new();
        HOUSE.get_or_init(House::open).await
    }

    /// identity's addresses.
    pub(crate) fn identity(&self) -> Door {
        self.door("identity")
    }

    /// designs' addresses.
    pub(crate) fn designs(&self) -> Door {
        self.door("designs")
    }

    /// audit's addresses.
    pub(crate) fn audit(&self) -> Door {
        self.door("audit")
    }

    /// terraform-state's addresses.
    pub(crate) fn terraform_state(&self) -> Door {
        self.door("terraform_state")
    }

    /// pipelines' addresses.
    pub(crate) fn pipelines(&self) -> Door {
        self.door("pipelines")
    }

    /// Where Terraform's HTTP backend is.
    pub(crate) fn terraform(&self) -> SocketAddr {
        self.terraform
    }

    /// A service's addresses; they stay the same however often it is started.
    pub(crate) fn door(&self, slice: &str) -> Door {
        self.services[slice].door
    }

    /// Their common database.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Their Redis, which no other suite uses.
    pub(crate) fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Where identity's mail goes.
    pub(crate) fn mail(&self) -> &Mailbox {
        &self.mail
    }

    /// What nobody but the services may know.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Starts a service, with more environment than the house's own, and does not wait for it.
    /// What still runs of it is killed first.
    pub(crate) async fn start(&self, slice: &'static str, more: &[(&str, &str)]) {
        self.kill(slice).await;
        let mut command = Command::new(binary(slice));
        command.envs(self.environment(slice)).envs(owned(more));
        let log = &self.services[slice].log;
        let guard = Guard::spawn(&command, "TERM", None, log).unwrap();
        *self.services[slice].guard.lock().unwrap() = Some(Arc::new(guard));
    }

    /// Ends a service with SIGKILL.
    pub(crate) async fn kill(&self, slice: &str) {
        let guard = self.services[slice].guard.lock().unwrap().take();
        if let Some(guard) = guard {
            guard.kill().await.unwrap();
        }
    }

    /// Asks a service to end and waits until it has.
    pub(crate) async fn stop(&self, slice: &str) {
        self.guard(slice).stop().await.unwrap();
    }

    /// Freezes a service.
    pub(crate) async fn pause(&self, slice: &str) {
        self.guard(slice).pause().await.unwrap();
    }

    /// Lets a frozen service go on.
    pub(crate) async fn resume(&self, slice: &str) {
        self.guard(slice).resume().await.unwrap();
    }

    /// Whether a service's process is there.
    pub(crate) fn alive(&self, slice: &str) -> bool {
        self.services[slice]
            .guard
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|guard| guard.alive())
    }

    /// Waits until every service is ready.
    pub(crate) async fn wait_ready(&self) {
        if let Err(why) = self.became_ready(&SLICES).await {
            panic!("{why}");
        }
    }

    /// Waits until one service is ready; answers how long that took.
    pub(crate) async fn wait_ready_of(&self, slice: &'static str) -> Duration {
        let asked = Instant::now();
        if let Err(why) = self.became_ready(&[slice]).await {
            panic!("{why}");
        }
        asked.elapsed()
    }

    /// Everything that a service has logged, over all its starts.
    pub(crate) fn logs(&self, slice: &str) -> String {
        let log = std::fs::read(self.log_file(slice)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Where a service's log is kept.
    pub(crate) fn log_file(&self, slice: &str) -> &Path {
        &self.services[slice].log
    }

    /// A service's page of metrics.
    pub(crate) async fn metrics(&self, slice: &str) -> String {
        let (status, page) = get(self.door(slice).http, "/health/metrics").await.unwrap();
        assert_eq!(status, 200, "{slice}: {page}");
        page
    }

    fn guard(&self, slice: &str) -> Arc<Guard> {
        self.services[slice]
            .guard
            .lock()
            .unwrap()
            .clone()
            .expect("the service was started")
    }

    async fn became_ready(&self, slices: &[&'static str]) -> Result<(), String> {
        let deadline = Instant::now() + START;
        for slice in slices {
            while !matches!(get(self.door(slice).http, "/health/ready").await, Ok((200, _))) {
                if !self.alive(slice) || Instant::now() > deadline {
                    let log = self.logs(slice);
                    let lines: Vec<_> = log.lines().collect();
                    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
                    return Err(format!("{slice} does not become ready:\n{tail}"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Addresses and logs for another try.
    fn places(&self) -> (BTreeMap<&'static str, Service>, SocketAddr) {
        let dir = beside(&self.redis);
        let mut ports = free_ports(2 * SLICES.len() + 1).into_iter();
        let mut next = || {
            SocketAddr::from((
                [127, 0, 0, 1],
                ports.next().expect("two for each slice and one for Terraform"),
            ))
        };
        let service = |slice: &'static str| {
            let (grpc, http) = (next(), next());
            let log = dir.join(format!("{slice}-{}.log", grpc.port()));
            (
                slice,
                Service {
                    door: Door { grpc, http },
                    log,
                    guard: Mutex::new(None),
                },
            )
        };
        (SLICES.map(service).into(), next())
    }

    /// A service's environment.
    pub(crate) fn environment(&self, name: &str) -> Vec<(String, String)> {
        let (slice, door, secrets) = (slice(name), self.door(name), &self.secrets);
        let public =
            |(name, seed): (&&str, &String)| format!("{name}={}", SigningKey::from_seed(&bytes(seed)).public_key());
        let peer_keys: Vec<_> = secrets.service_keys.iter().map(public).collect();
        let mut env: Vec<(String, String)> = [
            ("BOARD3_ENVIRONMENT", "test".to_owned()),
            ("BOARD3_INSTANCE", self.instance.clone()),
            ("BOARD3_GRPC_LISTEN", door.grpc.to_string()),
            ("BOARD3_HTTP_LISTEN", door.http.to_string()),
            ("DATABASE_URL", self.database.url(slice, Role::App)),
            ("DATABASE_WORKER_URL", self.database.url(slice, Role::Worker)),
            ("REDIS_URL", self.redis.url()),
            ("ENCRYPTION_KEY", secrets.encryption_key.clone()),
            ("BOARD3_SERVICE_KEY", secrets.service_keys[name].clone()),
            ("BOARD3_PEER_KEYS", peer_keys.join(",")),
            (
                "BOARD3_ROOT_PUBLIC_KEY",
                SigningKey::from_seed(&bytes(&secrets.root_key)).public_key(),
            ),
            ("BOARD3_RATE_SCALE", "1000".to_owned()),
            ("BOARD3_LOG", "info".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if name == "identity" {
            env.extend(owned(&[
                ("BOARD3_ROOT_KEY", &secrets.root_key),
                ("PASSWORD_PEPPER", &secrets.password_pepper),
                ("API_KEY_PEPPER", &secrets.api_key_pepper),
                (mail::SETTING, &self.mail.setting()),
            ]));
        }
        if name == "terraform_state" {
            env.extend(owned(&[
                ("TERRAFORM_STATE_ENCRYPTION_KEY", &secrets.state_key),
                ("BOARD3_TERRAFORM_LISTEN", &self.terraform.to_string()),
            ]));
        }
        env.extend(owned(&[(
            "BOARD3_TERRAFORM_HTTP",
            &format!("http://{}", self.terraform),
        )]));
        let addresses = self.services.iter().map(|(slice, service)| {
            (
                format!("BOARD3_{}", slice.to_uppercase()),
                format!("http://{}", service.door.grpc),
            )
        });
        env.extend(addresses);
        env.extend(self.more.clone());
        env
    }
}

impl Door {
    /// A channel without a credential.
    pub(crate) fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        endpoint
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            .connect_lazy()
    }

    /// A channel with this credential; none for the empty text.
    pub(crate) fn with(&self, credential: &str) -> Caller {
        InterceptedService::new(self.channel(), Bearer::new(credential))
    }
}

impl Secrets {
    fn new() -> Self {
        Secrets {
            encryption_key: random_key(),
            state_key: random_key(),
            root_key: random_key(),
            password_pepper: random_key(),
            api_key_pepper: random_key(),
            service_keys: SLICES.map(|slice| (slice, random_key())).into(),
        }
    }

    /// All of them, named.
    pub(crate) fn named(&self) -> Vec<(String, String)> {
        let mut named = owned(&[
            ("ENCRYPTION_KEY", &self.encryption_key),
            ("TERRAFORM_STATE_ENCRYPTION_KEY", &self.state_key),
            ("BOARD3_ROOT_KEY", &self.root_key),
            ("PASSWORD_PEPPER", &self.password_pepper),
            ("API_KEY_PEPPER", &self.api_key_pepper),
        ]);
        let service_keys = self.service_keys.iter();
        named.extend(service_keys.map(|(slice, key)| (format!("BOARD3_SERVICE_KEY of {slice}"), key.clone())));
        named
    }
}

/// A directory for a house's files: Redis' is removed by its guard, so they are too, however this process ends.
fn beside(redis: &Redis) -> PathBuf {
    let socket = PathBuf::from(redis.url().trim_start_matches("redis+unix://"));
    socket.parent().expect("the socket lies in a directory").to_owned()
}

/// The binary of a service.
pub(crate) fn binary(slice: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_board3"));
    let file = beside.with_file_name(format!("board3-{}", slice.replace('_', "-")));
    assert!(
        file.exists(),
        "{} is missing; build the workspace first: cargo build --workspace",
        file.display()
    );
    file
}

/// The schema of a service.
pub(crate) fn slice(name: &str) -> &'static Slice {
    match name {
        "identity" => identity::SERVICE.slice,
        "designs" => designs::SERVICE.slice,
        "terraform_state" => terraform_state::SERVICE.slice,
        "pipelines" => pipelines::SERVICE.slice,
        "audit" => audit::SERVICE.slice,
        _ => panic!("{name} is no slice"),
    }
}

/// Waits until `attempt` has an answer.
///
/// # Panics
/// When it has none within `bound`.
pub(crate) async fn eventually<T>(what: &str, bound: Duration, attempt: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ports that nobody listens on, below those that the system gives to outgoing connections.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let mut held: Vec<(u16, TcpListener)> = Vec::new();
    while held.len() < count {
        let port = 12_000 + (Uuid::new_v4().as_u128() % 20_000) as u16;
        held.extend(TcpListener::bind(("127.0.0.1", port)).map(|listener| (port, listener)));
    }
    held.into_iter().map(|(port, _)| port).collect()
}

/// 64 random hex digits.
pub(crate) fn random_key() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn bytes(key: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    hex::decode_to_slice(key, &mut bytes).unwrap();
    bytes
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
