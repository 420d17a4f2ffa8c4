//! The runner's part of the demo where there is no Terraform: the same calls and HTTP requests, and no program.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use api::designs::v1::ExportTerraformRequest;
use api::designs::v1::design_service_client::DesignServiceClient;
use api::pipelines::v1::runner_service_client::RunnerServiceClient;
use api::pipelines::v1::{
    AcquireRequest, AppendLogRequest, CompleteRequest, Lease, RegisterRequest, StageKind, StageOutcome, StartRequest,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::desk::{Desk, request_id};
use super::terraform::{Checkout, Terraform};

/// A runner that is played.
pub(super) struct Agent {
    pub(super) desk: Desk,
    pub(super) name: String,
    pub(super) dir: PathBuf,
}

impl Agent {
    /// Works until it is dropped; a stage that goes wrong is reported as failed by the end of its lease.
    pub(super) async fn work(self) {
        loop {
            if let Err(error) = self.one_after_the_other().await {
                eprintln!("the played runner: {error:#}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn one_after_the_other(&self) -> Result<()> {
        let register = RegisterRequest {
            name: self.name.clone(),
            terraform_version: "1.11.4".into(),
            request_id: request_id(),
        };
        let call = async |channel, request| RunnerServiceClient::new(channel).register(request).await;
        let runner = self
            .desk
            .ask("pipelines", register, call)
            .await?
            .runner
            .context("a runner")?;
        loop {
            let acquire = AcquireRequest {
                runner_id: runner.id.clone(),
                wait: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            };
            let call = async |channel, request| RunnerServiceClient::new(channel).acquire(request).await;
            if let Some(lease) = self.desk.ask("pipelines", acquire, call).await?.lease {
                self.stage(&lease).await?;
            }
        }
    }

    async fn stage(&self, lease: &Lease) -> Result<()> {
        let start = StartRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            request_id: request_id(),
        };
        let call = async |channel, request| RunnerServiceClient::new(channel).start(request).await;
        self.desk.ask("pipelines", start, call).await?;

        let checkout = Checkout {
            terraform: &Terraform::Protocol,
            dir: &self.dir.join(&lease.id),
            password: &lease.job_credential,
        };
        let configuration = self.export(lease).await?;
        let (said, plan) = match lease.kind() {
            StageKind::Plan => {
                checkout.init(&configuration).await?;
                checkout.nothing_to_do().await?;
                ("Plan: played.\n", b"played".to_vec())
            }
            StageKind::Apply => {
                checkout.init(&configuration).await?;
                checkout.apply().await?;
                ("Apply complete! Played.\n", Vec::new())
            }
            // Changes no state, and its job may not.
            StageKind::Validate | StageKind::Drift | StageKind::Unspecified => {
                checkout.put(&configuration)?;
                ("Success! Played.\n", Vec::new())
            }
        };
        let log = AppendLogRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            offset: 0,
            content: said.into(),
        };
        let call = async |channel, request| RunnerServiceClient::new(channel).append_log(request).await;
        self.desk.ask("pipelines", log, call).await?;
        let complete = CompleteRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            outcome: StageOutcome::Succeeded.into(),
            log_bytes: said.len() as i64,
            plan,
            request_id: request_id(),
            ..Default::default()
        };
        let call = async |channel, request| RunnerServiceClient::new(channel).complete(request).await;
        self.desk.ask("pipelines", complete, call).await?;
        Ok(())
    }

    async fn export(&self, lease: &Lease) -> Result<Vec<u8>> {
        let export = ExportTerraformRequest {
            design_id: lease.design_id.clone(),
            version: lease.design_version,
            state_name: lease.state_name.clone(),
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
        self.desk.with(&lease.job_credential).ask("designs", export, call).await
    }
}
