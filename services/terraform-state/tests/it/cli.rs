//! The real `terraform`, where there is one on PATH.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kit::failpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::{
    certificate::Certificate,
    world::{EVERYTHING, WORK, World, id, state},
};

pub(crate) fn terraform() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("terraform"))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: there is no terraform on PATH");
    }
    found
}

/// A directory with a configuration, and what reaches its state.
pub(crate) struct Checkout {
    pub(crate) program: PathBuf,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: String,
    pub(crate) password: String,
    /// What TLS needs: the certificate that the server is known by, and the checkout's own.
    pub(crate) tls: Vec<(&'static str, String)>,
}

/// How a run ended, and all it said.
pub(crate) struct Ended {
    pub(crate) good: bool,
    told: String,
}

impl Ended {
    pub(crate) fn well(self) -> String {
        assert!(self.good, "{}", self.told);
        self.told
    }

    pub(crate) fn badly(self) -> String {
        assert!(!self.good, "{}", self.told);
        self.told
    }
}

impl Checkout {
    pub(crate) async fn new(program: PathBuf, door: SocketAddr, name: &str, password: &str) -> Self {
        Self::initialized(program, format!("http://{door}/v1/states/{name}"), password, Vec::new()).await
    }

    /// One that reaches a door over TLS, which this certificate vouches for.
    pub(crate) async fn over_tls(program: PathBuf, door: SocketAddr, name: &str, password: &str, ca: &str) -> Self {
        let address = format!("https://localhost:{}/v1/states/{name}", door.port());
        let tls = vec![("TF_HTTP_CLIENT_CA_CERTIFICATE_PEM", ca.to_owned())];
        Self::initialized(program, address, password, tls).await
    }

    /// As [`Checkout::over_tls`], one that shows a certificate of its own.
    pub(crate) async fn over_mutual_tls(
        program: PathBuf,
        (door, name): (SocketAddr, &str),
        password: &str,
        ca: &str,
        own: &Certificate,
    ) -> Self {
        let address = format!("https://localhost:{}/v1/states/{name}", door.port());
        let tls = vec![
            ("TF_HTTP_CLIENT_CA_CERTIFICATE_PEM", ca.to_owned()),
            ("TF_HTTP_CLIENT_CERTIFICATE_PEM", own.pem()),
            ("TF_HTTP_CLIENT_PRIVATE_KEY_PEM", own.key_pem()),
        ];
        Self::initialized(program, address, password, tls).await
    }

