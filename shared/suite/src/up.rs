//! `board3 up`: the whole suite in the foreground, or behind it.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::SERVICES;
use crate::backing::Backing;
use crate::control::{self, Control};
use crate::keys::Keys;
use crate::layout::Layout;
use crate::mail;
use crate::processes::{Processes, RUNNER, addresses};
use crate::seed::{Administrator, seed};
use crate::variables::{self, Variables};

/// A suite that is ready for calls. Dropping it ends all of it.
pub struct Suite {
    /// The services; dropped before what they store in.
    pub processes: Processes,
    /// PostgreSQL and Redis.
    pub backing: Backing,
    /// The first user and API key.
    pub administrator: Administrator,
    /// Directory and ports.
    pub layout: Layout,
}

impl Suite {
    /// Starts, migrates and seeds; `more` is added to the environment of every service.
    pub async fn start(layout: Layout, more: &Variables) -> Result<Suite> {
        let taken = layout.taken_ports();
        ensure!(
            taken.is_empty(),
            "these addresses are taken: {}; choose others with --port-base",
            taken.join(", ")
        );
        let keys = Keys::kept_in(&layout.dir().join("keys"))?;
        let backing = Backing::start(&layout).await?;
        backing.migrate().await?;
        let mut processes = Processes::start(&layout, &keys, &backing, more)?;
        processes.ready().await?;
        let identity = format!("http://{}", layout.grpc(identity::SERVICE.slice));
        let administrator = seed(&layout, &identity).await.context("the administrator")?;
        processes.start_runner(&layout, &administrator.runner_api_key)?;
        processes.ready().await?;
        let suite = Suite {
            processes,
            backing,
            administrator,
            layout,
        };
        variables::write(&suite.layout.env_file(), &suite.variables())?;
        Ok(suite)
    }

    /// Ends the services first, then what they store in.
    pub async fn stop(self) {
        let _ = std::fs::remove_file(self.layout.env_file());
        self.processes.stop().await;
    }

    /// What the env file holds.
    fn variables(&self) -> Variables {
        let mut variables = addresses(&self.layout);
        let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
        set("BOARD3_ADMIN_EMAIL", &self.administrator.email);
        set("BOARD3_ADMIN_PASSWORD", &self.administrator.password);
        set("BOARD3_API_KEY", &self.administrator.api_key);
        set("BOARD3_DATABASE_ADMIN_URL", self.backing.admin_url());
        set("BOARD3_REDIS_URL", self.backing.redis_url());
        set(mail::SETTING, &format!("file:{}", self.layout.mail().display()));
        variables
    }
}

/// Runs until Ctrl-C, SIGTERM, `board3 down`, or the end of a service.
#[allow(clippy::print_stdout, reason = "what a person sees of `up`")]
pub async fn foreground(layout: Layout) -> Result<ExitCode> {
    let control = Control::listen(&layout).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Caught, so that a closed terminal ends the suite in order; one that runs detached has no terminal.
    let mut hangup = signal(SignalKind::hangup())?;
    let detached = std::env::var_os(DETACHED).is_some();
    let mut end = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv(), if !detached => {}
            () = control.asked_to_end() => {}
        }
    });

    println!("starting; logs are in {}", shown(&layout.dir().join("log")));
    let nothing_more = Variables::new();
    let suite = tokio::select! {
        suite = Suite::start(layout.clone(), &nothing_more) => suite?,
        () = &mut end => bail!("ended before it was ready"),
    };
    control.ready();
    println!("{}", described(&layout));
    println!(
        "{}",
        if detached {
            "`./dev down` ends it."
        } else {
            "Ctrl-C ends it."
        }
    );

    let failure = tokio::select! {
        message = until_one_ends(&suite.processes) => Some(message),
        () = end => None,
    };
    println!("ending …");
    suite.stop().await;
    match failure {
        Some(message) => bail!(message),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Starts [`foreground`] as a process of its own and waits until it is ready.
#[allow(clippy::print_stdout, reason = "what a person sees of `up`")]
pub async fn detached(layout: Layout, arguments: &[String]) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    if control::state(&layout).await?.is_some() {
        bail!(
            "a suite already runs in {}; `./dev down` ends it",
            layout.dir().display()
        );
    }
    let path = layout.log("up");
    std::fs::create_dir_all(layout.dir().join("log"))?;
    let log = std::fs::File::create(&path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").args(arguments).env(DETACHED, "1").process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + Duration::from_secs(180);
    while control::state(&layout).await? != Some(true) {
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            let _ = control::end(&layout).await;
            bail!("the suite did not start\n{}", std::fs::read_to_string(&path)?.trim());
        }
        sleep(Duration::from_millis(50)).await;
    }
    println!("{}\n`./dev down` ends it.", described(&layout));
    Ok(ExitCode::SUCCESS)
}

