//! A service in the test's own process, real from the socket to the tables, and callers with chosen permissions.
//!
//! Each server has a database and a Redis prefix of its own. At the other services' addresses an [`Office`] answers:
//! keys, permissions, sessions, jobs and events as the test sets them.

use std::time::Duration;

use kit::{
    config::{Env, SLICES},
    ids::{OrgId, Principal, UserId},
    service::{Running, Service},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

pub use crate::office::Office;
use crate::{
    Database, Role, database,
    mail::Mail,
    office::{ROOT_SEED, root_key, service_key, service_seed},
    servers,
};

/// A channel with a caller's credential, for generated clients.
pub type Caller = InterceptedService<Channel, Bearer>;

/// Puts a credential on calls.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// This credential; none for the empty text.
    pub fn new(credential: &str) -> Self {
        Bearer((!credential.is_empty()).then(|| format!("Bearer {credential}").parse().expect("a credential is ASCII")))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A service under test.
pub struct Served {
    /// The service.
    pub running: Running,
    /// Its database.
    pub database: Database,
    /// The stand-in for the other services.
    pub office: Office,
    /// The service's environment, to start another replica.
    pub env: Vec<(String, String)>,
    /// What it sends.
    pub mail: Mail,
}

/// Starts a service with its own database and waits until it is ready.
pub async fn serve(service: Service) -> Served {
    serve_with(service, &[]).await
}

/// As [`serve`], with more environment.
pub async fn serve_with(service: Service, more: &[(&str, &str)]) -> Served {
    let office = Office::open().await;
    let database = database(&[service.slice]).await;
    let mail = Mail::new().await;
    let seed = |byte: u8| hex(&[byte; 32]);
    let slice = service.slice.name;
    let peer_keys = SLICES.map(|(name, _, _)| format!("{name}={}", service_key(name).public_key()));
    let mut env: Vec<(String, String)> = [
        ("BOARD3_ENVIRONMENT", "test".to_owned()),
        ("BOARD3_INSTANCE", Uuid::new_v4().simple().to_string()),
        ("BOARD3_GRPC_LISTEN", "127.0.0.1:0".to_owned()),
        ("BOARD3_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ("DATABASE_URL", database.url(service.slice, Role::App)),
        ("DATABASE_WORKER_URL", database.url(service.slice, Role::Worker)),
        ("REDIS_URL", servers::redis_url().await),
        ("ENCRYPTION_KEY", seed(1)),
        ("BOARD3_SERVICE_KEY", hex(&service_seed(slice))),
        ("BOARD3_PEER_KEYS", peer_keys.join(",")),
        ("BOARD3_ROOT_KEY", hex(&ROOT_SEED)),
        ("BOARD3_ROOT_PUBLIC_KEY", root_key().public_key()),
        ("PASSWORD_PEPPER", seed(4)),
        ("API_KEY_PEPPER", seed(5)),
        ("TERRAFORM_STATE_ENCRYPTION_KEY", seed(6)),
        ("BOARD3_TERRAFORM_LISTEN", "127.0.0.1:0".to_owned()),
        ("BOARD3_RATE_SCALE", "1000".to_owned()),
        ("BOARD3_MAIL", format!("file:{}", mail.path().display())),
        (
            "BOARD3_LOG",
            std::env::var("BOARD3_LOG").unwrap_or_else(|_| "warn".to_owned()),
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    env.extend(SLICES.map(|(name, _, _)| (format!("BOARD3_{}", name.to_uppercase()), office.address(name))));
    env.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    env.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let running = match kit::service::start(service, Env::of(env.clone())).await {
        Ok(running) => running,
        Err(problems) => panic!("{slice} does not start: {problems}"),
    };
    office.announces_over(running.kit.redis.clone());
    let served = Served {
        running,
        database,
        office,
        env,
        mail,
    };
    served.ready().await;
    served
}

impl Served {
    /// The messages that it has sent.
    pub fn mail(&self) -> &Mail {
        &self.mail
    }

    /// A channel without a credential.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.running.grpc))
            .expect("an address is a URI")
            .connect_lazy()
    }

    /// A channel with this credential.
    pub fn with(&self, credential: &str) -> Caller {
        InterceptedService::new(self.channel(), Bearer::new(credential))
    }

    /// A new user of an organization with these permissions (grants; `*` for whole segments).
    pub fn caller(&self, org: OrgId, permissions: &[&str]) -> Caller {
        self.caller_as(org, UserId::new(), permissions)
    }

    /// A given user with these permissions.
    pub fn caller_as(&self, org: OrgId, user: UserId, permissions: &[&str]) -> Caller {
        let principal = Principal::User(user);
        self.office.grant(org, principal, permissions);
        self.with(&self.office.token(org, principal, Uuid::now_v7(), 1))
    }

    /// A peer of the suite.
    pub fn peer(&self, slice: &str) -> Caller {
        self.with(&service_key(slice).sign_service("test", slice))
    }

    /// Waits until the service is ready, at most 20 s.
    pub async fn ready(&self) {
        use std::io::{Read, Write};
        let address = self.running.http;
        let asked = async {
            loop {
                let ready = tokio::task::spawn_blocking(move || {
                    let mut stream = std::net::TcpStream::connect(address).ok()?;
                    // Who is never answered fails, and does not hang.
                    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
                    stream.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n").ok()?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).ok()?;
                    answer.lines().next().filter(|line| line.contains(" 200 ")).map(|_| ())
                });
                if ready.await.ok().flatten().is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked)
            .await
            .expect("the service becomes ready");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