    async fn initialized(program: PathBuf, address: String, password: &str, tls: Vec<(&'static str, String)>) -> Self {
        let checkout = Checkout {
            program,
            dir: tempfile::tempdir().unwrap(),
            address,
            password: password.to_owned(),
            tls,
        };
        checkout.write("one", "");
        checkout.run(&["init", "-input=false"]).await.well();
        checkout
    }

    /// From here on it reaches its state at another address.
    pub(crate) fn reach(&mut self, address: SocketAddr) {
        let (_, path) = self.address.split_once("/v1/").unwrap();
        self.address = format!("http://{address}/v1/{path}");
    }

    /// A resource with this input, made by running this command.
    pub(crate) fn write(&self, input: &str, command: &str) {
        let provisioner = if command.is_empty() {
            String::new()
        } else {
            format!("provisioner \"local-exec\" {{\n command = {command:?}\n }}")
        };
        let configuration = format!(
            "terraform {{\n backend \"http\" {{}}\n}}\nresource \"terraform_data\" \"a\" {{\n triggers_replace = \"{input}\"\n input = \"{input}\"\n {provisioner}\n }}\n\
             output \"a\" {{ value = terraform_data.a.output }}\n"
        );
        fs::write(self.dir.path().join("main.tf"), configuration).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("-no-color")
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_HTTP_ADDRESS", &self.address)
            .env("TF_HTTP_LOCK_ADDRESS", &self.address)
            .env("TF_HTTP_UNLOCK_ADDRESS", &self.address)
            .env("TF_HTTP_USERNAME", "anyone")
            .env("TF_HTTP_PASSWORD", &self.password)
            .env("TF_HTTP_RETRY_WAIT_MIN", "0")
            .envs(self.tls.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.ended(self.command(arguments)).await
    }

    /// A run that ends well, and says with all else what its HTTP client does.
    pub(crate) async fn traced(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        command.env("TF_LOG", "TRACE").env("GODEBUG", "http2debug=1");
        self.ended(command).await.well()
    }

    async fn ended(&self, mut command: Command) -> Ended {
        let ended = command.output();
        let output = tokio::time::timeout(Duration::from_secs(180), ended)
            .await
            .unwrap()
            .unwrap();
        Ended {
            good: output.status.success(),
            told: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        }
    }

    pub(crate) async fn apply(&self) -> Ended {
        self.run(&["apply", "-auto-approve", "-input=false"]).await
    }
}

#[tokio::test]
async fn a_life_from_init_to_destroy() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let token = world.token(world.org, &WORK);
    let checkout = Checkout::new(program, world.door(), "team/prod", &token).await;
    assert!(
        checkout
            .run(&["plan", "-input=false"])
            .await
            .well()
            .contains("1 to add")
    );
    assert!(checkout.apply().await.well().contains("1 added"));
    assert_eq!(world.versions("team/prod").await, 1);
    assert!(checkout.apply().await.well().contains("No changes."));
    assert_eq!(world.versions("team/prod").await, 1);
    checkout.write("two", "");
    assert!(
        checkout
            .apply()
            .await
            .well()
            .contains("1 added, 0 changed, 1 destroyed")
    );
    assert!(checkout.run(&["output", "a"]).await.well().contains("two"));
    checkout.run(&["taint", "terraform_data.a"]).await.well();
    assert!(checkout.apply().await.well().contains("1 destroyed"));
    let versions = world.versions("team/prod").await;
    for arguments in [
        &["state", "mv", "terraform_data.a", "terraform_data.b"][..],
        &["state", "rm", "terraform_data.b"],
    ] {
        checkout.run(arguments).await.well();
    }
    assert_eq!(world.versions("team/prod").await, versions + 2);
    assert!(checkout.apply().await.well().contains("1 added"));
    checkout
        .run(&["apply", "-destroy", "-auto-approve", "-input=false"])
        .await
        .well();
    let shown = world.http_as(&token).get("team/prod").await;
    assert_eq!(shown.json()["resources"], serde_json::json!([]));
    // After that it begins anew.
    checkout.write("three", "");
    checkout.apply().await.well();
    assert_eq!(world.number("select count(*) from state_locks").await, 0);
}

#[tokio::test]
async fn of_two_applies_at_once_one_is_refused_and_one_waits() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let token = world.token(world.org, &WORK);
    let first = Checkout::new(program.clone(), world.door(), "prod", &token).await;
    let second = Checkout::new(program, world.door(), "prod", &token).await;
    let (started, go) = (first.dir.path().join("started"), first.dir.path().join("go"));
    first.write("one", "touch started; while [ ! -e go ]; do sleep 0.05; done");
    let apply = first.command(&["apply", "-auto-approve", "-input=false"]).output();
    let apply = tokio::spawn(apply);
    let waited = async {
        while !started.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap();
    second.write("two", "");
    assert!(second.apply().await.badly().contains("Error acquiring the state lock"));
    assert!(second.run(&["plan", "-lock=false", "-input=false"]).await.good);
    let refused = async || {
        let locks = world
            .events()
            .await
            .into_iter()
            .filter(|event| event.action == "terraform_state.LockState");
        locks.count()
    };
    let before = refused().await;
    let waiting = second
        .command(&["apply", "-auto-approve", "-input=false", "-lock-timeout=120s"])
        .output();
    let waiting = tokio::spawn(waiting);
    fs::write(go, "").unwrap();
    let output = apply.await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = waiting.await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(refused().await, before + 1);
    assert!(second.run(&["output", "a"]).await.well().contains("two"));
    assert_eq!(world.number("select count(*) from state_locks").await, 0);
}

#[tokio::test]
async fn force_unlock_frees_a_state_that_nobody_will() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let (worker, master) = (world.token(world.org, &WORK), world.token(world.org, &EVERYTHING));
    let mut checkout = Checkout::new(program, world.door(), "prod", &worker).await;
    checkout.apply().await.well();
    let lock = id();
    assert_eq!(world.http(&WORK).lock("prod", &lock).await.status, 200);
    checkout.write("two", "");
    assert!(
        checkout
            .apply()
            .await
            .badly()
            .contains("Error acquiring the state lock")
    );
    checkout.run(&["force-unlock", "-force", &lock]).await.badly();
    assert_eq!(world.number("select count(*) from state_locks").await, 1);
    checkout.password = master;
    checkout.run(&["force-unlock", "-force", &lock]).await.well();
    checkout.password = worker;
    checkout.apply().await.well();
}

#[tokio::test]
async fn a_state_is_pushed() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let (worker, master) = (world.token(world.org, &WORK), world.token(world.org, &EVERYTHING));
    let mut checkout = Checkout::new(program, world.door(), "prod", &worker).await;
    checkout.apply().await.well();
    let first = world.http_as(&worker).get("prod").await.body;
    fs::write(checkout.dir.path().join("first.tfstate"), &first).unwrap();
    checkout.write("two", "");
    checkout.apply().await.well();
    // A newer one is a write like any other.
    let mut newer: serde_json::Value = serde_json::from_slice(&first).unwrap();
    newer["serial"] = 90.into();
    fs::write(checkout.dir.path().join("newer.tfstate"), newer.to_string()).unwrap();
    checkout.run(&["state", "push", "newer.tfstate"]).await.well();
    // One that was elsewhere comes into a state that was never written.
    let elsewhere = Checkout::new(checkout.program.clone(), world.door(), "imported", &worker).await;
    fs::write(elsewhere.dir.path().join("first.tfstate"), &first).unwrap();
    elsewhere.run(&["state", "push", "first.tfstate"]).await.well();
    assert!(elsewhere.run(&["output", "a"]).await.well().contains("one"));
    // An older one is refused by Terraform, and with -force by us unless the caller may.
    checkout.run(&["state", "push", "first.tfstate"]).await.badly();
    let versions = world.versions("prod").await;
    assert!(
        checkout
            .run(&["state", "push", "-force", "first.tfstate"])
            .await
            .badly()
            .contains("409")
    );
    assert_eq!(world.versions("prod").await, versions);
    checkout.password = master;
    checkout.run(&["state", "push", "-force", "first.tfstate"]).await.well();
    let forced = "select count(*) from state_versions where kind = 'forced'";
    assert_eq!(
        (world.versions("prod").await, world.number(forced).await),
        (versions + 1, 1)
    );
    checkout.password = worker;
    assert!(checkout.run(&["output", "a"]).await.well().contains("one"));
}

