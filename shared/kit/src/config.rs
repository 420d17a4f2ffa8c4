//! Configuration from the environment; every problem is collected before anything fails.

use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr, sync::Arc};

use secrecy::SecretString;

use crate::crypto::KeyRing;

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

    /// Notes a problem.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// What is wrong, if anything is.
    pub fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }
}

/// What every service is configured with.
#[derive(Clone)]
pub struct Config {
    /// Names the deployment; part of every token, so that those of one environment are void in another.
    pub environment: Arc<str>,
    /// Where gRPC is served.
    pub grpc_listen: SocketAddr,
    /// Where health and metrics are served.
    pub http_listen: SocketAddr,
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
        let (_, grpc, http) = SLICES
            .iter()
            .find(|(name, _, _)| *name == slice)
            .copied()
            .unwrap_or_else(|| (slice_unknown(env, slice), 0, 0));
        let environment = env.optional("BOARD3_ENVIRONMENT").unwrap_or_else(|| "dev".to_owned());
        if environment.is_empty()
            || environment.len() > 16
            || !environment
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        {
            env.problem("BOARD3_ENVIRONMENT must be 1 to 16 of a-z and 0-9");
        }
        let grpc_listen = env.parsed(
            "BOARD3_GRPC_LISTEN",
            &format!("127.0.0.1:{grpc}"),
            "an address with a port, like 127.0.0.1:50051",
        );
        let http_listen = env.parsed(
            "BOARD3_HTTP_LISTEN",
            &format!("127.0.0.1:{http}"),
            "an address with a port, like 127.0.0.1:9051",
        );
        let database_url = env.required("DATABASE_URL");
        let database_worker_url = env.required("DATABASE_WORKER_URL");
        let database_connections = env.parsed("DATABASE_CONNECTIONS", "16", "a number of connections");
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
        for pair in env
            .required("BOARD3_PEER_KEYS")
            .unwrap_or_default()
            .split(',')
            .filter(|pair| !pair.is_empty())
        {
            match pair.split_once('=') {
                Some((name, key))
                    if SLICES.iter().any(|(slice, _, _)| *slice == name) && key.starts_with("k4.public.") =>
                {
                    peer_keys.insert(name.to_owned(), key.to_owned());
                }
                _ => env.problem("BOARD3_PEER_KEYS must be a list like identity=k4.public.…,designs=k4.public.…"),
            }
        }
        let mut peers = BTreeMap::new();
        for (name, port, _) in SLICES {
            let variable = format!("BOARD3_{}", name.to_uppercase());
            let address = env
                .optional(&variable)
                .unwrap_or_else(|| format!("http://127.0.0.1:{port}"));
            if !address.starts_with("http://") && !address.starts_with("https://") {
                env.problem(format!("{variable} must be an address like http://127.0.0.1:{port}"));
            }
            peers.insert(name.to_owned(), address);
        }
        let otlp_endpoint = env.optional("OTEL_EXPORTER_OTLP_ENDPOINT");
        let log = env.optional("BOARD3_LOG").unwrap_or_else(|| "info".to_owned());
        let log_sql = env
            .optional("BOARD3_LOG_SQL")
            .is_some_and(|value| value == "1" || value == "true");
        let concurrency = env.parsed("BOARD3_CONCURRENCY", "512", "a number of calls");
        let rate_scale = env.parsed("BOARD3_RATE_SCALE", "1", "a whole number");
        Some(Config {
            environment: environment.into(),
            grpc_listen: grpc_listen?,
            http_listen: http_listen?,
            database_url: database_url?,
            database_connections: database_connections?,
            database_worker_url: database_worker_url?,
            redis_url: redis_url?,
            instance,
            ring: Arc::new(ring?),
            service_key: service_key?,
            peer_keys,
            peers,
            otlp_endpoint,
            log,
            log_sql,
            concurrency: concurrency?,
            rate_scale: rate_scale?,
        })
    }
}

fn slice_unknown<'a>(env: &mut Env, slice: &'a str) -> &'a str {
    env.problem(format!("{slice} is no slice of the suite"));
    slice
}

/// A secret text of the environment that prints as nothing.
pub type Secret = SecretString;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_at_once_and_no_value_is() {
        let mut env = Env::of([
            ("ENCRYPTION_KEY".to_owned(), "cafe".to_owned()),
            ("BOARD3_SERVICE_KEY".to_owned(), "c0ffee".to_owned()),
            ("BOARD3_GRPC_LISTEN".to_owned(), "nowhere".to_owned()),
            ("BOARD3_PEER_KEYS".to_owned(), "mars=k4.public.x".to_owned()),
        ]);
        assert!(Config::read(&mut env, "designs").is_none());
        let problems = env.take_problems();
        for name in [
            "DATABASE_URL",
            "DATABASE_WORKER_URL",
            "REDIS_URL",
            "ENCRYPTION_KEY",
            "BOARD3_SERVICE_KEY",
            "BOARD3_GRPC_LISTEN",
            "BOARD3_PEER_KEYS",
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
    }
}
