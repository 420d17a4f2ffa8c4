//! Terraform as a process: found on the path, with an environment of its own, under a supervisor.

use std::{
    fs::File,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    config::Config,
    supervise::{FENCED, Order, Report},
};

/// The name that Terraform's HTTP backend sends beside a job's credential.
pub(crate) const USER: &str = "job";

/// Where Terraform is; none where it is not.
pub(crate) fn find(config: &Config) -> Option<PathBuf> {
    let runs = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if config.terraform.contains('/') {
        let path = std::path::absolute(&config.terraform).ok()?;
        return runs(&path).then_some(path);
    }
    std::env::split_paths(&config.path)
        .map(|dir| dir.join(&config.terraform))
        .find(|path| path.is_absolute() && runs(path))
}

/// What Terraform says its version is; empty where it does not say.
pub(crate) async fn version(config: &Config) -> String {
    let Some(program) = find(config) else {
        return String::new();
    };
    let mut command = Command::new(program);
    environment(&mut command, config, config.work.path());
    command
        .args(["version", "-json"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let Ok(Ok(output)) = timeout(Duration::from_secs(10), command.output()).await else {
        return String::new();
    };
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let version = said["terraform_version"].as_str().unwrap_or_default();
    version.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Nothing of the runner's own environment but what Terraform needs.
fn environment(command: &mut Command, config: &Config, home: &Path) {
    command
        .env_clear()
        .env("PATH", &config.path)
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("TF_IN_AUTOMATION", "1")
        .env("TF_INPUT", "0")
        .env("CHECKPOINT_DISABLE", "1");
    if let Some(path) = &config.cli_config {
        command.env("TF_CLI_CONFIG_FILE", path);
    }
}

/// A Terraform that runs. Dropped, it is interrupted and later killed.
pub(crate) struct Terraform {
    /// Reaped after it was dropped.
    _supervisor: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
    group: Option<Pid>,
    /// Known where it was interrupted.
    kill_at: Option<Instant>,
}

/// How Terraform ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// There was nothing to start.
    Missing(String),
    /// It did not start though it is there.
    Broken(String),
    /// Its supervisor was gone before it.
    Unknown,
}

impl Terraform {
    /// Starts it in a directory, for as long as the lease lasts. All it writes goes to `output`.
    pub(crate) fn start(
        config: &Config,
        program: &Path,
        arguments: &[String],
        dir: &Path,
        output: File,
        job_credential: &str,
        lease: Duration,
    ) -> io::Result<Terraform> {
        let mut command = Command::new(&config.program);
        environment(&mut command, config, dir);
        let mut supervisor = command
            .env("TF_HTTP_USERNAME", USER)
            .env("TF_HTTP_PASSWORD", job_credential)
            .current_dir(dir)
            .arg("supervise")
            .arg(lease.as_millis().to_string())
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            // Ctrl-C reaches the runner, which asks for what is to be done.
            .process_group(0)
            .spawn()?;
        let (Some(orders), Some(reports)) = (supervisor.stdin.take(), supervisor.stdout.take()) else {
            return Err(io::Error::other("the supervisor has no pipes"));
        };
        Ok(Terraform {
            _supervisor: supervisor,
            orders,
            reports: BufReader::new(reports).lines(),
            group: None,
            kill_at: None,
        })
    }

    /// The lease goes on for so long.
    pub(crate) async fn keep(&mut self, lease: Duration) {
        self.order(Order::Keep(lease)).await;
    }

    /// Interrupts it, if that was not done before, and kills it after `grace`.
    pub(crate) async fn interrupt(&mut self, grace: Duration) {
        self.order(Order::Interrupt(grace)).await;
        // Where the supervisor has not heard it, it is done in its stead.
        let kill_at = Instant::now() + grace;
        self.kill_at = self.kill_at.map(|before| before.min(kill_at));
    }

    /// Completes when it has ended, or nobody can say so any more; may be dropped and called again before that.
    pub(crate) async fn end(&mut self) -> End {
        loop {
            let report = match self.reports.next_line().await {
                Ok(Some(line)) => Report::parse(&line),
                Ok(None) | Err(_) => return End::Unknown,
            };
            match report {
                Some(Report::Started(group)) => self.group = Pid::from_raw(group),
                Some(Report::Exited(status)) => return End::Exited(status),
                Some(Report::Signalled(signal)) => return End::Signalled(signal),
                Some(Report::Interrupted(grace)) => self.kill_at = Some(Instant::now() + grace),
                Some(Report::Missing(why)) => return End::Missing(why),
                Some(Report::Broken(why)) => return End::Broken(why),
                None => {}
            }
        }
    }

    async fn order(&mut self, order: Order) {
        // A supervisor that is gone is found out by `end`.
        let _ = self.orders.write_all(order.line().as_bytes()).await;
    }

    /// Ends a Terraform whose supervisor is gone before it: by an interrupt where it had none, and by the lease's clock.
    pub(crate) async fn end_alone(self, grace: Duration, lease_ends: impl Fn() -> Instant) {
        let Some(group) = self.group else { return };
        let mut kill_at = self.kill_at.unwrap_or_else(|| {
            tracing::error!("the supervisor is gone; terraform is interrupted");
            let _ = kill_process_group(group, Signal::INT);
            Instant::now() + grace
        });
        while test_kill_process_group(group).is_ok() {
            let (now, end) = (Instant::now(), lease_ends());
            if now >= end {
                kill_at = kill_at.min(end + FENCED);
            }
            if now >= kill_at {
                let _ = kill_process_group(group, Signal::KILL);
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
