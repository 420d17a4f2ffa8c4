//! A runner, in this process or as one of its own, beside its stand-ins.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use api::pipelines::v1::StageKind;
use kit::config::Env;
use runner::Config;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::stand::{API_KEY, Stand};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_board3-runner");
/// A configuration that any Terraform can work on.
pub(crate) const CONFIGURATION: &str = r#"{"resource":{"terraform_data":{"one":{"input":"1"}}}}"#;

/// A program in place of Terraform: it counts interrupts in the file `interrupts` beside it, and heeds them after
/// `HEED` of them with status `STATUS`. Where there is a file `quick` beside it, `init` is over at once.
const STUBBORN: &str = r#"#!/bin/sh
[ "$1" = version ] && { echo '{"terraform_version":"0.0.1"}'; exit 0; }
[ "$1" = init ] && [ -e DIR/quick ] && exit 0
n=0
trap 'n=$((n + 1)); echo "interrupt $n" | tee -a "DIR/interrupts"; [ $n -lt HEED ] || exit STATUS' INT
echo "working in $PWD"
[ -e DIR/quick ] && [ "$1" = apply ] && echo unsaved > errored.tfstate
echo $$ > DIR/pid
echo begun >> DIR/begun
while :; do sleep 0.05; done
"#;

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) stand: Stand,
    runner: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    pub(crate) async fn new(configuration: &str) -> World {
        World {
            dir: tempfile::tempdir().unwrap(),
            stand: Stand::new(configuration).await,
            runner: None,
        }
    }

    /// A runner in this process that has the real Terraform; none where there is no Terraform.
    pub(crate) async fn with_terraform(configuration: &str) -> Option<World> {
        let path = std::env::var("PATH").unwrap();
        if !std::env::split_paths(&path).any(|dir| dir.join("terraform").is_file()) {
            eprintln!("there is no terraform on the path: nothing is tested here");
            return None;
        }
        let mut world = World::new(configuration).await;
        world.start("terraform");
        Some(world)
    }

    /// A runner in this process whose Terraform is stubborn.
    pub(crate) async fn with_stubborn(heed: u32, status: u8) -> World {
        let mut world = World::new(CONFIGURATION).await;
        let program = world.stubborn(heed, status);
        world.start(program.to_str().unwrap());
        world
    }

    pub(crate) fn stubborn(&self, heed: u32, status: u8) -> PathBuf {
        let path = self.dir.path().join("stubborn");
        let script = STUBBORN
            .replace("DIR", self.dir.path().to_str().unwrap())
            .replace("HEED", &heed.to_string())
            .replace("STATUS", &status.to_string());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn variables(&self, terraform: &str) -> Vec<(String, String)> {
        let address = format!("http://{}", self.stand.address);
        let pairs = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("BOARD3_PIPELINES", address.clone()),
            ("BOARD3_DESIGNS", address),
            ("BOARD3_RUNNER_API_KEY", API_KEY.to_owned()),
            ("BOARD3_RUNNER_NAME", "tester".to_owned()),
            ("BOARD3_RUNNER_DIR", self.work().to_str().unwrap().to_owned()),
            ("BOARD3_TERRAFORM", terraform.to_owned()),
            ("BOARD3_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Starts a runner in this process; where its health is served.
    pub(crate) fn start(&mut self, terraform: &str) -> SocketAddr {
        let config = Config::read(Env::of(self.variables(terraform))).unwrap();
        let health = config.http().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(runner::run(config.supervised_by(PROGRAM), stop.clone()));
        self.runner = Some((stop, running));
        health
    }

    /// A runner as a process of its own.
    pub(crate) fn process(&self, terraform: &str) -> Child {
        Command::new(PROGRAM)
            .env_clear()
            .envs(self.variables(terraform))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Where leases have their directories.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("leases")
    }

    /// What is known of a lease whose directory is kept.
    pub(crate) fn outcome(&self, lease: &str) -> serde_json::Value {
        let path = self.work().join(lease).join("outcome.json");
        std::fs::read(path).map_or(serde_json::Value::Null, |text| serde_json::from_slice(&text).unwrap())
    }

    pub(crate) fn interrupts(&self) -> usize {
        lines(&self.dir.path().join("interrupts"))
    }

    pub(crate) async fn begun(&self) {
        let begun = self.dir.path().join("begun");
        self.stand
            .until("the stubborn program's begin", |_| lines(&begun) > 0)
            .await;
    }

    /// `init` is over at once, and an apply leaves a state that it could not store.
    pub(crate) fn quick(&self) {
        std::fs::write(self.dir.path().join("quick"), "").unwrap();
    }

    /// Hands out an apply whose lease is short and whose `init` is over at once; the lease's id.
    pub(crate) fn apply(&self) -> String {
        self.quick();
        self.stand.with(|known| {
            known.expires_in = Duration::from_secs(2);
            known.plan = b"a plan".to_vec();
        });
        self.stand.hand_out(StageKind::Apply)
    }

    /// Whether the stubborn program still runs.
    pub(crate) fn stubborn_runs(&self) -> bool {
        self.stubborn_stat().is_some_and(|stat| !stat.starts_with(['Z', 'X']))
    }

    /// The stubborn program and the process beside it.
    pub(crate) fn stubborn_and_supervisor(&self) -> (i32, i32) {
        let stat = self.stubborn_stat().unwrap();
        (self.stubborn_pid(), stat.split(' ').nth(1).unwrap().parse().unwrap())
    }

    fn stubborn_pid(&self) -> i32 {
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).unwrap();
        pid.trim().parse().unwrap()
    }

    fn stubborn_stat(&self) -> Option<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.stubborn_pid())).ok()?;
        Some(stat.rsplit_once(") ")?.1.to_owned())
    }

    /// Stops the runner, which must end within a bound.
    pub(crate) async fn stop(&mut self) {
        let (stop, running) = self.runner.take().unwrap();
        stop.cancel();
        timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.runner {
            stop.cancel();
        }
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Waits, at most 40 s, until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come about");
}
