//! What the runner is configured with; every problem is told at once, and no value is.

use std::{
    ffi::OsString,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};

use kit::config::{Env, Problems, SLICES};
use tempfile::TempDir;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Endpoint,
};
use tracing_subscriber::EnvFilter;

/// Everything the runner is started with.
pub struct Config {
    /// Where pipelines serves gRPC.
    pub(crate) pipelines: Endpoint,
    /// Where designs serves gRPC.
    pub(crate) designs: Endpoint,
    /// Where terraform_state serves gRPC.
    pub(crate) terraform_state: Endpoint,
    /// Where Terraform finds its states, instead of where the exported configuration says.
    pub(crate) terraform_http: Option<String>,
    /// The organization's API key.
    pub(crate) api_key: String,
    /// The runner's name in the organization.
    pub(crate) name: String,
    /// Where stages are worked on.
    pub(crate) work: Work,
    /// How many stages at once.
    pub(crate) slots: usize,
    /// Terraform's name or path.
    pub(crate) terraform: String,
    /// `PATH`, for finding Terraform and for what it starts.
    pub(crate) path: String,
    /// Terraform's own `TF_CLI_CONFIG_FILE`, passed on.
    pub(crate) cli_config: Option<String>,
    /// Where health is served.
    pub(crate) http: TcpListener,
    /// Log filter.
    pub(crate) log: String,
    /// This program, which also stands beside each Terraform.
    pub(crate) program: OsString,
}

/// The directory that holds one directory per lease.
pub(crate) enum Work {
    /// One that the operator named.
    Named(PathBuf),
    /// A private one that goes with the runner, unless something was left in it.
    Temporary(TempDir),
}

impl Work {
    /// Where it is.
    pub(crate) fn path(&self) -> &std::path::Path {
        match self {
            Work::Named(path) => path,
            Work::Temporary(dir) => dir.path(),
        }
    }
}

impl Config {
    /// Reads the environment, listens for health and makes the work directory.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn read(mut env: Env) -> Result<Config, Problems> {
        let pipelines = address(&mut env, "pipelines");
        let designs = address(&mut env, "designs");
        let terraform_state = address(&mut env, "terraform_state");
        let terraform_http = env.optional("BOARD3_TERRAFORM_HTTP");
        if terraform_http.as_deref().is_some_and(|address| !is_http(address)) {
            env.problem("BOARD3_TERRAFORM_HTTP must be an address like https://board3.example.org");
        }
        let api_key = env.required("BOARD3_RUNNER_API_KEY").filter(|key| {
            let fits = format!("Bearer {key}").parse::<MetadataValue<Ascii>>().is_ok() && !key.contains(' ');
            if !fits {
                env.problem("BOARD3_RUNNER_API_KEY must be an API key, as CreateApiKey answered it");
            }
            fits
        });
        let name = env
            .optional("BOARD3_RUNNER_NAME")
            .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
        if !is_name(&name) {
            env.problem("BOARD3_RUNNER_NAME must be 1 to 100 of A-Z, a-z, 0-9, _, . and -");
        }
        let slots = env.number("BOARD3_RUNNER_SLOTS", 1, 1..=64);
        let terraform = env
            .optional("BOARD3_TERRAFORM")
            .unwrap_or_else(|| "terraform".to_owned());
        let path = env.optional("PATH").unwrap_or_default();
        let cli_config = env.optional("TF_CLI_CONFIG_FILE");
        let log = env.optional("BOARD3_LOG").unwrap_or_else(|| "info".to_owned());
        if EnvFilter::try_new(&log).is_err() {
            env.problem("BOARD3_LOG must be a log filter like info,runner=debug");
        }
        let http = listen(&mut env);
        let work = work(&mut env);
        let program = std::env::current_exe()
            .map_err(|error| env.problem(format!("the program cannot find itself ({error})")))
            .ok();
        let problems = env.take_problems();
        let services = pipelines.zip(designs).zip(terraform_state);
        match (services, api_key, slots, http, work, program) {
            (
                Some(((pipelines, designs), terraform_state)),
                Some(api_key),
                Some(slots),
                Some(http),
                Some(work),
                Some(program),
            ) if problems.is_empty() => Ok(Config {
                pipelines,
                designs,
                terraform_state,
                terraform_http,
                api_key,
                name,
                work,
                slots,
                terraform,
                path,
                cli_config,
                http,
                log,
                program: program.into_os_string(),
            }),
            _ => Err(Problems(problems)),
        }
    }

    /// Lets another program stand beside Terraform, for tests that are a program of their own.
    pub fn supervised_by(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// Where health is served.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.local_addr().ok()
    }
}

