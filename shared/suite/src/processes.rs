//! The services as processes of their own, from the binaries beside this one.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kit::service::Service;
use testkit::guard::Guard;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::SERVICES;
use crate::backing::Backing;
use crate::keys::Keys;
use crate::layout::Layout;
use crate::mail::{self, Mailbox};
use crate::variables::Variables;

/// Until this long after their start all services must be ready.
const START: Duration = Duration::from_secs(60);

/// The runner's name among the processes and its logs.
pub const RUNNER: &str = "runner";

/// A process of the suite.
pub struct Process {
    name: &'static str,
    guard: Guard,
    http: String,
}

/// The processes of all services, and the runner's; dropping them ends them.
pub struct Processes(Vec<Process>);

impl Processes {
    /// Starts every service; `more` is added to each one's environment.
    pub fn start(layout: &Layout, keys: &Keys, backing: &Backing, more: &Variables) -> Result<Processes> {
        std::fs::create_dir_all(layout.dir().join("log"))?;
        let binaries = SERVICES.map(|service| binary(service.slice.name));
        let binaries = binaries.into_iter().collect::<Result<Vec<_>>>()?;
        let missing: Vec<_> = (binaries.iter().chain([&binary(RUNNER)?]))
            .filter(|path| !path.exists())
            .map(|path| path.display().to_string())
            .collect();
        ensure!(
            missing.is_empty(),
            "not built yet (cargo build --workspace --bins): {}",
            missing.join(", ")
        );
        let mut processes = Vec::new();
        for (service, binary) in SERVICES.into_iter().zip(binaries) {
            let mut command = Command::new(binary);
            command
                .env_remove("DATABASE_ADMIN_URL")
                .env_remove("DATABASE_MIGRATE_URL");
            command.envs(environment(layout, keys, backing, &service)?).envs(more);
            let guard = Guard::spawn(&command, "TERM", None, &layout.log(service.slice.name))?;
            processes.push(Process {
                name: service.slice.name,
                guard,
                http: layout.http(service.slice),
            });
        }
        Ok(Processes(processes))
    }

    /// Starts a runner that works with this API key.
    pub fn start_runner(&mut self, layout: &Layout, api_key: &str) -> Result<()> {
        let mut command = Command::new(binary(RUNNER)?);
        command.env("BOARD3_RUNNER_NAME", "local");
        command
            .env("BOARD3_RUNNER_API_KEY", api_key)
            .env("BOARD3_RUNNER_DIR", layout.runner_dir())
            .env("BOARD3_HTTP_LISTEN", layout.runner());
        for (name, value) in addresses(layout) {
            command.env(name, value);
        }
        let guard = Guard::spawn(&command, "TERM", None, &layout.log(RUNNER))?;
        self.0.push(Process {
            name: RUNNER,
            guard,
            http: layout.runner(),
        });
        Ok(())
    }

    /// The process of a slice or the runner, for killing and freezing it.
    pub fn of(&self, name: &str) -> &Guard {
        let mut own = self.0.iter().filter(|process| process.name == name);
        &own.next().expect("every service has a process").guard
    }

    /// Waits until all services are ready; fails as soon as one has ended.
    pub async fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + START;
        for process in &self.0 {
            let name = process.name;
            while !is_ready(&process.http).await {
                if let Some(message) = self.ended() {
                    bail!(message);
                }
                if Instant::now() > deadline {
                    let report = get(&process.http, "/health/ready").await.unwrap_or_default();
                    bail!(
                        "{name} is not ready after {} s\n{report}\n{}",
                        START.as_secs(),
                        process.guard.log_tail()
                    );
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Which services have ended by themselves, and what they wrote last.
    pub fn ended(&self) -> Option<String> {
        let ended = self.0.iter().filter(|process| !process.guard.alive());
        let messages: Vec<_> = ended
            .map(|p| format!("{} ended; its last words:\n{}", p.name, p.guard.log_tail()))
            .collect();
        (!messages.is_empty()).then(|| messages.join("\n"))
    }

    /// Asks all to end and waits until they have.
    pub async fn stop(self) {
        let mut stops = tokio::task::JoinSet::new();
        for process in self.0 {
            stops.spawn(async move { process.guard.stop().await });
        }
        stops.join_all().await;
    }
}

/// The program of a slice or the runner.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this program")?;
    let dir = own.parent().context("the directory of this program")?;
    // Test binaries lie one level deeper.
    let dir = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    Ok(dir.join(format!("board3-{}", name.replace('_', "-"))))
}

/// Everything that a service reads from its environment.
fn environment(layout: &Layout, keys: &Keys, backing: &Backing, service: &Service) -> Result<Variables> {
    let slice = service.slice;
    let mut variables = Variables::new();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    set(
        "BOARD3_ENVIRONMENT",
        std::env::var("BOARD3_ENVIRONMENT").unwrap_or_else(|_| "dev".into()),
    );
    set("BOARD3_GRPC_LISTEN", layout.grpc(slice));
    set("BOARD3_HTTP_LISTEN", layout.http(slice));
    set("DATABASE_URL", backing.url(&slice.app())?);
    set("DATABASE_WORKER_URL", backing.url(&slice.worker())?);
    set("REDIS_URL", backing.redis_url().to_owned());
    set("BOARD3_PEER_KEYS", keys.peer_keys()?);
    set("BOARD3_ROOT_PUBLIC_KEY", keys.root_public_key()?);
    for (name, value) in addresses(layout) {
        set(&name, value);
    }
    if slice.name == "identity" {
        set(mail::SETTING, Mailbox::in_dir(&layout.mail())?.setting());
    }
    if slice.name == "terraform_state" {
        set("BOARD3_TERRAFORM_LISTEN", layout.terraform());
    }
    for (name, value) in keys.of(slice.name) {
        set(name, value.to_owned());
    }
    Ok(variables)
}

/// `BOARD3_IDENTITY` and so on: where the services and Terraform's backend are reached.
pub(crate) fn addresses(layout: &Layout) -> Variables {
    let mut addresses: Variables = SERVICES
        .iter()
        .map(|service| {
            let name = format!("BOARD3_{}", service.slice.name.to_uppercase());
            (name, format!("http://{}", layout.grpc(service.slice)))
        })
        .collect();
    addresses.insert("BOARD3_TERRAFORM_HTTP".into(), format!("http://{}", layout.terraform()));
    addresses
}

async fn is_ready(address: &str) -> bool {
    get(address, "/health/ready")
        .await
        .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The whole answer, status line included.
async fn get(address: &str, path: &str) -> Result<String> {
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    timeout(Duration::from_secs(2), answer).await.context("no answer")?
}
