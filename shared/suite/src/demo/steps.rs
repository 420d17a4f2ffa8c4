//! The steps of the demo: what is done, and what must be true afterwards.
#![allow(clippy::print_stdout, reason = "what a person sees of `demo`")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail, ensure};
use api::audit::v1::audit_service_client::AuditServiceClient;
use api::audit::v1::notification_service_client::NotificationServiceClient;
use api::audit::v1::{AuditLog, ListAuditLogsRequest, ListNotificationsRequest, NotificationKind};
use api::designs::v1::design_service_client::DesignServiceClient;
use api::designs::v1::template_service_client::TemplateServiceClient;
use api::designs::v1::{
    CreateDesignRequest, Design, ExportTerraformRequest, GetDesignRequest, ListResourcesRequest, ListTemplatesRequest,
    PublishDesignRequest, UpdateDesignRequest,
};
use api::events::v1::Outcome;
use api::identity::v1::api_key_service_client::ApiKeyServiceClient;
use api::identity::v1::auth_service_client::AuthServiceClient;
use api::identity::v1::{CreateApiKeyRequest, LoginRequest, SignUpRequest};
use api::pipelines::v1::pipeline_service_client::PipelineServiceClient;
use api::pipelines::v1::{
    CreatePipelineRequest, Execution, ExecutionStatus, GetExecutionRequest, ListExecutionsRequest,
    ReadStageLogsRequest, RunPipelineRequest, Trigger,
};
use api::terraform_state::v1::drift_service_client::DriftServiceClient;
use api::terraform_state::v1::state_service_client::StateServiceClient;
use api::terraform_state::v1::{
    CreateStateRequest, DetectDriftRequest, DetectDriftResponse, GetStateRequest, ListDriftLogsRequest,
};
use prost_types::{FieldMask, Struct, value::Kind};
use serde_json::{Value, json};
use testkit::guard::Guard;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Stage;
use super::agent::Agent;
use super::desk::{Desk, eventually, reason, request_id};
use super::terraform::{Checkout, Terraform};
use crate::processes::{RUNNER, binary};

/// What the demo knows so far.
pub(super) struct Story<'a> {
    stage: &'a Stage,
    nobody: Desk,
    /// With the token of the person who signed up, then with the API key.
    me: Desk,
    /// Part of every name, so that demos on one suite do not meet.
    mark: String,
    design: Design,
    state_id: String,
    state_name: String,
    pipeline_id: String,
    execution: Execution,
    runner: Option<Runner>,
}