fn address(env: &mut Env, slice: &str) -> Option<Endpoint> {
    let port = SLICES
        .iter()
        .find(|(name, _, _)| *name == slice)
        .map_or(0, |slice| slice.1);
    let variable = format!("BOARD3_{}", slice.to_uppercase());
    let address = env
        .optional(&variable)
        .unwrap_or_else(|| format!("http://127.0.0.1:{port}"));
    let endpoint = Endpoint::from_shared(address)
        .ok()
        .filter(|endpoint| endpoint.uri().scheme_str() == Some("http"))
        .filter(|endpoint| endpoint.uri().host().is_some_and(|host| !host.is_empty()));
    if endpoint.is_none() {
        env.problem(format!("{variable} must be an address like http://127.0.0.1:{port}"));
    }
    endpoint
}

fn is_http(address: &str) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(address.to_owned()) else {
        return false;
    };
    let uri = endpoint.uri();
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

fn is_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn listen(env: &mut Env) -> Option<TcpListener> {
    let address: SocketAddr = env.parsed(
        "BOARD3_HTTP_LISTEN",
        "127.0.0.1:9056",
        "an address with a port, like 127.0.0.1:9056",
    )?;
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound
        .map_err(|error| {
            env.problem(format!(
                "BOARD3_HTTP_LISTEN: {address} cannot be listened on ({})",
                error.kind()
            ));
        })
        .ok()
}

fn work(env: &mut Env) -> Option<Work> {
    let Some(named) = env.optional("BOARD3_RUNNER_DIR") else {
        return tempfile::Builder::new()
            .prefix("board3-runner-")
            .tempdir()
            .map(Work::Temporary)
            .map_err(|error| {
                env.problem(format!(
                    "no temporary directory ({}); set BOARD3_RUNNER_DIR",
                    error.kind()
                ))
            })
            .ok();
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&named);
    // A directory that only looks usable is found out now, and not with the first stage.
    let usable = made
        .and_then(|()| std::fs::canonicalize(&named))
        .and_then(|path| tempfile::tempdir_in(&path).map(|_| path));
    usable
        .map(Work::Named)
        .map_err(|error| env.problem(format!("BOARD3_RUNNER_DIR cannot be written to ({})", error.kind())))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::of(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn every_problem_is_told_at_once_and_no_value_is() {
        let problems = Config::read(env(&[
            ("BOARD3_PIPELINES", "https://pipelines:1"),
            ("BOARD3_DESIGNS", "nowhere at all"),
            ("BOARD3_TERRAFORM_HTTP", "ftp://x"),
            ("BOARD3_RUNNER_API_KEY", "b3k_c0ffee with a blank"),
            ("BOARD3_RUNNER_NAME", "über"),
            ("BOARD3_RUNNER_DIR", "/dev/null/x"),
            ("BOARD3_RUNNER_SLOTS", "0"),
            ("BOARD3_LOG", "runner=loud"),
            ("BOARD3_HTTP_LISTEN", "here"),
        ]))
        .err()
        .map(|problems| problems.0)
        .unwrap_or_default();
        for name in [
            "BOARD3_PIPELINES",
            "BOARD3_DESIGNS",
            "BOARD3_TERRAFORM_HTTP",
            "BOARD3_RUNNER_API_KEY",
            "BOARD3_RUNNER_NAME",
            "BOARD3_RUNNER_DIR",
            "BOARD3_RUNNER_SLOTS",
            "BOARD3_LOG",
            "BOARD3_HTTP_LISTEN",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(name)),
                "{name}: {problems:?}"
            );
        }
        assert_eq!(problems.len(), 9, "{problems:?}");
        assert!(
            !problems.iter().any(|problem| problem.contains("c0ffee")),
            "{problems:?}"
        );
    }

    #[test]
    fn a_key_alone_is_enough() {
        let config = Config::read(env(&[
            ("BOARD3_RUNNER_API_KEY", "b3k_x"),
            ("BOARD3_HTTP_LISTEN", "127.0.0.1:0"),
        ]));
        assert!(config.is_ok(), "{:?}", config.err());
        assert!(Config::read(env(&[("BOARD3_HTTP_LISTEN", "127.0.0.1:0")])).is_err());
    }
}
