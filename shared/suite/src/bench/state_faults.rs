//! Terraform itself against the HTTP backend through a network that loses, spoils and cuts, a thousand times.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::future::try_join_all;
use testkit::faults::{Dice, Faults};
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use super::table::Table;
use crate::demo::Terraform;
use crate::layout::Layout;
use crate::up::Suite;
use crate::variables::Variables;

/// How many runs of Terraform there are where nothing else is asked for.
pub(super) const CYCLES: usize = 1_000;
/// How many states are worked on at once.
const STATES: usize = 4;
/// How long a run may take.
const LONGEST: Duration = Duration::from_secs(300);

/// What is counted of a state, or of all.
#[derive(Default)]
struct Toll {
    cycles: usize,
    applied: i64,
    failed: usize,
    stuck: i64,
    lost: i64,
    doubled: i64,
}

/// Runs so many cycles and prints the table. The seed is `BOARD3_FAULTS_SEED`, or another one each time.
pub(super) async fn measure(cycles: usize) -> Result<()> {
    let Terraform::Real(program) = Terraform::found() else {
        bail!("there is no terraform on PATH");
    };
    let given = std::env::var("BOARD3_FAULTS_SEED").ok();
    let seed = match given {
        Some(seed) => seed.parse().context("BOARD3_FAULTS_SEED must be a whole number")?,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("BOARD3_FAULTS_SEED={seed}");
    let dir = tempfile::Builder::new().prefix("b3-bench-").tempdir()?;
    let unlimited = Variables::from([("BOARD3_RATE_SCALE".to_owned(), "1000000".to_owned())]);
    let suite = Suite::start(Layout::on_unused_ports(&dir.path().join("suite"))?, &unlimited).await?;
    let (admin, connection) = tokio_postgres::connect(suite.backing.admin_url(), NoTls).await?;
    let connection = tokio::spawn(connection);
    let door: SocketAddr = suite.layout.terraform().parse()?;
    let began = Instant::now();
    let states = (0..STATES).map(|n| {
        let state = Faulty {
            program: program.clone(),
            dir: dir.path().join(format!("state-{n}")),
            name: format!("faulty-{n}"),
            password: suite.administrator.api_key.clone(),
            admin: &admin,
        };
        state.ride(
            door,
            seed + n as u64,
            cycles / STATES + usize::from(n < cycles % STATES),
        )
    });
    let mut all = Toll::default();
    for toll in try_join_all(states).await? {
        all.cycles += toll.cycles;
        all.applied += toll.applied;
        all.failed += toll.failed;
        all.stuck += toll.stuck;
        all.lost += toll.lost;
        all.doubled += toll.doubled;
    }
    println!(
        "{} runs in {:.0?}: {} applied a change, {} failed (an answer to GET that is cut ends a run)\n",
        all.cycles,
        began.elapsed(),
        all.applied,
        all.failed
    );
    let mut table = Table::default();
    table.at_most("stuck locks", 0.0, all.stuck as f64, "");
    table.at_most("lost versions", 0.0, all.lost as f64, "");
    table.at_most("doubled versions", 0.0, all.doubled as f64, "");
    print!("{table}");
    drop(admin);
    connection.await??;
    let layout = suite.layout.clone();
    suite.stop().await;
    layout.remove()
}

/// One state and the directory that it is worked on from.
struct Faulty<'a> {
    program: PathBuf,
    dir: PathBuf,
    name: String,
    password: String,
    admin: &'a Client,
}

impl Faulty<'_> {
    async fn ride(self, door: SocketAddr, seed: u64, cycles: usize) -> Result<Toll> {
        std::fs::create_dir_all(&self.dir)?;
        self.write(0)?;
        ensure!(
            self.run(door, &["init", "-input=false"]).await?,
            "terraform init does not end well"
        );
        let faults = Faults::before(door, seed).await;
        let mut dice = Dice::new(!seed);
        let mut toll = Toll {
            cycles,
            ..Toll::default()
        };
        for cycle in 1..=cycles {
            let good = if dice.below(3) == 0 {
                self.run(faults.address(), &["plan", "-input=false"]).await?
            } else {
                self.write(cycle)?;
                let good = self
                    .run(faults.address(), &["apply", "-auto-approve", "-input=false"])
                    .await?;
                toll.applied += i64::from(good);
                good
            };
            toll.failed += usize::from(!good);
            let held = "select count(*) from terraform_state.state_locks l
                join terraform_state.states s on s.org_id = l.org_id and s.id = l.state_id where s.name = $1";
            let stuck: i64 = self.admin.query_one(held, &[&self.name]).await?.get(0);
            toll.stuck += stuck;
            if stuck > 0 {
                println!("{}: a lock is stuck after run {cycle}", self.name);
                break;
            }
        }
        let versions = "select count(*), count(distinct serial) from terraform_state.state_versions v
            join terraform_state.states s on s.org_id = v.org_id and s.id = v.state_id where s.name = $1";
        let row = self.admin.query_one(versions, &[&self.name]).await?;
        let (count, serials): (i64, i64) = (row.get(0), row.get(1));
        toll.doubled = count - serials;
        toll.lost = (toll.applied - serials).max(0);
        Ok(toll)
    }

    fn write(&self, input: usize) -> Result<()> {
        let configuration = format!(
            "terraform {{\n  backend \"http\" {{}}\n}}\nresource \"terraform_data\" \"a\" {{\n  input = \"{input}\"\n}}\n"
        );
        Ok(std::fs::write(Path::new(&self.dir).join("main.tf"), configuration)?)
    }

    /// Whether Terraform ends well.
    async fn run(&self, at: SocketAddr, arguments: &[&str]) -> Result<bool> {
        let address = format!("http://{at}/v1/states/{}", self.name);
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.dir)
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_HTTP_ADDRESS", &address)
            .env("TF_HTTP_LOCK_ADDRESS", &address)
            .env("TF_HTTP_UNLOCK_ADDRESS", &address)
            .env("TF_HTTP_RETRY_WAIT_MIN", "0")
            .env("TF_HTTP_USERNAME", "anyone")
            .env("TF_HTTP_PASSWORD", &self.password)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(LONGEST, command.output()).await;
        let output = ended.map_err(|_| anyhow!("terraform {} does not end", arguments.join(" ")))??;
        Ok(output.status.success())
    }
}
