//! What a person does with an exported design: the real `terraform`, or the same HTTP requests where there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use super::http;

/// How the demo does Terraform's part.
#[derive(Clone, Debug)]
pub enum Terraform {
    /// This program.
    Real(PathBuf),
    /// Its HTTP requests and no program.
    Protocol,
}

impl Terraform {
    /// `terraform` on PATH, if there is one.
    pub fn found() -> Terraform {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join("terraform"));
        match found.into_iter().find(|file| file.is_file()) {
            Some(program) => Terraform::Real(program),
            None => Terraform::Protocol,
        }
    }

    /// `real` or `protocol`.
    pub fn name(&self) -> &'static str {
        match self {
            Terraform::Real(_) => "real",
            Terraform::Protocol => "protocol",
        }
    }
}

/// A directory with one exported configuration.
pub(super) struct Checkout<'a> {
    pub(super) terraform: &'a Terraform,
    pub(super) dir: &'a Path,
    /// The password of the backend: an API key or a job's credential.
    pub(super) password: &'a str,
}

impl Checkout<'_> {
    /// Puts the configuration where Terraform finds it.
    pub(super) fn put(&self, configuration: &[u8]) -> Result<()> {
        fs::create_dir_all(self.dir)?;
        fs::write(self.dir.join("main.tf.json"), configuration).with_context(|| self.dir.display().to_string())
    }

    /// `terraform init`.
    pub(super) async fn init(&self, configuration: &[u8]) -> Result<()> {
        self.put(configuration)?;
        match self.terraform {
            Terraform::Real(program) => self
                .run(program, &["init", "-input=false", "-reconfigure"])
                .await
                .map(drop),
            Terraform::Protocol => http::State::of(self)?.read().await.map(drop),
        }
    }

    /// `terraform apply`; answers how many resources are managed afterwards.
    pub(super) async fn apply(&self) -> Result<usize> {
        match self.terraform {
            Terraform::Real(program) => {
                self.run(
                    program,
                    &["apply", "-input=false", "-auto-approve", "-lock-timeout=60s"],
                )
                .await?;
                let listed = self.run(program, &["state", "list"]).await?;
                Ok(listed.lines().count())
            }
            Terraform::Protocol => {
                let (state, before) = (http::State::of(self)?, http::State::of(self)?.read().await?);
                let after = self.applied(before)?;
                let count = after["resources"].as_array().map_or(0, Vec::len);
                state.locked("OperationTypeApply", Some(&after)).await?;
                Ok(count)
            }
        }
    }

    /// `terraform plan`; whether there is nothing to do.
    pub(super) async fn nothing_to_do(&self) -> Result<bool> {
        match self.terraform {
            Terraform::Real(program) => {
                let told = self
                    .run(program, &["plan", "-input=false", "-lock-timeout=60s"])
                    .await?;
                Ok(told.contains("No changes."))
            }
            Terraform::Protocol => {
                let state = http::State::of(self)?;
                let known = state
                    .locked("OperationTypePlan", None)
                    .await?
                    .context("there is a state")?;
                Ok(known["resources"] == self.applied(Some(known.clone()))?["resources"])
            }
        }
    }

    /// A refresh-only plan as `terraform show -json` prints it.
    pub(super) async fn refresh_only(&self) -> Result<Value> {
        match self.terraform {
            Terraform::Real(program) => {
                let plan = [
                    "plan",
                    "-refresh-only",
                    "-input=false",
                    "-lock=false",
                    "-out=refresh.tfplan",
                ];
                self.run(program, &plan).await?;
                let shown = self.run(program, &["show", "-json", "refresh.tfplan"]).await?;
                Ok(serde_json::from_str(&shown)?)
            }
            Terraform::Protocol => Ok(json!({
                "format_version": "1.2", "terraform_version": "1.11.4", "planned_values": {"root_module": {}},
                "resource_changes": [], "configuration": {}, "applyable": false, "complete": true, "errored": false,
            })),
        }
    }

    /// The state that an apply of the configuration would leave, as far as the backend can tell.
    fn applied(&self, before: Option<Value>) -> Result<Value> {
        let configuration: Value = serde_json::from_slice(&fs::read(self.dir.join("main.tf.json"))?)?;
        let resources = configuration["resource"]["terraform_data"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let resources: Vec<_> = resources
            .iter()
            .map(|(name, arguments)| {
                json!({"mode": "managed", "type": "terraform_data", "name": name,
                    "provider": "provider[\"terraform.io/builtin/terraform\"]",
                    "instances": [{"schema_version": 0, "attributes": {"id": name, "input": arguments["input"]}}]})
            })
            .collect();
        let before = before.unwrap_or_else(|| json!({"serial": 0, "lineage": Uuid::new_v4().to_string()}));
        let serial = before["serial"].as_u64().context("a state has a serial")? + 1;
        Ok(
            json!({"version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": before["lineage"],
            "outputs": {}, "resources": resources, "check_results": null}),
        )
    }

    async fn run(&self, program: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("-no-color")
            .current_dir(self.dir)
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_HTTP_USERNAME", "demo")
            .env("TF_HTTP_PASSWORD", self.password)
            // A service that was killed is back before Terraform gives up.
            .env("TF_HTTP_RETRY_MAX", "10")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.context("terraform")?;
        ensure!(
            output.status.success(),
            "terraform {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).context("terraform writes UTF-8")
    }

    /// The state's address as the configuration has it.
    pub(super) fn address(&self) -> Result<String> {
        let configuration: Value = serde_json::from_slice(&fs::read(self.dir.join("main.tf.json"))?)?;
        match configuration["terraform"]["backend"]["http"]["address"].as_str() {
            Some(address) => Ok(address.to_owned()),
            None => bail!("the exported configuration has no backend"),
        }
    }

    /// The `authorization` header of Terraform's requests.
    pub(super) fn authorization(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("demo:{}", self.password)))
    }
}
