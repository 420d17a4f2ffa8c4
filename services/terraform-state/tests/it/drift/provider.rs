//! The real `terraform` with a provider of our own, which serves a cloud that the test can change behind its back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use super::*;
use crate::{cli::terraform as program, fake::Cloud};

/// A configuration, a cloud, and a state at the service.
struct Workshop {
    world: World,
    cloud: Cloud,
    program: PathBuf,
    dir: tempfile::TempDir,
    token: String,
}

const HEAD: &str = "terraform {\n backend \"http\" {}\n required_providers {\n fake = { source = \"board3.test/board3/fake\" }\n }\n}\n";

impl Workshop {
    async fn new(program: PathBuf) -> Self {
        let world = World::new().await;
        let principal = kit::ids::Principal::User(kit::ids::UserId::new());
        world
            .served
            .office
            .grant(world.org, principal, &["terraform_state.*.*"]);
        let token = world.served.office.token(world.org, principal, Uuid::now_v7(), 1);
        Workshop {
            world,
            cloud: Cloud::serve().await,
            program,
            dir: tempfile::tempdir().unwrap(),
            token,
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, configuration: &str) {
        fs::write(self.path().join("main.tf"), format!("{HEAD}{configuration}")).unwrap();
    }

    /// How a run ended, and what it wrote.
    async fn run(&self, arguments: &[&str]) -> (bool, String, Vec<u8>) {
        let address = format!("http://{}/v1/states/drifting", self.world.served.running.doors[0]);
        let run = tokio::process::Command::new(&self.program)
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_HTTP_ADDRESS", &address)
            .env("TF_HTTP_LOCK_ADDRESS", &address)
            .env("TF_HTTP_UNLOCK_ADDRESS", &address)
            .env("TF_HTTP_USERNAME", "anyone")
            .env("TF_HTTP_PASSWORD", &self.token)
            .env("TF_REATTACH_PROVIDERS", self.cloud.reattach())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(180), run)
            .await
            .unwrap()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
            output.stdout,
        )
    }

    async fn well(&self, arguments: &[&str]) -> Vec<u8> {
        let (good, told, output) = self.run(arguments).await;
        assert!(
            good,
            "terraform {arguments:?}: {told}{}",
            String::from_utf8_lossy(&output)
        );
        output
    }

    /// The plan of this kind as JSON.
    async fn plan(&self, kind: &[&str]) -> Vec<u8> {
        let arguments = [&["plan", "-input=false", "-no-color", "-lock=false", "-out=p"], kind].concat();
        self.well(&arguments).await;
        self.well(&["show", "-json", "p"]).await
    }

    async fn lines(&self, state: &str) -> Vec<String> {
        let logs = self.world.logs(state).await;
        let open = logs.iter().filter(|log| log.status() != DriftStatus::Resolved);
        open.map(line).collect()
    }
}

fn server(name: &str, more: &str) -> String {
    format!("resource \"fake_server\" \"{name}\" {{\n name = \"{name}\"\n {more}\n}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_deletions_replacements_moves_and_failures_of_a_provider_are_told_apart() {
    let Some(program) = program() else { return };
    let shop = Workshop::new(program).await;
    let configured = [
        server(
            "a",
            "size = 1\n tags = { env = \"dev\" }\n password = \"hunter2-canary\"",
        ),
        server("b", ""),
        server("c", "size = 3"),
    ]
    .concat();
    shop.write(&configured);
    shop.well(&["init", "-input=false"]).await;
    shop.well(&["apply", "-auto-approve", "-input=false"]).await;
    let state: String = shop
        .world
        .admin
        .query_one("select id::text from states where name = 'drifting'", &[])
        .await
        .unwrap()
        .get(0);
    let detect = async |plan: Vec<u8>| shop.world.detect(&state, plan).await.unwrap();

    // Nothing has happened.
    let found = detect(shop.plan(&["-refresh-only"]).await).await;
    assert_eq!((found.drift_logs, found.drifted_resources), (0, 0));

    // Changed and deleted behind Terraform's back; a name that is another one would replace the server.
    shop.cloud.change("srv-a", |server| {
        server["size"] = json!(5);
        server["tags"] = json!({"env": "dev", "owner": "mallory"});
        server["password"] = json!("other-canary");
    });
    shop.cloud.delete("srv-b");
    shop.cloud.change("srv-c", |server| server["name"] = json!("renamed"));
    let drifted = [
        "fake_server.a password: masked --",
        "fake_server.a size: 1 -> 5",
        "fake_server.a tags[\"owner\"]: - -> mallory",
        "fake_server.b is gone",
        "fake_server.c name: c -> renamed",
    ];
    let found = detect(shop.plan(&["-refresh-only"]).await).await;
    assert_eq!(
        (found.drift_logs, found.drifted_resources, found.new_drift_logs),
        (5, 3, 5)
    );
    assert_eq!(shop.lines(&state).await, drifted);

    // A normal plan says the same of drift, and what the configuration would do beside taking it back.
    shop.write(
        &[
            "moved {\n from = fake_server.c\n to = fake_server.moved\n}\n".to_owned(),
            configured
                .replace("size = 1", "size = 2")
                .replace("\"fake_server\" \"c\"", "\"fake_server\" \"moved\""),
            server("d", ""),
        ]
        .concat(),
    );
    let found = detect(shop.plan(&[]).await).await;
    assert_eq!(
        (found.moved_resources, found.unapplied_resources, found.errored),
        (1, 2, false)
    );
    let rows: Vec<String> = shop.world.view(&state).await.iter().map(row).collect();
    for expected in [
        "fake_server.a size: Conflict 2 1 5",
        "fake_server.a tags[\"owner\"]: Drifted - - mallory",
        "fake_server.a password: Drifted masked",
        "fake_server.b : Missing - - -",
        "fake_server.d : PendingApply - - -",
        "fake_server.moved name: Drifted c c renamed",
    ] {
        assert!(rows.iter().any(|row| row == expected), "{expected}: {rows:#?}");
    }

    // A provider that fails says nothing about drift.
    shop.write(&configured);
    shop.cloud.fail(true);
    let (good, ..) = shop
        .run(&[
            "plan",
            "-refresh-only",
            "-input=false",
            "-no-color",
            "-lock=false",
            "-out=failed",
        ])
        .await;
    assert!(!good);
    let before = shop.lines(&state).await;
    if shop.path().join("failed").exists() {
        let failed = detect(shop.well(&["show", "-json", "failed"]).await).await;
        assert!(failed.errored && failed.resolved_drift_logs == 0);
    }
    assert_eq!(shop.lines(&state).await, before);
    shop.cloud.fail(false);

    // Taken back by an apply, it is resolved.
    shop.well(&["apply", "-auto-approve", "-input=false"]).await;
    let found = detect(shop.plan(&["-refresh-only"]).await).await;
    assert_eq!((found.drifted_resources, found.drift_logs), (0, 0));
    assert!(shop.lines(&state).await.is_empty());
    // No secret of it stands anywhere in the clear.
    let tables = "select string_agg(t, ' ') from (
        select drift_logs::text t from drift_logs union all select drift_views::text from drift_views
        union all select drift_changes::text from drift_changes) all_rows";
    let all: String = shop.world.admin.query_one(tables, &[]).await.unwrap().get(0);
    for canary in ["hunter2-canary", "other-canary"] {
        let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!all.contains(canary) && !all.contains(&hex), "{canary}");
    }
}
