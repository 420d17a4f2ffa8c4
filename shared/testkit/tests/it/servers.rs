//! Private servers end with the process that owns them, however it ends, and leave nothing behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::servers::{self, Place, Postgres, Redis};
use tokio_postgres::NoTls;

/// Set in the process that a test starts to own servers and be killed.
const OWNER: &str = "TESTKIT_TEST_OWNER";

async fn query(url: &str, sql: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client.simple_query(sql).await.unwrap();
    let row = rows.iter().find_map(|m| match m {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    row.unwrap_or_default()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "still not so after 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ids of processes whose command line mentions `text`.
fn processes_with(text: &str) -> Vec<u32> {
    let ids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

/// Runs the test `name` of this very binary again as an owner of servers, and answers their directories.
fn owner_process(name: &str, surroundings: impl FnOnce(&mut Command)) -> (Child, Vec<PathBuf>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .env(OWNER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    surroundings(&mut command);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let dirs = lines
        .by_ref()
        .filter_map(|line| Some(line.split_once("directory=")?.1.into()))
        .take(2)
        .collect();
    // It goes on writing until it ends.
    std::thread::spawn(move || lines.for_each(drop));
    (child, dirs)
}

/// What the other process does: starts both, tells where they are, and lives until its input ends.
async fn own_servers() {
    let postgres = servers::postgres().await;
    let redis = servers::redis_url().await;
    let redis = Path::new(redis.strip_prefix("redis+unix://").unwrap())
        .parent()
        .unwrap();
    println!(
        "\ndirectory={}\ndirectory={}",
        postgres.sockets().display(),
        redis.display()
    );
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn is_owner() -> bool {
    std::env::var_os(OWNER).is_some()
}

#[tokio::test]
async fn both_servers_of_the_process_answer() {
    let postgres = servers::postgres().await;
    assert_eq!(query(&postgres.admin_url(), "select current_user").await, "postgres");
    let url = servers::redis_url().await;
    assert!(url.starts_with("redis+unix:///"), "{url}");
    assert_eq!(url, servers::redis_url().await);
}

#[tokio::test]
async fn a_killed_owner_leaves_no_process_and_no_directory() {
    if is_owner() {
        return own_servers().await;
    }
    let (mut owner, dirs) = owner_process("servers::a_killed_owner_leaves_no_process_and_no_directory", |_| {});
    assert_eq!(dirs.len(), 2, "both servers started");
    for dir in &dirs {
        assert!(dir.exists() && !processes_with(dir.to_str().unwrap()).is_empty());
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("no process and no directory", || {
        dirs.iter()
            .all(|dir| !dir.exists() && processes_with(dir.to_str().unwrap()).is_empty())
    })
    .await;
}

#[tokio::test]
async fn servers_start_below_a_closed_directory_with_a_long_name() {
    if is_owner() {
        return own_servers().await;
    }
    use std::os::unix::fs::DirBuilderExt;
    let closed = std::env::temp_dir().join(format!("b3-test-{}-{}", std::process::id(), "long".repeat(30)));
    std::fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let name = "servers::servers_start_below_a_closed_directory_with_a_long_name";
    let (mut owner, dirs) = owner_process(name, |command| {
        command.current_dir(&closed).env("TMPDIR", &closed).env("HOME", &closed);
    });
    drop(owner.stdin.take());
    owner.wait().unwrap();
    std::fs::remove_dir_all(&closed).unwrap();
    assert_eq!(dirs.len(), 2, "both servers started");
    until("both gone after a normal end", || dirs.iter().all(|dir| !dir.exists())).await;
}

#[tokio::test]
async fn a_killed_redis_comes_back_at_the_same_url() {
    let redis = Redis::start().await.unwrap();
    let (url, first) = (redis.url(), redis.process().pid());
    redis.process().kill().await.unwrap();
    assert!(!redis.process().alive());
    redis.process().start().await.unwrap();
    redis.ready().await.unwrap();
    assert_eq!(redis.url(), url);
    assert_ne!(redis.process().pid(), first);

    redis.process().pause().await.unwrap();
    redis.process().resume().await.unwrap();
    redis.ready().await.unwrap();

    redis.process().stop().await.unwrap();
    assert!(!redis.process().alive());
}

#[tokio::test]
async fn a_stopped_postgres_still_has_its_databases() {
    let server = Postgres::start(Place::Scratch).await.unwrap();
    query(&server.admin_url(), "create database kept").await;
    server.process().stop().await.unwrap();
    assert!(tokio_postgres::connect(&server.admin_url(), NoTls).await.is_err());
    server.process().start().await.unwrap();
    server.ready().await.unwrap();
    assert_eq!(
        query(&server.url("postgres", "kept"), "select current_database()").await,
        "kept"
    );

    let (dir, pid) = (server.sockets().to_owned(), server.process().pid());
    drop(server);
    assert!(
        !dir.exists() && !testkit::guard::running(pid),
        "dropping waits for the end"
    );
}

#[tokio::test]
async fn a_kept_place_is_found_again_by_the_next_server() {
    let dir = PathBuf::from("/tmp").join(format!("b3-kept-{}", std::process::id()));
    for expected in ["0", "1"] {
        let server = Postgres::start(Place::Kept(dir.join("postgres"))).await.unwrap();
        let found = query(
            &server.admin_url(),
            "select count(*) from pg_tables where tablename = 'mark'",
        )
        .await;
        assert_eq!(found, expected);
        query(&server.admin_url(), "create table if not exists mark ()").await;
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let dir = PathBuf::from("/tmp").join(format!("b3-broken-{}", std::process::id()));
    let data = dir.join("postgres");
    drop(Postgres::start(Place::Kept(data.clone())).await.unwrap());
    std::fs::remove_file(data.join("global/pg_control")).unwrap();
    let error = Postgres::start(Place::Kept(data)).await.unwrap_err();
    assert!(format!("{error:#}").contains("pg_control"), "{error:#}");
    std::fs::remove_dir_all(&dir).unwrap();
}
