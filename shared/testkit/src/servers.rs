//! A private PostgreSQL and Redis: no port, no system service, no account of the machine's own cluster.
//!
//! [`postgres`] and [`redis_url`] are one pair per process, started on first use and gone with the process.
//! [`Postgres::start`] and [`Redis::start`] make more, for tests that stop, kill or freeze them and for `board3 up`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::guard::Guard;

/// A start that takes longer has failed.
const START: Duration = Duration::from_secs(60);

/// Where a server keeps its files.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a directory of its own that ends with it; nothing is made durable.
    Scratch,
    /// In this directory, which stays; only the socket is temporary.
    Kept(PathBuf),
}

/// A PostgreSQL server of this process.
#[derive(Debug)]
pub struct Postgres {
    guard: Guard,
    sockets: PathBuf,
}

/// A Redis server of this process. It stores nothing: what it held is gone when it ends.
#[derive(Debug)]
pub struct Redis {
    guard: Guard,
    socket: PathBuf,
}

/// The PostgreSQL of this process. Panics with what is missing where it cannot start.
pub async fn postgres() -> &'static Postgres {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    SERVER
        .get_or_init(async || match Postgres::start(Place::Scratch).await {
            Ok(server) => server,
            Err(error) => panic!("private PostgreSQL: {error:#}"),
        })
        .await
}

/// The URL of the Redis of this process. Panics with what is missing where it cannot start.
pub async fn redis_url() -> String {
    static SERVER: OnceCell<Redis> = OnceCell::const_new();
    let server = SERVER
        .get_or_init(async || match Redis::start().await {
            Ok(server) => server,
            Err(error) => panic!("private Redis: {error:#}"),
        })
        .await;
    server.url()
}

impl Postgres {
    /// Makes the cluster where there is none yet, starts it and waits until it takes connections.
    pub async fn start(place: Place) -> Result<Postgres> {
        let (guard, sockets) = tokio::task::spawn_blocking(move || launch_postgres(&place)).await??;
        let server = Postgres { guard, sockets };
        server.ready().await?;
        Ok(server)
    }

    /// Directory of the unix socket.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The superuser, in the database `postgres`.
    pub fn admin_url(&self) -> String {
        self.url("postgres", "postgres")
    }

    /// `role`, in `database`; roles need no password here.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgresql://{role}@{}/{database}", percent_encoded(&self.sockets))
    }

    /// What to stop, kill, freeze or start again. Databases survive `stop` and `start`.
    pub fn process(&self) -> &Guard {
        &self.guard
    }

    /// Waits until the server takes connections, as after [`Guard::start`].
    pub async fn ready(&self) -> Result<()> {
        let url = self.admin_url();
        until_ready(&self.guard, async || {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client.simple_query("select 1").await?;
            Ok(())
        })
        .await
        .context("PostgreSQL did not start")
    }
}

impl Redis {
    /// Starts a server on a unix socket and waits until it answers.
    pub async fn start() -> Result<Redis> {
        let program = program("redis-server", &[]).context("Redis 7+ is missing: apt-get install redis-server")?;
        let dir = scratch(None)?;
        let socket = dir.join("redis.sock");
        let mut command = Command::new(program);
        command.args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocketperm",
            "700",
            "--unixsocket",
        ]);
        command.arg(&socket).arg("--dir").arg(&dir).current_dir(&dir);
        let guard = Guard::spawn(&command, "TERM", Some(&dir), &dir.join("log"))?;
        let server = Redis { guard, socket };
        server.ready().await?;
        Ok(server)
    }

    /// `redis+unix://…`
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    /// What to stop, kill, freeze or start again; the URL stays the same.
    pub fn process(&self) -> &Guard {
        &self.guard
    }

    /// Waits until the server answers, as after [`Guard::start`].
    pub async fn ready(&self) -> Result<()> {
        until_ready(&self.guard, async || {
            let mut stream = tokio::net::UnixStream::connect(&self.socket).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            ensure!(&answer == b"+PONG", "not ready");
            Ok(())
        })
        .await
        .context("Redis did not start")
    }
}

