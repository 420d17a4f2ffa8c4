//! The `board3` command as a person uses it: it starts everything, the printed lines work, and it leaves nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use suite::{control, layout::Layout};
use testkit::servers::{Place, Postgres, Redis};

/// A directory that closes itself off, with a name longer than a socket's path may be.
pub(crate) struct Home {
    above: PathBuf,
    pub(crate) layout: Layout,
}

impl Home {
    pub(crate) fn new(name: &str) -> Home {
        let above = std::env::temp_dir().join(format!("b3-{name}-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&above).unwrap();
        let layout = Layout::on_unused_ports(&above.join("long".repeat(30))).unwrap();
        Home { above, layout }
    }

    fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_board3"));
        command.args(verb).arg("--data").arg(self.layout.dir());
        command.args(["--port-base", &self.layout.base().unwrap().to_string()]);
        // Where a person stands, so that the tools in .tools are found.
        command
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .stdin(Stdio::null());
        command.env_remove("DATABASE_ADMIN_URL").env_remove("REDIS_URL");
        command
    }

    fn run(&self, verb: &[&str]) -> Output {
        self.command(verb).output().unwrap()
    }

    pub(crate) fn succeeds(&self, verb: &[&str]) -> String {
        let output = self.run(verb);
        assert!(
            output.status.success(),
            "{verb:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, verb: &[&str]) -> String {
        let output = self.run(verb);
        assert!(
            !output.status.success(),
            "{verb:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stderr).unwrap()
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.layout.env_file()).unwrap();
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect()
    }

    /// Directories of the private servers' sockets; they go when the servers have gone.
    fn sockets(&self) -> [PathBuf; 2] {
        let variables = self.variables();
        let postgres = variables["BOARD3_DATABASE_ADMIN_URL"]
            .split(['@', '/'])
            .nth(3)
            .unwrap()
            .replace("%2F", "/");
        let redis = Path::new(variables["BOARD3_REDIS_URL"].strip_prefix("redis+unix://").unwrap());
        [postgres.into(), redis.parent().unwrap().into()]
    }

    async fn starts(&self) -> Child {
        let mut child = self.command(&["up"]).stdout(Stdio::null()).spawn().unwrap();
        let layout = &self.layout;
        until("the suite is ready", async || {
            assert!(child.try_wait().unwrap().is_none(), "up ended by itself");
            control::state(layout).await.unwrap() == Some(true)
        })
        .await;
        child
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["down"]);
        self.run(&["clean"]);
        let _ = fs::remove_dir_all(&self.above);
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds().await {
        assert!(Instant::now() < deadline, "still not so after 90 s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs lines in a shell, as if pasted.
pub(crate) fn pasted(lines: &[&str]) -> String {
    let script = format!("set -e\n{}\n", lines.join("\n"));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let output = shell.output().unwrap();
    assert!(
        output.status.success(),
        "{script}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn installed(tool: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Command::new(tool)
        .arg("--version")
        .current_dir(root)
        .output()
        .is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn a_detached_suite_works_as_printed_and_ends_without_a_trace() {
    let home = Home::new("detached");
    let printed = home.succeeds(&["up", "--detach"]);
    let sockets = home.sockets();
    let first = home.variables();
    assert!(first["BOARD3_API_KEY"].starts_with("b3_dev_"));

    let lines: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let (sourced, calls) = lines.split_first().unwrap();
    assert!([3, 6].contains(&calls.len()), "three calls for each tool: {printed}");
    for tool in calls.chunks(3) {
        if !installed(tool[0].split(' ').next().unwrap()) {
            println!("not tried, since the tool is not installed: {}", tool[0]);
            continue;
        }
        let answers = pasted(&[&[*sourced], tool].concat());
        assert!(
            answers.contains("\"name\": \"First\"") || answers.contains("\"name\":\"First\""),
            "{answers}"
        );
    }

    assert!(home.fails(&["up"]).contains("already runs"));
    assert!(home.fails(&["migrate"]).contains("the suite runs"));
    assert!(home.fails(&["clean"]).contains("the suite runs"));
    home.succeeds(&["seed"]);
    assert_eq!(home.variables(), first);

    for (role, expected) in [
        ("app", "board3_designs_app designs"),
        ("owner", "board3_designs_owner designs"),
    ] {
        let mut psql = home.command(&["psql", "designs", "--role", role]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let question = "select concat_ws(' ', current_user, current_schema())";
        std::io::Write::write_all(&mut psql.stdin.take().unwrap(), question.as_bytes()).unwrap();
        let answer = String::from_utf8(psql.wait_with_output().unwrap().stdout).unwrap();
        assert!(answer.contains(expected), "{answer}");
    }

    home.succeeds(&["down"]);
    assert_eq!(home.layout.taken_ports(), [""; 0]);
    assert!(!home.layout.env_file().exists() && !home.layout.dir().join("control").exists());
    assert_eq!(sockets.map(|dir| dir.exists()), [false, false]);
    assert!(home.succeeds(&["down"]).contains("no suite runs"));

    // Data and keys are there again.
    home.succeeds(&["up", "--detach"]);
    assert_eq!(home.variables()["BOARD3_API_KEY"], first["BOARD3_API_KEY"]);
    home.succeeds(&["down"]);
    let data = home.layout.postgres().unwrap();
    assert!(data.exists());
    home.succeeds(&["clean"]);
    assert!(!data.exists() && !home.layout.dir().exists());
}

#[tokio::test]
async fn neither_ctrl_c_nor_a_kill_leaves_anything_running() {
    let home = Home::new("killed");
    let mut up = home.starts().await;
    let sockets = home.sockets();
    let pid = up.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(up.wait().unwrap().success());
    assert_eq!(home.layout.taken_ports(), [""; 0]);
    assert_eq!(sockets.map(|dir| dir.exists()), [false, false]);

    let mut up = home.starts().await;
    let sockets = home.sockets();
    up.kill().unwrap();
    up.wait().unwrap();
    until("services and servers have ended", async || {
        home.layout.taken_ports().is_empty() && !sockets.iter().any(|dir| dir.exists())
    })
    .await;
    assert_eq!(
        control::state(&home.layout).await.unwrap(),
        None,
        "what a killed suite left leads nowhere"
    );
    assert!(home.succeeds(&["migrate"]).contains("designs: up to date"));
}

#[tokio::test]
async fn taken_ports_are_told_all_at_once_and_nothing_starts() {
    let home = Home::new("ports");
    let taken = [
        home.layout.grpc(audit::SERVICE.slice),
        home.layout.http(designs::SERVICE.slice),
    ];
    let _listeners = taken
        .clone()
        .map(|address| std::net::TcpListener::bind(address).unwrap());
    let message = home.fails(&["up"]);
    assert!(taken.iter().all(|address| message.contains(address)), "{message}");
    assert!(!home.layout.postgres().unwrap().exists());
}

#[tokio::test]
async fn given_servers_are_used_with_passwords_of_their_own() {
    let (postgres, redis) = (
        Postgres::start(Place::Scratch).await.unwrap(),
        Redis::start().await.unwrap(),
    );
    let (admin, connection) = tokio_postgres::connect(&postgres.admin_url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let rules = "local all postgres trust\nlocal all all scram-sha-256\n";
    fs::write(postgres.sockets().join("data/pg_hba.conf"), rules).unwrap();
    admin.batch_execute("create database given").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();

    let home = Home::new("given");
    let mut up = home.command(&["up", "--detach"]);
    up.env("DATABASE_ADMIN_URL", postgres.url("postgres", "given"))
        .env("REDIS_URL", redis.url());
    let up = up.output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    assert_eq!(home.variables()["BOARD3_REDIS_URL"], redis.url());
    assert!(!home.layout.postgres().unwrap().exists());
    home.succeeds(&["down"]);
    let refused = tokio_postgres::connect(&postgres.url("board3_designs_app", "given"), tokio_postgres::NoTls).await;
    assert!(refused.is_err(), "the suite's roles need their password here");
}

#[test]
fn an_unknown_verb_or_option_is_answered_with_the_verbs() {
    for arguments in [
        &["fly"][..],
        &["up", "--high"],
        &["psql"],
        &["up", "--port-base", "80"],
        &["state", "encrypt"],
        &["state", "decrypt"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_board3"))
            .args(arguments)
            .current_dir("/")
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.starts_with("board3: "),
            "{arguments:?}: {message}"
        );
    }
}