#[tokio::test]
async fn a_wrong_key_is_no_empty_state() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let token = world.token(world.org, &WORK);
    let mut checkout = Checkout::new(program, world.door(), "prod", &token).await;
    checkout.apply().await.well();
    checkout.password = "b3_test_wrong".to_owned();
    assert!(
        checkout
            .run(&["plan", "-input=false"])
            .await
            .badly()
            .contains("requires auth")
    );
    assert!(
        !checkout
            .run(&["plan", "-lock=false", "-input=false"])
            .await
            .badly()
            .contains("to add")
    );
    checkout.password = world.token(world.org, &["terraform_state.drift.read"]);
    assert!(
        checkout
            .run(&["plan", "-lock=false", "-input=false"])
            .await
            .badly()
            .contains("invalid auth")
    );
    // A reader needs no lock to read.
    checkout.password = world.token(world.org, &["terraform_state.state.download"]);
    checkout.run(&["output", "a"]).await.well();
    checkout.password = token;
    assert!(
        checkout
            .run(&["plan", "-input=false"])
            .await
            .well()
            .contains("No changes.")
    );
}

/// In front of a server: the answer to the first request of this method is lost on the way, once the server has done it.
async fn losing(server: SocketAddr, method: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lost = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let lost = lost.clone();
            tokio::spawn(async move { between(client, server, method, &lost).await });
        }
    });
    address
}

/// Terraform waits for each answer, so a request begins where a read does.
async fn between(mut client: TcpStream, server: SocketAddr, method: &str, lost: &AtomicBool) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(server).await?;
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                if asked.starts_with(method.as_bytes()) && !lost.swap(true, Ordering::SeqCst) {
                    losing = true;
                }
                upstream.write_all(&asked[..read]).await?;
            }
            read = upstream.read(&mut answered) => {
                let read = read?;
                if read == 0 || losing {
                    return Ok(());
                }
                client.write_all(&answered[..read]).await?;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_does_no_harm() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let token = world.token(world.org, &WORK);
    for method in ["LOCK ", "POST ", "UNLOCK ", "GET "] {
        let name = format!("lossy-{}", method.trim());
        let proxy = losing(world.door(), method).await;
        let checkout = Checkout::new(program.clone(), proxy, &name, &token).await;
        checkout.apply().await.well();
        let locks = world.number("select count(*) from state_locks").await;
        assert_eq!((world.versions(&name).await, locks), (1, 0), "{method}");
    }
}

#[tokio::test]
async fn without_the_repeat_it_leaves_terraform_locked_out_by_itself() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let _off = failpoint::switch_off("terraform_state.lock_repeat/lossy-and-strict");
    let token = world.token(world.org, &WORK);
    let proxy = losing(world.door(), "LOCK ").await;
    let checkout = Checkout::new(program, proxy, "lossy-and-strict", &token).await;
    let told = checkout.apply().await.badly();
    assert!(told.contains("Error acquiring the state lock"), "{told}");
    assert_eq!(world.number("select count(*) from state_locks").await, 1);
    let other = world.http(&WORK);
    let answer = other.post("lossy-and-strict", "", &state(1, "l", "x")).await;
    assert_eq!(answer.status, 409);
}
