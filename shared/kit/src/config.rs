//! Configuration from the environment; every problem is collected before anything fails.

use std::{
    collections::BTreeMap,
    fmt,
    net::{SocketAddr, TcpListener},
    ops::RangeInclusive,
    str::FromStr,
    sync::Arc,
};

use tonic::transport::Endpoint;
use tracing_subscriber::EnvFilter;

use crate::{auth::token::PublicKey, crypto::KeyRing};

mod tls;

pub use tls::Tls;

/// The environment, and what is wrong with it so far.
pub struct Env {
    variables: BTreeMap<String, String>,
    problems: Vec<String>,
}

/// Everything that is wrong; printed one clear line each.
#[derive(Debug)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

impl Env {
    /// The process's environment.
    pub fn process() -> Self {
        Env {
            variables: std::env::vars().collect(),
            problems: Vec::new(),
        }
    }

    /// A given environment, for tests.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Env {
            variables: variables.into_iter().collect(),
            problems: Vec::new(),
        }
    }

    /// A variable that may be missing; an empty one counts as missing.
    pub fn optional(&mut self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// A variable that must be there.
    pub fn required(&mut self, name: &str) -> Option<String> {
        let value = self.optional(name);
        if value.is_none() {
            self.problem(format!("{name} is not set"));
        }
        value
    }

    /// A variable with a default, parsed.
    pub fn parsed<T: FromStr>(&mut self, name: &str, default: &str, what: &str) -> Option<T> {
        let text = self.optional(name).unwrap_or_else(|| default.to_owned());
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(format!("{name} must be {what}"));
        }
        parsed
    }

    /// A whole number with a default, within bounds.
    pub fn number<T>(&mut self, name: &str, default: T, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.optional(name) else {
            return Some(default);
        };
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            let (least, most) = (bounds.start(), bounds.end());
            self.problem(format!("{name} must be a whole number from {least} to {most}"));
        }
        number
    }

    /// A required secret of 32 bytes, as 64 hex digits. Its value is never part of a problem.
    pub fn key(&mut self, name: &str) -> Option<[u8; 32]> {
        let text = self.required(name)?;
        let mut key = [0; 32];
        match hex::decode_to_slice(&text, &mut key) {
            Ok(()) => Some(key),
            Err(_) => {
                self.problem(format!(
                    "{name} must be 64 hex digits (32 bytes), has {} characters",
                    text.chars().count()
                ));
                None
            }
        }
    }

    /// A port that is taken from here on, before anything can be asked of it; one that cannot be had is a problem.
    ///
    /// Needs a tokio runtime.
    pub fn listen(&mut self, name: &str, default: &str) -> Option<Listener> {
        let address: SocketAddr = self.parsed(name, default, &format!("an address with a port, like {default}"))?;
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let inner = tokio::net::TcpListener::from_std(listener)?;
            Ok(Listener {
                inner,
                address,
                tls: None,
            })
        });
        bound
            .map_err(|error| self.problem(format!("{name}: {address} cannot be listened on ({})", error.kind())))
            .ok()
    }

    /// Notes a problem.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// What is wrong, if anything is.
    pub fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }
}

