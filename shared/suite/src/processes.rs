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
use crate::variables::Variables;

/// Until this long after their start all services must be ready.
const START: Duration = Duration::from_secs(60);

/// One service's process.
pub struct Process {
    service: Service,
    guard: Guard,
    http: String,
}

/// All services' processes; dropping them ends them.
pub struct Processes(Vec<Process>);

impl Processes {
    /// Starts every service; `more` is added to each one's environment.
    pub fn start(layout: &Layout, keys: &Keys, backing: &Backing, more: &Variables) -> Result<Processes> {
        std::fs::create_dir_all(layout.dir().join("log"))?;
        let binaries = binaries()?;
        let missing: Vec<_> = binaries
            .iter()
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
                service,
                guard,
                http: layout.http(service.slice),
            });
        }
        Ok(Processes(processes))
    }

    /// The process of a slice, for killing, freezing and starting it again.
    pub fn of(&self, slice: &str) -> &Guard {
        let mut own = self.0.iter().filter(|process| process.service.slice.name == slice);
        &own.next().expect("every service has a process").guard
    }

    /// Waits until all services are ready; fails as soon as one has ended.
    pub async fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + START;
        for process in &self.0 {
            let name = process.service.slice.name;
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
            .map(|p| {
                format!(
                    "{} ended; its last words:\n{}",
                    p.service.slice.name,
                    p.guard.log_tail()
                )
            })
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

fn binaries() -> Result<Vec<PathBuf>> {
    let own = std::env::current_exe().context("the path of this program")?;
    let dir = own.parent().context("the directory of this program")?;
    // Test binaries lie one level deeper.
    let dir = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    Ok(SERVICES
        .iter()
        .map(|s| dir.join(format!("board3-{}", s.slice.name.replace('_', "-"))))
        .collect())
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
    for peer in SERVICES {
        set(&address_variable(&peer), format!("http://{}", layout.grpc(peer.slice)));
    }
    for (name, value) in keys.of(slice.name) {
        set(name, value.to_owned());
    }
    Ok(variables)
}

/// `BOARD3_IDENTITY` and so on: where a service is reached.
pub(crate) fn address_variable(service: &Service) -> String {
    format!("BOARD3_{}", service.slice.name.to_uppercase())
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
