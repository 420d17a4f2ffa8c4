//! The real Terraform's plans.

use std::{path::Path, process::Command};

use super::*;

/// Terraform in a directory of its own; `None` where there is none.
fn terraform(directory: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("terraform")
        .args(arguments)
        .current_dir(directory)
        .env("CHECKPOINT_DISABLE", "1")
        .env("TF_IN_AUTOMATION", "1")
        .env("TF_CLI_CONFIG_FILE", directory.join("none.tfrc"))
        .output();
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        output => {
            let output = output.unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "terraform {arguments:?}: {told}");
            Some(output.stdout)
        }
    }
}

#[tokio::test]
async fn a_plan_of_the_real_terraform_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = r#"
        variable "pw" {
          default   = "hunter2"
          sensitive = true
        }
        resource "terraform_data" "one" {
          for_each = toset(["a", "b"])
          input    = { name = each.key, pw = var.pw }
        }
    "#;
    std::fs::write(directory.path().join("main.tf"), configuration).unwrap();
    std::fs::write(directory.path().join("none.tfrc"), "").unwrap();
    let run = |arguments: &[&str]| terraform(directory.path(), arguments);
    if run(&["init", "-input=false"]).is_none() {
        eprintln!("terraform: none on PATH, nothing was checked");
        return;
    }
    run(&["apply", "-input=false", "-auto-approve"]);
    run(&["plan", "-refresh-only", "-input=false", "-out=plan"]);
    let shown = run(&["show", "-json", "plan"]).unwrap();

    let world = World::new().await;
    let state = world.state("real").await;
    let found = world.detect(&state, &shown).await.unwrap();
    assert_eq!((found.drifted_resources, found.drift_logs), (0, 0));
    // What terraform shows of its state is not a plan.
    let state_shown = run(&["show", "-json"]).unwrap();
    assert_eq!(reason(world.detect(&state, &state_shown).await).1, ["plan_json"]);

    let mut drifted: Value = serde_json::from_slice(&shown).unwrap();
    let before = drifted["prior_state"]["values"]["root_module"]["resources"][0]["values"].clone();
    let mut after = before.clone();
    after["input"]["name"] = json!("edited");
    after["input"]["pw"] = json!("other");
    drifted["resource_drift"] = json!([{
        "address": "terraform_data.one[\"a\"]", "mode": "managed", "type": "terraform_data", "name": "one", "index": "a",
        "provider_name": "terraform.io/builtin/terraform",
        "change": {
            "actions": ["update"], "before": before, "after": after, "after_unknown": {},
            "before_sensitive": {"input": {"pw": true}}, "after_sensitive": {"input": {"pw": true}},
        },
    }]);
    world.detect(&state, drifted.to_string()).await.unwrap();
    let lines: Vec<String> = world.logs(&state).await.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "terraform_data.one[\"a\"] input[\"name\"]: a -> edited",
            "terraform_data.one[\"a\"] input[\"pw\"]: masked --",
        ]
    );
}