/// A port that this process has and does not yet serve at.
#[derive(Debug)]
pub struct Listener {
    pub(crate) inner: tokio::net::TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

impl Listener {
    /// What comes here speaks TLS, where there is any.
    pub fn over(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// Where it listens: with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What every service is configured with.
#[derive(Clone)]
pub struct Config {
    /// Names the deployment; part of every token, so that those of one environment are void in another.
    pub environment: Arc<str>,
    /// PostgreSQL as the slice's app role.
    pub database_url: String,
    /// Most connections as the app role.
    pub database_connections: u32,
    /// PostgreSQL as the slice's worker role.
    pub database_worker_url: String,
    /// Redis.
    pub redis_url: String,
    /// The start of channels and keys; from the database when not given.
    pub instance: Option<String>,
    /// Keys for sealing.
    pub ring: Arc<KeyRing>,
    /// Seed of this service's own token key.
    pub service_key: SecretKey,
    /// Public token keys (PASERK `k4.public`) of the services, by slice.
    pub peer_keys: BTreeMap<String, String>,
    /// The key that vouches for the keys of access tokens.
    pub root_key: PublicKey,
    /// Addresses of the services, by slice.
    pub peers: BTreeMap<String, String>,
    /// Where traces go, if anywhere.
    pub otlp_endpoint: Option<String>,
    /// Log filter.
    pub log: String,
    /// Whether to log every SQL statement (never its values).
    pub log_sql: bool,
    /// Most calls at once; more are shed.
    pub concurrency: usize,
    /// What every rate limit is multiplied with.
    pub rate_scale: u32,
}

/// 32 secret bytes that print as nothing.
#[derive(Clone)]
pub struct SecretKey(pub [u8; 32]);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// The five slices and their gRPC and HTTP ports.
pub const SLICES: [(&str, u16, u16); 5] = [
    ("identity", 50051, 9051),
    ("designs", 50052, 9052),
    ("terraform_state", 50053, 9053),
    ("pipelines", 50054, 9054),
    ("audit", 50055, 9055),
];

impl Config {
    /// Reads what every service needs; `None` when a problem was noted.
    pub fn read(env: &mut Env, slice: &str) -> Option<Config> {
        if !SLICES.iter().any(|(name, _, _)| *name == slice) {
            env.problem(format!("{slice} is no slice of the suite"));
        }
        let environment = env.optional("BOARD3_ENVIRONMENT").unwrap_or_else(|| "dev".to_owned());
        if environment.is_empty()
            || environment.len() > 16
            || !environment
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        {
            env.problem("BOARD3_ENVIRONMENT must be 1 to 16 of a-z and 0-9");
        }
        let database_url = env.required("DATABASE_URL");
        let database_worker_url = env.required("DATABASE_WORKER_URL");
        let database_connections = env.number("DATABASE_CONNECTIONS", 16, 1..=1000);
        let redis_url = env.required("REDIS_URL");
        let instance = env.optional("BOARD3_INSTANCE");
        let ring = env.required("ENCRYPTION_KEY").and_then(|current| {
            let retired = env.optional("ENCRYPTION_KEYS_RETIRED").unwrap_or_default();
            KeyRing::parse(&current, &retired)
                .map_err(|problem| env.problem(format!("ENCRYPTION_KEY {problem}")))
                .ok()
        });
        let service_key = env.key("BOARD3_SERVICE_KEY").map(SecretKey);
        let mut peer_keys = BTreeMap::new();
        let mut malformed = false;
        for pair in env
            .required("BOARD3_PEER_KEYS")
            .unwrap_or_default()
            .split(',')
            .filter(|pair| !pair.is_empty())
        {
            match pair.split_once('=') {
                Some((name, key))
                    if SLICES.iter().any(|(slice, _, _)| *slice == name) && PublicKey::parse(key).is_some() =>
                {
                    peer_keys.insert(name.to_owned(), key.to_owned());
                }
                _ => malformed = true,
            }
        }
        if malformed {
            env.problem("BOARD3_PEER_KEYS must be a list like identity=k4.public.…,designs=k4.public.…");
        }
        let root_key = env.required("BOARD3_ROOT_PUBLIC_KEY").and_then(|text| {
            let key = PublicKey::parse(&text);
            if key.is_none() {
                env.problem("BOARD3_ROOT_PUBLIC_KEY must be a key like k4.public.…");
            }
            key
        });
        let mut peers = BTreeMap::new();
        for (name, port, _) in SLICES {
            let variable = format!("BOARD3_{}", name.to_uppercase());
            let address = env
                .optional(&variable)
                .unwrap_or_else(|| format!("http://127.0.0.1:{port}"));
            if !speakable(&address) {
                env.problem(format!(
                    "{variable} must be an address like http://127.0.0.1:{port}; TLS between services is the mesh's"
                ));
            }
            peers.insert(name.to_owned(), address);
        }
        let otlp_endpoint = env.optional("OTEL_EXPORTER_OTLP_ENDPOINT");
        let log = env.optional("BOARD3_LOG").unwrap_or_else(|| "info".to_owned());
        if EnvFilter::try_new(&log).is_err() {
            env.problem("BOARD3_LOG must be a log filter like info,kit=debug");
        }
        let log_sql = env
            .optional("BOARD3_LOG_SQL")
            .is_some_and(|value| value == "1" || value == "true");
        let concurrency = env.number("BOARD3_CONCURRENCY", 512, 1..=100_000);
        let rate_scale = env.number("BOARD3_RATE_SCALE", 1, 1..=u32::MAX);
        Some(Config {
            environment: environment.into(),
            database_url: database_url?,
            database_connections: database_connections?,
            database_worker_url: database_worker_url?,
            redis_url: redis_url?,
            instance,
            ring: Arc::new(ring?),
            service_key: service_key?,
            peer_keys,
            root_key: root_key?,
            peers,
            otlp_endpoint,
            log,
            log_sql,
            concurrency: concurrency?,
            rate_scale: rate_scale?,
        })
    }
}

/// Whether calls can be made to an address as it stands: in plain HTTP/2, to a host.
fn speakable(address: &str) -> bool {
    let endpoint = Endpoint::from_shared(address.to_owned());
    endpoint.is_ok_and(|endpoint| {
        let uri = endpoint.uri();
        uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_at_once_and_no_value_is() {
        let mut env = Env::of([
            ("ENCRYPTION_KEY".to_owned(), "cafe".to_owned()),
            ("BOARD3_SERVICE_KEY".to_owned(), "c0ffee".to_owned()),
            ("BOARD3_PEER_KEYS".to_owned(), "mars=k4.public.x,".repeat(2)),
            ("BOARD3_ROOT_PUBLIC_KEY".to_owned(), "k4.local.x".to_owned()),
            ("BOARD3_IDENTITY".to_owned(), "https://identity:50051".to_owned()),
            ("BOARD3_DESIGNS".to_owned(), "http://".to_owned()),
            ("BOARD3_AUDIT".to_owned(), "http://audit host:1".to_owned()),
            ("BOARD3_LOG".to_owned(), "kit=loud".to_owned()),
            ("DATABASE_CONNECTIONS".to_owned(), "0".to_owned()),
            ("BOARD3_CONCURRENCY".to_owned(), "100001".to_owned()),
            ("BOARD3_RATE_SCALE".to_owned(), "-1".to_owned()),
        ]);
        assert!(Config::read(&mut env, "designs").is_none());
        let problems = env.take_problems();
        for name in [
            "DATABASE_URL",
            "DATABASE_WORKER_URL",
            "REDIS_URL",
            "ENCRYPTION_KEY",
            "BOARD3_SERVICE_KEY",
            "BOARD3_PEER_KEYS",
            "BOARD3_ROOT_PUBLIC_KEY must be a key like k4.public.",
            "BOARD3_IDENTITY must be an address like http://",
            "BOARD3_DESIGNS must be an address like http://",
            "BOARD3_AUDIT must be an address like http://",
            "BOARD3_LOG",
            "DATABASE_CONNECTIONS must be a whole number from 1 to 1000",
            "BOARD3_CONCURRENCY must be a whole number from 1 to 100000",
            "BOARD3_RATE_SCALE must be a whole number from 1",
        ] {
            assert_eq!(
                problems.iter().filter(|problem| problem.starts_with(name)).count(),
                1,
                "{name}: {problems:?}"
            );
        }
        assert!(
            !problems
                .iter()
                .any(|problem| problem.contains("cafe") || problem.contains("c0ffee"))
        );
        assert_eq!(problems.len(), 14, "{problems:?}");
    }

    #[tokio::test]
    async fn a_port_is_taken_once_and_the_second_who_wants_it_is_told() {
        let mut env = Env::of([("BOARD3_ODD_LISTEN".to_owned(), "nowhere".to_owned())]);
        let first = env.listen("BOARD3_DOOR_LISTEN", "127.0.0.1:0").expect("a port is free");
        let default = first.address().to_string();
        assert!(env.listen("BOARD3_DOOR_LISTEN", &default).is_none());
        assert!(env.listen("BOARD3_ODD_LISTEN", "127.0.0.1:0").is_none());
        assert_eq!(
            env.take_problems(),
            [
                format!("BOARD3_DOOR_LISTEN: {default} cannot be listened on (address in use)"),
                "BOARD3_ODD_LISTEN must be an address with a port, like 127.0.0.1:0".to_owned(),
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_in_a_peers_key_or_address_is_refused_at_the_start() {
        let key = crate::auth::token::SigningKey::from_seed(&[1; 32]).public_key();
        for (keys, address, told) in [
            (format!("designs={key}"), "http://[::1]:50051", ""),
            (format!("designs={key}"), "http://identity.board3.svc:50051", ""),
            (
                format!("designs={}", &key[..30]),
                "http://[::1]:50051",
                "BOARD3_PEER_KEYS",
            ),
            (format!("designs={key}"), "identity:50051", "BOARD3_IDENTITY"),
        ] {
            let mut env = Env::of([
                ("BOARD3_PEER_KEYS".to_owned(), keys),
                ("BOARD3_IDENTITY".to_owned(), address.to_owned()),
            ]);
            assert!(Config::read(&mut env, "designs").is_none());
            let problems = env.take_problems();
            let about: Vec<_> = problems
                .iter()
                .filter(|problem| problem.starts_with("BOARD3_PEER_KEYS") || problem.starts_with("BOARD3_IDENTITY"))
                .collect();
            assert_eq!(about.len(), usize::from(!told.is_empty()), "{problems:?}");
            assert!(about.iter().all(|problem| problem.starts_with(told)), "{problems:?}");
        }
    }
}