/// Set for the process that [`detached`] starts.
const DETACHED: &str = "BOARD3_DETACHED";

async fn until_one_ends(processes: &Processes) -> String {
    loop {
        if let Some(message) = processes.ended() {
            return message;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The header that the env file's key goes into.
const KEY: &str = "-H \"authorization: Bearer $BOARD3_API_KEY\"";

/// The table of services and lines to paste.
fn described(layout: &Layout) -> String {
    let mut text = format!("\n{:<18} {:<18} {:<30} log\n", "service", "gRPC", "health, metrics");
    for service in SERVICES {
        let (name, http) = (
            service.slice.name,
            format!("http://{}/health", layout.http(service.slice)),
        );
        let log = shown(&layout.log(name));
        let _ = writeln!(text, "{name:<18} {:<18} {http:<30} {log}", layout.grpc(service.slice));
    }
    let (http, log) = (format!("http://{}/health", layout.runner()), shown(&layout.log(RUNNER)));
    let _ = writeln!(text, "{RUNNER:<18} {:<18} {http:<30} {log}", "");
    let _ = writeln!(
        text,
        "\nTerraform's backend is http://{}/v1/states/NAME.",
        layout.terraform()
    );
    let (designs, audit) = (layout.grpc(designs::SERVICE.slice), layout.grpc(audit::SERVICE.slice));
    let calls = [
        (&designs, "board3.designs.v1.TemplateService/ListTemplates", "{}"),
        (
            &designs,
            "board3.designs.v1.DesignService/CreateDesign",
            r#"{"name": "First", "cloud_provider": "CLOUD_PROVIDER_BUILTIN"}"#,
        ),
        (
            &audit,
            "board3.audit.v1.AuditService/ListAuditLogs",
            r#"{"page_size": 3}"#,
        ),
    ];
    let env = shown(&layout.env_file());
    let env = if env.contains('/') { env } else { format!("./{env}") };
    let _ = writeln!(text, "\nTry it:\n  . {env}");
    let grpcurl = tool("grpcurl", ".tools/bin/grpcurl").unwrap_or_else(|| "grpcurl".into());
    for (address, rpc, body) in &calls {
        let _ = writeln!(text, "  {grpcurl} -plaintext {KEY} -d '{body}' {address} {rpc}");
    }
    if let Some(buf) = tool("buf", ".tools/node_modules/.bin/buf") {
        let _ = writeln!(text, "or, with buf:");
        for (address, rpc, body) in &calls {
            let over = "--protocol grpc --http2-prior-knowledge";
            let _ = writeln!(text, "  {buf} curl {over} {KEY} -d '{body}' http://{address}/{rpc}");
        }
    }
    let _ = writeln!(text, "\nMail is not sent but kept in {}.", shown(&layout.mail()));
    let _ = write!(text, "The administrator's e-mail address and password are in {env}.");
    text
}

/// A path as a person below the current directory writes it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// How a person here calls a tool: by its name, else by where `./dev` put it.
fn tool(name: &str, ours: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // `./dev` puts .tools on its own PATH, where a person's shell does not look.
    let mut dirs =
        std::env::split_paths(&path).filter(|dir| !dir.components().any(|part| part.as_os_str() == ".tools"));
    if dirs.any(|dir| dir.join(name).is_file()) {
        return Some(name.to_owned());
    }
    Path::new(ours).exists().then(|| ours.to_owned())
}

/// The running suite's environment file.
pub(crate) fn running(layout: &Layout) -> Result<Variables> {
    let variables = variables::read(&layout.env_file())?;
    ensure!(
        !variables.is_empty(),
        "no suite runs in {}; `./dev up` starts one",
        layout.dir().display()
    );
    Ok(variables)
}
