//! The steps about pipelines: one is made, run by a runner, and its logs are read.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use api::pipelines::v1::pipeline_service_client::PipelineServiceClient;
use api::pipelines::v1::{
    CreatePipelineRequest, Execution, ExecutionStatus, GetExecutionRequest, ReadStageLogsRequest, RunPipelineRequest,
    Trigger,
};
use testkit::guard::Guard;
use tonic::transport::Channel;
use tonic::{Request, Response};

use super::{Runner, Story};
use crate::demo::agent::Agent;
use crate::demo::desk::{eventually, request_id};
use crate::demo::terraform::Terraform;
use crate::processes::{RUNNER, binary};

impl Story<'_> {
    pub(super) async fn create_pipeline(&mut self) -> Result<String> {
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

    pub(super) async fn run_pipeline(&mut self) -> Result<String> {
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

    pub(super) async fn serial(&self) -> Result<i64> {
        let version = self.state().await?.current_version;
        Ok(version.context("the state was written")?.serial)
    }

    /// A runner of the demo's organization: the program, or the demo itself where there is no Terraform.
    pub(super) async fn start_runner(&mut self) -> Result<()> {
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
    pub(super) async fn finished(&self, id: &str) -> Result<Execution> {
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

    pub(super) async fn read_logs(&mut self) -> Result<String> {
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
}
