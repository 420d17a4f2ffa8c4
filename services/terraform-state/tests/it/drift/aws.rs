//! The real `terraform` with the real provider of AWS, against a server that imitates AWS.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;
use crate::cli::terraform as program;

/// Directories in which providers are put for want of a registry.
fn mirror() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let mut usual = vec![
        home.join(".terraform.d/plugins"),
        PathBuf::from("/opt/tf-plugins"),
        PathBuf::from("/usr/local/share/terraform/plugins"),
        PathBuf::from("/usr/share/terraform/plugins"),
    ];
    usual.extend(std::env::var_os("TF_PLUGIN_MIRROR").map(PathBuf::from));
    let found = usual
        .into_iter()
        .find(|dir| dir.join("registry.terraform.io/hashicorp/aws").is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: there is no provider of AWS in a directory of plugins");
    }
    found
}

/// A Python that has moto's server, in a virtual environment where it has to be installed.
fn python(dir: &Path) -> Option<PathBuf> {
    let has = |python: &Path| {
        let asked = Command::new(python)
            .args(["-c", "import moto.server, boto3"])
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success())
    };
    let system = PathBuf::from("python3");
    if has(&system) {
        return Some(system);
    }
    let own = dir.join("venv");
    let made = Command::new("python3").args(["-m", "venv"]).arg(&own).status();
    let python = own.join("bin/python");
    if made.is_ok_and(|status| status.success()) {
        let install = ["-m", "pip", "install", "--quiet", "moto[server]==5.*"];
        let _ = Command::new(&python).args(install).stderr(Stdio::null()).status();
    }
    if has(&python) {
        return Some(python);
    }
    eprintln!("SKIPPED: moto's server cannot be installed");
    None
}

/// An imitation of AWS; it ends with its standard input.
struct Aws {
    server: Child,
    endpoint: String,
}

impl Drop for Aws {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

const SERVE: &str = "
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

const CHANGE: &str = "
import boto3, sys
known = dict(region_name='us-east-1', aws_access_key_id='test', aws_secret_access_key='test', endpoint_url=sys.argv[1])
ec2 = boto3.client('ec2', **known)
for vpc in ec2.describe_vpcs(Filters=[{'Name': 'tag:env', 'Values': ['dev']}])['Vpcs']:
    ec2.create_tags(Resources=[vpc['VpcId']], Tags=[{'Key': 'env', 'Value': 'by-hand'}])
sqs = boto3.client('sqs', **known)
sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName='board3-jobs')['QueueUrl'])
";

fn serve(python: &Path) -> Aws {
    let mut server = Command::new(python)
        .args(["-c", SERVE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    let endpoint = format!("http://127.0.0.1:{}", port.trim());
    Aws { server, endpoint }
}

fn configuration(endpoint: &str) -> String {
    format!(
        r#"
        terraform {{
          backend "http" {{}}
          required_providers {{
            aws = {{ source = "hashicorp/aws" }}
          }}
        }}
        provider "aws" {{
          region                      = "us-east-1"
          access_key                  = "test"
          secret_key                  = "test"
          skip_credentials_validation = true
          skip_metadata_api_check     = true
          skip_requesting_account_id  = true
          s3_use_path_style           = true
          max_retries                 = 2
          endpoints {{
            s3  = "{endpoint}"
            sqs = "{endpoint}"
            ec2 = "{endpoint}"
            sts = "{endpoint}"
          }}
        }}
        resource "aws_s3_bucket" "files" {{
          bucket = "board3-files"
          tags   = {{ env = "dev" }}
        }}
        resource "aws_sqs_queue" "jobs" {{
          name = "board3-jobs"
        }}
        resource "aws_vpc" "net" {{
          cidr_block = "10.0.0.0/16"
          tags       = {{ env = "dev" }}
        }}
        "#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_aws_by_hand_is_found_and_what_its_provider_writes_differently_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (Some(program), Some(mirror)) = (program(), mirror()) else {
        return;
    };
    let Some(python) = python(dir.path()) else { return };
    let aws = serve(&python);
    let world = World::new().await;
    let principal = kit::ids::Principal::User(kit::ids::UserId::new());
    world
        .served
        .office
        .grant(world.org, principal, &["terraform_state.*.*"]);
    let token = world.served.office.token(world.org, principal, Uuid::now_v7(), 1);
    let address = format!("http://{}/v1/states/aws", world.served.running.doors[0]);
    let settings = format!(
        "provider_installation {{\n filesystem_mirror {{\n path = {:?}\n }}\n}}\n",
        mirror
    );
    std::fs::write(dir.path().join("rc"), settings).unwrap();
    std::fs::write(dir.path().join("main.tf"), configuration(&aws.endpoint)).unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&program);
        command
            .args(arguments)
            .current_dir(dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", dir.path())
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_CLI_CONFIG_FILE", dir.path().join("rc"))
            .env("TF_HTTP_ADDRESS", &address)
            .env("TF_HTTP_LOCK_ADDRESS", &address)
            .env("TF_HTTP_UNLOCK_ADDRESS", &address)
            .env("TF_HTTP_USERNAME", "anyone")
            .env("TF_HTTP_PASSWORD", &token)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "terraform {arguments:?}: {told}");
        output.stdout
    };
    run(&["init", "-input=false"]).await;
    run(&["apply", "-input=false", "-auto-approve"]).await;
    let state = "select id::text from states where name = 'aws'";
    let state: String = world.admin.query_one(state, &[]).await.unwrap().get(0);
    let plan = ["plan", "-refresh-only", "-input=false", "-lock=false", "-out=p"];

    run(&plan).await;
    let found = world.detect(&state, run(&["show", "-json", "p"]).await).await.unwrap();
    assert_eq!(
        (found.drifted_resources, found.drift_logs),
        (0, 0),
        "{:?}",
        world.logs(&state).await
    );

    let changed = Command::new(&python)
        .args(["-c", CHANGE, &aws.endpoint])
        .output()
        .unwrap();
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    run(&plan).await;
    let found = world.detect(&state, run(&["show", "-json", "p"]).await).await.unwrap();
    let lines: Vec<String> = world.logs(&state).await.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "aws_sqs_queue.jobs is gone",
            "aws_vpc.net tags[\"env\"]: dev -> by-hand"
        ]
    );
    assert_eq!((found.drifted_resources, found.new_drift_logs), (2, 2));
}