fn launch_postgres(place: &Place) -> Result<(Guard, PathBuf)> {
    let missing = "PostgreSQL 15+ is missing: apt-get install postgresql";
    let places = debian_bins();
    let (initdb, postgres) = (
        program("initdb", &places).context(missing)?,
        program("postgres", &places).context(missing)?,
    );
    let account = Account::to_run_as()?;
    let sockets = scratch(account.as_ref())?;
    let data = match place {
        Place::Scratch => sockets.join("data"),
        Place::Kept(data) => data.clone(),
    };
    let scratch = matches!(place, Place::Scratch);

    if !data.join("PG_VERSION").exists() {
        if !scratch {
            let above = data.parent().context("the data directory is a root directory")?;
            fs::create_dir_all(above)?;
            if !data.exists() {
                fs::DirBuilder::new().mode(0o700).create(&data)?;
            }
            if let Some(account) = &account {
                ensure!(
                    open_to_all(above),
                    "{} is closed to the account that PostgreSQL runs as",
                    above.display()
                );
                chown(&data, Some(account.uid), Some(account.gid))?;
            }
        }
        let mut command = as_account(account.as_ref(), &initdb);
        command
            .args([
                "--auth=trust",
                "--username=postgres",
                "--locale=C",
                "--encoding=UTF8",
                "--pgdata",
            ])
            .arg(&data);
        if scratch {
            command.arg("--no-sync");
        }
        let made = command
            .current_dir(&sockets)
            .stdin(Stdio::null())
            .output()
            .context("initdb")?;
        if !made.status.success() {
            let _ = fs::remove_dir_all(&sockets);
            bail!(
                "initdb failed in {}: {}",
                data.display(),
                String::from_utf8_lossy(&made.stderr).trim()
            );
        }
    }

    let mut command = as_account(account.as_ref(), &postgres);
    command.arg("-D").arg(&data).current_dir(&sockets);
    let directories = format!("unix_socket_directories={}", sockets.display());
    let mut settings = vec![
        "listen_addresses=",
        &directories,
        "max_connections=300",
        "log_min_messages=warning",
    ];
    if scratch {
        settings.extend([
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "max_wal_size=256MB",
        ]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    let log = if scratch {
        sockets.join("log")
    } else {
        data.with_extension("log")
    };
    let guard = Guard::spawn(&command, "INT", Some(&sockets), &log)?;
    Ok((guard, sockets))
}

/// Whether a private PostgreSQL runs as another user than we do: we are root, whom it refuses.
///
/// Such a user cannot enter a closed directory, so data to keep belongs elsewhere.
pub fn runs_as_another_user() -> Result<bool> {
    Ok(Account::to_run_as()?.is_some())
}

/// The account that PostgreSQL runs as when we are root, whom it refuses.
#[derive(Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    fn to_run_as() -> Result<Option<Account>> {
        // The owner of our own /proc entry is our effective user; without /proc nobody runs this as root.
        if !fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        for name in ["postgres", "nobody"] {
            let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
            if let Some(fields) = fields.into_iter().find(|fields| fields.len() > 3 && fields[0] == name) {
                return Ok(Some(Account {
                    uid: fields[2].parse()?,
                    gid: fields[3].parse()?,
                }));
            }
        }
        bail!("PostgreSQL refuses root, and neither `postgres` nor `nobody` is an account of this machine");
    }
}

fn as_account(account: Option<&Account>, program: &Path) -> Command {
    let Some(Account { uid, gid }) = account else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command.args([
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        "--clear-groups".into(),
        "--".into(),
    ]);
    command.arg(program);
    command
}

/// A new directory with a name short enough for sockets, which `account` (else we) can enter and owns.
fn scratch(account: Option<&Account>) -> Result<PathBuf> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|e| anyhow!("no random bytes: {e}"))?;
    let name = random.iter().fold(String::from("b3-"), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    let asked_for = std::env::var_os("TMPDIR").map(PathBuf::from);
    let bases = asked_for.into_iter().chain(roomy_memory().map(PathBuf::from));
    for base in bases.chain(["/tmp".into(), "/var/tmp".into()]) {
        if base.as_os_str().len() > 60 || !base.is_absolute() || (account.is_some() && !open_to_all(&base)) {
            continue;
        }
        let dir = base.join(&name);
        if fs::DirBuilder::new().mode(0o700).create(&dir).is_ok() {
            if let Some(account) = account {
                chown(&dir, Some(account.uid), Some(account.gid))?;
            }
            return Ok(dir);
        }
    }
    bail!("no temporary directory with a path short enough for a socket can be written")
}

/// Where files are kept in memory, if there is much room. A database is some 300 files, and a test makes one: on disk the file
/// system takes longer to make and remove them than the tests take for all else.
fn roomy_memory() -> Option<&'static str> {
    const DIRECTORY: &str = "/dev/shm";
    const ROOM: u64 = 4 << 30;
    let free = rustix::fs::statvfs(DIRECTORY).ok()?;
    let available = fs::read_to_string("/proc/meminfo").ok()?;
    let line = available.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available: u64 = line.split_whitespace().next()?.parse().ok()?;
    (free.f_bavail * free.f_frsize >= ROOM && available >= ROOM >> 10).then_some(DIRECTORY)
}

fn open_to_all(dir: &Path) -> bool {
    dir.ancestors()
        .all(|dir| fs::metadata(dir).is_ok_and(|dir| dir.permissions().mode() & 0o001 != 0))
}

/// The program `name` on PATH, else in the first of `places` that has it.
fn program(name: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain(places.iter().cloned());
    dirs.find_map(|dir| {
        let file = dir.join(name);
        fs::metadata(&file)
            .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
            .then_some(file)
    })
}

/// A program that comes with PostgreSQL, from PATH or where Debian keeps it.
pub fn postgres_program(name: &str) -> Option<PathBuf> {
    program(name, &debian_bins())
}

/// Debian keeps the servers' programs off PATH; the newest version comes first.
fn debian_bins() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|version| *version >= 15)
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
        .iter()
        .map(|version| format!("/usr/lib/postgresql/{version}/bin").into())
        .collect()
}

fn percent_encoded(path: &Path) -> String {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._".contains(byte) {
                out.push(char::from(*byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}

async fn until_ready(guard: &Guard, attempt: impl AsyncFn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + START;
    loop {
        let Err(error) = attempt().await else { return Ok(()) };
        if !guard.alive() || Instant::now() > deadline {
            return Err(error.context(guard.log_tail()));
        }
        sleep(Duration::from_millis(10)).await;
    }
}
