//! The steps that look at what came of it: drift, and the audit trail.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use api::audit::v1::audit_service_client::AuditServiceClient;
use api::audit::v1::notification_service_client::NotificationServiceClient;
use api::audit::v1::{AuditLog, ListAuditLogsRequest, ListNotificationsRequest, NotificationKind};
use api::designs::v1::ListResourcesRequest;
use api::designs::v1::design_service_client::DesignServiceClient;
use api::events::v1::Outcome;
use api::pipelines::v1::pipeline_service_client::PipelineServiceClient;
use api::pipelines::v1::{ListExecutionsRequest, Trigger};
use api::terraform_state::v1::drift_service_client::DriftServiceClient;
use api::terraform_state::v1::{DetectDriftRequest, DetectDriftResponse, ListDriftLogsRequest};
use serde_json::{Value, json};
use tonic::Request;

use super::Story;
use crate::demo::desk::{eventually, request_id};
use crate::demo::terraform::Checkout;

impl Story<'_> {
    /// A refresh-only plan of what was applied last.
    pub(super) async fn refresh_only(&self) -> Result<Value> {
        let dir = self.stage.checkout("refresh-only");
        let checkout = Checkout {
            terraform: &self.stage.terraform,
            dir: &dir,
            password: &self.me.credential,
        };
        checkout.init(&self.export(2).await?).await?;
        checkout.refresh_only().await
    }

    pub(super) async fn detect(&self, plan: &Value) -> Result<DetectDriftResponse> {
        let first = DetectDriftRequest {
            state_id: self.state_id.clone(),
            request_id: request_id(),
            ..Default::default()
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

    pub(super) async fn no_drift(&mut self) -> Result<String> {
        let found = self.detect(&self.refresh_only().await?).await?;
        ensure!(found.drifted_resources == 0 && found.drift_logs == 0, "{found:?}");
        Ok("a refresh-only plan has none".into())
    }

    pub(super) async fn drift(&mut self) -> Result<String> {
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

    pub(super) async fn audit_trail(&mut self) -> Result<String> {
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

    pub(super) async fn whole_trail(&self) -> Result<Vec<AuditLog>> {
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