/// Who works on the pipeline's stages.
enum Runner {
    /// A `board3-runner` of the organization.
    Process(#[expect(dead_code, reason = "ends with the story")] Guard),
    /// The demo itself, where there is no Terraform.
    Played(tokio::task::JoinHandle<()>),
}

impl<'a> Story<'a> {
    pub(super) fn new(stage: &'a Stage) -> Result<Story<'a>> {
        let nobody = Desk::new(&stage.variables)?;
        let mark = Uuid::now_v7().simple().to_string()[4..20].to_owned();
        Ok(Story {
            stage,
            me: nobody.clone(),
            nobody,
            state_name: format!("demo/{mark}"),
            mark,
            design: Design::default(),
            state_id: String::new(),
            pipeline_id: String::new(),
            execution: Execution::default(),
            runner: None,
        })
    }

    /// Does one step and prints what was checked.
    pub(super) async fn step(&mut self, name: &'static str) -> Result<()> {
        let checked = match name {
            "sign up" => self.sign_up().await,
            "API key" => self.api_key().await,
            "design from a template" => self.create_design().await,
            "edit" => self.edit().await,
            "publish" => self.publish(1).await,
            "state" => self.create_state().await,
            "export" => self.export_first().await,
            "apply by hand" => self.apply_by_hand().await,
            "pipeline" => self.create_pipeline().await,
            "run by a runner" => self.run_pipeline().await,
            "logs" => self.read_logs().await,
            "no drift" => self.no_drift().await,
            "drift" => self.drift().await,
            "audit trail" => self.audit_trail().await,
            other => bail!("there is no step `{other}`"),
        }?;
        println!("{name:<24} {checked}");
        Ok(())
    }

    /// Ends what the story started.
    pub(super) async fn end(self) {
        if let Some(Runner::Played(task)) = self.runner {
            task.abort();
        }
    }

    async fn sign_up(&mut self) -> Result<String> {
        let (email, password) = (
            format!("demo-{}@board3.local", self.mark),
            format!("Demo-{}", Uuid::new_v4()),
        );
        let sign_up = SignUpRequest {
            email: email.clone(),
            username: format!("demo-{}", self.mark),
            password: password.clone(),
            first_name: "Ada".into(),
            last_name: "Demo".into(),
            organization_name: format!("Demo {}", self.mark),
            organization_slug: format!("demo-{}", self.mark),
            request_id: request_id(),
        };
        let call = async |channel, request| AuthServiceClient::new(channel).sign_up(request).await;
        let organization = self.nobody.ask("identity", sign_up, call).await?.organization_id;
        let login = LoginRequest {
            email: email.clone(),
            password,
            device: "board3 demo".into(),
            ..Default::default()
        };
        let call = async |channel, request| AuthServiceClient::new(channel).login(request).await;
        let tokens = self
            .nobody
            .ask("identity", login, call)
            .await?
            .tokens
            .context("Login answers tokens")?;
        ensure!(
            tokens.organization_id == organization,
            "the token names another organization"
        );
        self.me = self.nobody.with(&tokens.access_token);
        Ok(format!("{email} owns organization {organization}"))
    }

    async fn api_key(&mut self) -> Result<String> {
        let key = self.new_key("demo", "*.*.*").await?;
        self.me = self.nobody.with(&key);
        Ok("made with the token; everything from here on is called with the key".into())
    }

    /// A key whose secret got lost on its way is made anew.
    async fn new_key(&self, name: &str, scope: &str) -> Result<String> {
        for _ in 0..5 {
            let make = CreateApiKeyRequest {
                name: name.into(),
                scopes: vec![scope.into()],
                expires_at: None,
                request_id: request_id(),
            };
            let call = async |channel, request| ApiKeyServiceClient::new(channel).create_api_key(request).await;
            match self.me.answer("identity", make, call).await? {
                Ok(made) => return Ok(made.secret),
                Err(status) if reason(&status) == "SECRET_ALREADY_SHOWN" => {}
                Err(status) => return Err(anyhow!("CreateApiKey answered {status}")),
            }
        }
        bail!("five keys were made and none arrived")
    }

    async fn create_design(&mut self) -> Result<String> {
        let call = async |channel, request| TemplateServiceClient::new(channel).list_templates(request).await;
        let templates = self
            .me
            .ask("designs", ListTemplatesRequest::default(), call)
            .await?
            .templates;
        let template = (templates
            .iter()
            .find(|template| template.name.starts_with("Three-tier")))
        .context("the platform has a three-tier template")?;
        let create = CreateDesignRequest {
            name: format!("Demo {}", self.mark),
            template_id: template.id.clone(),
            request_id: request_id(),
            ..Default::default()
        };
        let call = async |channel, request| DesignServiceClient::new(channel).create_design(request).await;
        self.design = self.me.ask("designs", create, call).await?.design.context("a design")?;
        let nodes = self.design.canvas.as_ref().map_or(0, |canvas| canvas.nodes.len());
        ensure!(nodes == 4, "the template has 4 nodes, the design {nodes}");
        Ok(format!("`{}` with 4 nodes from `{}`", self.design.name, template.name))
    }

    /// Gives the first node another input and writes the canvas under the design's etag.
    async fn edit(&mut self) -> Result<String> {
        let mut canvas = self.design.canvas.clone().context("a design has a canvas")?;
        let node = canvas.nodes.first_mut().context("a canvas has a node")?;
        let edited = format!("edited {}", Uuid::new_v4().simple());
        let input = prost_types::Value {
            kind: Some(Kind::StringValue(edited)),
        };
        let configuration = node.configuration.get_or_insert_with(Struct::default);
        configuration.fields.insert("input".into(), input);
        let address = format!("{}.{}", node.resource_type, node.name);
        let update = UpdateDesignRequest {
            design_id: self.design.id.clone(),
            design: Some(Design {
                canvas: Some(canvas),
                ..Design::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec!["canvas".into()],
            }),
            etag: self.design.etag.clone(),
            request_id: request_id(),
        };
        let call = async |channel, request| DesignServiceClient::new(channel).update_design(request).await;
        let before = self.design.canvas_hash.clone();
        self.design = self.me.ask("designs", update, call).await?.design.context("a design")?;
        ensure!(self.design.canvas_hash != before, "the canvas has the same hash");
        Ok(format!("{address} has another input, under the design's etag"))
    }

    async fn publish(&mut self, number: i32) -> Result<String> {
        let publish = PublishDesignRequest {
            design_id: self.design.id.clone(),
            etag: self.design.etag.clone(),
            message: "by the demo".into(),
            request_id: request_id(),
        };
        let call = async |channel, request| DesignServiceClient::new(channel).publish_design(request).await;
        let version = self
            .me
            .ask("designs", publish, call)
            .await?
            .version
            .context("a version")?;
        ensure!(
            version.number == number,
            "version {} instead of {number}",
            version.number
        );
        let get = GetDesignRequest {
            design_id: self.design.id.clone(),
        };
        let call = async |channel, request| DesignServiceClient::new(channel).get_design(request).await;
        self.design = self.me.ask("designs", get, call).await?.design.context("a design")?;
        Ok(format!("version {number}, {}", &version.canvas_hash[..12]))
    }

    async fn create_state(&mut self) -> Result<String> {
        let create = CreateStateRequest {
            name: self.state_name.clone(),
            design_id: self.design.id.clone(),
            request_id: request_id(),
        };
        let call = async |channel, request| StateServiceClient::new(channel).create_state(request).await;
        let state = self
            .me
            .ask("terraform_state", create, call)
            .await?
            .state
            .context("a state")?;
        ensure!(
            state.current_version.is_none() && state.lock.is_none(),
            "a new state is empty and free"
        );
        self.state_id = state.id;
        Ok(format!("`{}`, empty", self.state_name))
    }

    async fn export(&self, version: i32) -> Result<Vec<u8>> {
        let export = ExportTerraformRequest {
            design_id: self.design.id.clone(),
            version,
            state_name: self.state_name.clone(),
        };
        let call = async |channel: Channel, request| -> Result<Response<Vec<u8>>, Status> {
            let mut parts = DesignServiceClient::new(channel)
                .export_terraform(request)
                .await?
                .into_inner();
            let mut file = Vec::new();
            while let Some(part) = parts.message().await? {
                file.extend(part.content);
            }
            Ok(Response::new(file))
        };
        self.me.ask("designs", export, call).await
    }

    async fn export_first(&mut self) -> Result<String> {
        let (first, again) = (self.export(1).await?, self.export(1).await?);
        ensure!(first == again, "two exports of one version differ");
        Ok(format!("main.tf.json, {} bytes, twice the same", first.len()))
    }

    async fn apply_by_hand(&mut self) -> Result<String> {
        let dir = self.stage.checkout("by-hand");
        let checkout = Checkout {
            terraform: &self.stage.terraform,
            dir: &dir,
            password: &self.me.credential,
        };
        checkout.init(&self.export(1).await?).await?;
        let resources = checkout.apply().await?;
        ensure!(resources == 4, "{resources} resources instead of 4");
        ensure!(
            checkout.nothing_to_do().await?,
            "a plan after the apply has something to do"
        );
        let state = self.state().await?;
        let version = state.current_version.context("the state was written")?;
        ensure!(state.lock.is_none(), "the lock was not given back");
        Ok(format!(
            "init, apply (4 resources), plan (no changes); the state has serial {}",
            version.serial
        ))
    }

    async fn state(&self) -> Result<api::terraform_state::v1::State> {
        let get = GetStateRequest {
            state_id: self.state_id.clone(),
        };
        let call = async |channel, request| StateServiceClient::new(channel).get_state(request).await;
        self.me
            .ask("terraform_state", get, call)
            .await?
            .state
            .context("a state")
    }

    async fn create_pipeline(&mut self) -> Result<String> {
        let create = CreatePipelineRequest {
            name: format!("demo {}", self.mark),
            design_id: self.design.id.clone(),
            state_name: self.state_name.clone(),
            stages: Vec::new(),
            triggers: vec![Trigger::Manual.into(), Trigger::Drift.into()],
            request_id: request_id(),
        };
        let call = async |channel, request| PipelineServiceClient::new(channel).create_pipeline(request).await;
        let pipeline = self
            .me
            .ask("pipelines", create, call)
            .await?
            .pipeline
            .context("a pipeline")?;
        let stages: Vec<_> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
        ensure!(stages == ["validate", "plan", "apply"], "{stages:?}");
        self.pipeline_id = pipeline.id;
        Ok("validate → plan → apply, by hand and on drift".into())
    }

    async fn run_pipeline(&mut self) -> Result<String> {
        self.edit().await?;
        self.publish(2).await?;
        self.start_runner().await?;
        let serial = self.serial().await?;
        let run = RunPipelineRequest {
            pipeline_id: self.pipeline_id.clone(),
            design_version: 2,
            request_id: request_id(),
        };
        let call = async |channel, request| PipelineServiceClient::new(channel).run_pipeline(request).await;
        let queued = self
            .me
            .ask("pipelines", run, call)
            .await?
            .execution
            .context("an execution")?;
        self.execution = self.finished(&queued.id).await?;
        ensure!(self.serial().await? > serial, "the apply wrote no state");
        Ok(format!("execution {} of version 2 succeeded", self.execution.id))
    }

    async fn serial(&self) -> Result<i64> {
        let version = self.state().await?.current_version;
        Ok(version.context("the state was written")?.serial)
    }

    /// A runner of the demo's organization: the program, or the demo itself where there is no Terraform.
    async fn start_runner(&mut self) -> Result<()> {
        let key = self.new_key("demo runner", "pipelines.runner.work").await?;
        let name = format!("demo-{}", self.mark);
        self.runner = Some(match self.stage.terraform {
            Terraform::Real(_) => {
                let mut command = Command::new(binary(RUNNER)?);
                for (name, value) in &self.stage.variables {
                    command.env(name, value);
                }
                command
                    .env("BOARD3_RUNNER_NAME", name)
                    .env("BOARD3_RUNNER_API_KEY", key)
                    .env("BOARD3_RUNNER_DIR", self.stage.checkout("runner"))
                    .env("BOARD3_HTTP_LISTEN", "127.0.0.1:0");
                Runner::Process(Guard::spawn(
                    &command,
                    "TERM",
                    None,
                    &self.stage.dir.join("runner.log"),
                )?)
            }
            Terraform::Protocol => {
                let agent = Agent {
                    desk: self.nobody.with(&key),
                    name,
                    dir: self.stage.checkout("runner"),
                };
                Runner::Played(tokio::spawn(agent.work()))
            }
        });
        Ok(())
    }

    /// Waits for the end of an execution, which must be a good one.
    async fn finished(&self, id: &str) -> Result<Execution> {
        let get = GetExecutionRequest {
            execution_id: id.to_owned(),
        };
        let call = async |channel, request| PipelineServiceClient::new(channel).get_execution(request).await;
        eventually("the execution has come to its end", async || {
            let execution = self
                .me
                .ask("pipelines", get.clone(), call)
                .await?
                .execution
                .context("an execution")?;
            match execution.status() {
                ExecutionStatus::Succeeded => Ok(Some(execution)),
                ExecutionStatus::Queued | ExecutionStatus::Running | ExecutionStatus::Cancelling => Ok(None),
                ended => bail!("{ended:?}: {}; {:#?}", execution.status_detail, execution.stages),
            }
        })
        .await
    }

    async fn read_logs(&mut self) -> Result<String> {
        let mut told = Vec::new();
        for stage in &self.execution.stages {
            let read = ReadStageLogsRequest {
                stage_id: stage.id.clone(),
                follow: true,
                ..Default::default()
            };
            let call = async |channel: Channel, request: Request<ReadStageLogsRequest>| {
                let mut client = PipelineServiceClient::new(channel);
                let mut parts = client.read_stage_logs(request).await?.into_inner();
                let (mut log, mut complete) = (Vec::new(), false);
                while let Some(part) = parts.message().await? {
                    log.extend(part.content);
                    complete |= part.complete;
                }
                Ok(Response::new((log, complete)))
            };
            let (log, complete) = self.me.ask("pipelines", read, call).await?;
            let log = String::from_utf8_lossy(&log);
            ensure!(complete, "the log of {} is not complete", stage.name);
            ensure!(
                stage.name != "apply" || log.contains("Apply complete!"),
                "the apply's log is {log}"
            );
            told.push(format!("{} {} bytes", stage.name, log.len()));
        }
        Ok(told.join(", "))
    }

    /// A refresh-only plan of what was applied last.
    async fn refresh_only(&self) -> Result<Value> {
        let dir = self.stage.checkout("refresh-only");
        let checkout = Checkout {
            terraform: &self.stage.terraform,
            dir: &dir,
            password: &self.me.credential,
        };
        checkout.init(&self.export(2).await?).await?;
        checkout.refresh_only().await
    }

    async fn detect(&self, plan: &Value) -> Result<DetectDriftResponse> {
        let first = DetectDriftRequest {
            state_id: self.state_id.clone(),
            request_id: request_id(),
            plan_json: Vec::new(),
        };
        let text = serde_json::to_vec(plan)?;
        let parts = text.chunks(64 * 1024).map(|part| DetectDriftRequest {
            plan_json: part.to_vec(),
            ..Default::default()
        });
        let messages: Vec<_> = [first].into_iter().chain(parts).collect();
        let call = async |channel, request: Request<Vec<_>>| {
            let request = request.map(futures_util::stream::iter);
            DriftServiceClient::new(channel).detect_drift(request).await
        };
        self.me.ask("terraform_state", messages, call).await
    }

    async fn no_drift(&mut self) -> Result<String> {
        let found = self.detect(&self.refresh_only().await?).await?;
        ensure!(found.drifted_resources == 0 && found.drift_logs == 0, "{found:?}");
        Ok("a refresh-only plan has none".into())
    }

    async fn drift(&mut self) -> Result<String> {
        let node = (self.design.canvas.as_ref().and_then(|canvas| canvas.nodes.first())).context("a node")?;
        let address = format!("{}.{}", node.resource_type, node.name);
        let mut plan = self.refresh_only().await?;
        plan["resource_drift"] = json!([{
            "address": address, "mode": "managed", "type": node.resource_type, "name": node.name,
            "provider_name": "terraform.io/builtin/terraform",
            "change": {"actions": ["update"], "before": {"id": "1", "input": "drawn"}, "after": {"id": "1", "input": "changed by hand"},
                "after_unknown": {}, "before_sensitive": {}, "after_sensitive": {}},
        }]);
        let found = self.detect(&plan).await?;
        ensure!(found.drifted_resources == 1 && found.drift_logs == 1, "{found:?}");

        let list = ListDriftLogsRequest {
            check_id: found.check_id.clone(),
            ..Default::default()
        };
        let call = async |channel, request| DriftServiceClient::new(channel).list_drift_logs(request).await;
        let logs = self.me.ask("terraform_state", list, call).await?.drift_logs;
        ensure!(
            logs.len() == 1 && logs[0].address == address && logs[0].path == "input",
            "{logs:?}"
        );

        let list = ListResourcesRequest {
            design_id: self.design.id.clone(),
            ..Default::default()
        };
        let call = async |channel, request| DesignServiceClient::new(channel).list_resources(request).await;
        eventually("the resource is coloured", async || {
            let resources = self.me.ask("designs", list.clone(), call).await?.resources;
            let coloured = resources.iter().filter(|resource| !resource.drifts.is_empty());
            Ok((coloured
                .map(|resource| resource.address.as_str())
                .eq([address.as_str()]))
            .then_some(()))
        })
        .await?;

        let list = ListExecutionsRequest {
            pipeline_id: self.pipeline_id.clone(),
            ..Default::default()
        };
        let call = async |channel, request| PipelineServiceClient::new(channel).list_executions(request).await;
        let triggered = eventually("drift has triggered an execution", async || {
            let executions = self.me.ask("pipelines", list.clone(), call).await?.executions;
            Ok(executions
                .into_iter()
                .find(|execution| execution.trigger() == Trigger::Drift))
        })
        .await?;
        ensure!(
            !triggered.cause_event_id.is_empty(),
            "the execution does not name its cause"
        );
        self.finished(&triggered.id).await?;

        let list = ListNotificationsRequest {
            unread_only: true,
            ..Default::default()
        };
        let call = async |channel, request| {
            NotificationServiceClient::new(channel)
                .list_notifications(request)
                .await
        };
        let told = eventually("there is a notification of the drift", async || {
            let told = self.me.ask("audit", list.clone(), call).await?.notifications;
            Ok(told
                .into_iter()
                .find(|told| told.kind() == NotificationKind::DriftDetected))
        })
        .await?;
        Ok(format!(
            "{address} found, coloured, repaired by execution {}; notified: {}",
            triggered.id, told.title
        ))
    }

    async fn audit_trail(&mut self) -> Result<String> {
        let mut expected: BTreeSet<&str> = [
            "identity.CreateApiKey",
            "designs.CreateDesign",
            "designs.UpdateDesign",
            "designs.PublishDesign",
            "terraform_state.CreateState",
            "terraform_state.LockState",
            "terraform_state.UploadState",
            "terraform_state.DownloadState",
            "terraform_state.UnlockState",
            "terraform_state.DetectDrift",
            "pipelines.CreatePipeline",
            "pipelines.RunPipeline",
            "pipelines.Register",
            "pipelines.Start",
            "pipelines.Complete",
            "pipelines.TriggerExecution",
        ]
        .into();
        let mut logs = Vec::new();
        eventually("every step is in the trail", async || {
            Ok(expected_in(&self.whole_trail().await?, &expected).then_some(()))
        })
        .await?;
        logs.extend(self.whole_trail().await?);
        for log in &logs {
            let whole = log.actor.as_ref().is_some_and(|actor| actor.kind != 0)
                && log.resource.as_ref().is_some_and(|resource| !resource.id.is_empty())
                && !log.request_id.is_empty()
                && log.trace_id.len() == 32;
            ensure!(whole, "an audit log lacks something: {log:?}");
            ensure!(log.outcome() == Outcome::Success, "{log:?}");
            expected.remove(log.action.as_str());
        }
        ensure!(expected.is_empty(), "not in the trail: {expected:?}");
        let in_trace = logs.iter().filter(|log| log.trace_id == self.nobody.trace).count();
        ensure!(in_trace >= 12, "only {in_trace} logs carry the demo's trace");
        let since = logs.iter().filter_map(|log| log.occurred_at).map(|at| at.seconds).min();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        Ok(format!(
            "{} audited calls in {} s, each with actor, resource, outcome, request id and trace id",
            logs.len(),
            now.saturating_sub(since.unwrap_or_default() as u64)
        ))
    }

    async fn whole_trail(&self) -> Result<Vec<AuditLog>> {
        let mut list = ListAuditLogsRequest {
            page_size: 200,
            ..Default::default()
        };
        let mut logs = Vec::new();
        loop {
            let call = async |channel, request| AuditServiceClient::new(channel).list_audit_logs(request).await;
            let page = self.me.ask("audit", list.clone(), call).await?;
            logs.extend(page.audit_logs);
            if page.next_page_token.is_empty() {
                return Ok(logs);
            }
            list.page_token = page.next_page_token;
        }
    }
}

fn expected_in(logs: &[AuditLog], expected: &BTreeSet<&str>) -> bool {
    expected
        .iter()
        .all(|action| logs.iter().any(|log| log.action == *action))
}
