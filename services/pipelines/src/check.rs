//! Checks for drift that schedules ask for: each request is answered once, with an execution or with why there is none.
//!
//! The event and what follows from it commit together, so that a request that comes again has no second effect.

use api::{
    events::v1::{Actor, ActorKind, DriftCheckAnswered, DriftCheckRequested, Event, PositionedEvent, event::Payload},
    identity::v1::{GetPermissionSetRequest, PrincipalKind, auth_service_client::AuthServiceClient},
};
use async_trait::async_trait;
use kit::{
    Error, Result, Violations,
    auth::permission::PermissionSet,
    db::Tx,
    events::consumer::Consumer,
    ids,
    rpc::client::{PeerChannel, peer_error},
    service::Kit,
};
use time::OffsetDateTime;

use crate::{
    model::{EventId, ExecutionId, PipelineId, StateName, pipeline::Origin},
    store,
};

/// What whoever has a schedule must be allowed to do whenever it is due.
const RUN: &str = "pipelines.pipeline.run";

/// Answers schedules.
pub(crate) struct Checks {
    kit: Kit,
    identity: AuthServiceClient<PeerChannel>,
}

impl Checks {
    /// Rights are asked of identity.
    pub(crate) fn new(kit: Kit) -> Self {
        let identity = AuthServiceClient::new(kit.peers.channel("identity"));
        Checks { kit, identity }
    }

    /// The execution, or why there is none.
    async fn answer(
        &self,
        tx: &mut Tx,
        event: &Event,
        asked: &DriftCheckRequested,
    ) -> Result<std::result::Result<ExecutionId, &'static str>> {
        let before = asked.begin_before.as_ref();
        let before = before.and_then(|before| OffsetDateTime::from_unix_timestamp(before.seconds).ok());
        if before.is_none_or(|before| before <= OffsetDateTime::now_utc()) {
            return Ok(Err("LATE"));
        }
        let id: PipelineId = asked.pipeline_id.parse().map_err(Error::internal)?;
        let Some(pipeline) = store::pipeline::find(tx, id).await? else {
            return Ok(Err("PIPELINE_NOT_FOUND"));
        };
        let state = StateName::parse("state_name", asked.state_name.clone(), &mut Violations::new());
        if state.as_ref() != Some(&pipeline.state_name) {
            return Ok(Err("PIPELINE_OF_ANOTHER_STATE"));
        }
        if store::execution::is_live(tx, &pipeline.state_name).await? {
            return Ok(Err("STATE_BUSY"));
        }
        if !self.allows(tx, asked.author.as_ref()).await? {
            return Ok(Err("PERMISSION_MISSING"));
        }
        if !self.kit.caught_up("designs").await {
            return Err(Error::unavailable("designs", "its newest version is not known"));
        }
        let design = store::design::find(tx, pipeline.design_id).await?;
        let Some(version) = design.and_then(|it| it.version(0).ok()) else {
            return Ok(Err("DESIGN_NOT_PUBLISHED"));
        };
        let origin = Origin::Schedule {
            event: EventId(ids::parse(&event.event_id).map_err(Error::internal)?),
            depth: i32::try_from(event.chain_depth + 1).map_err(Error::internal)?,
        };
        let execution = store::execution::insert(tx, &pipeline, version, origin).await?;
        let execution = execution.ok_or_else(|| Error::internal("a new id is taken"))?;
        tx.acted("TriggerExecution", &execution);
        Ok(Ok(execution.id))
    }

    /// Whether it is asked in the name of somebody who may run pipelines now.
    async fn allows(&self, tx: &Tx, author: Option<&Actor>) -> Result<bool> {
        let Some(author) = author else { return Ok(false) };
        let kind = match author.kind() {
            ActorKind::User => PrincipalKind::User,
            ActorKind::ApiKey => PrincipalKind::ApiKey,
            _ => return Ok(false),
        };
        let request = GetPermissionSetRequest {
            organization_id: tx.org().to_string(),
            principal_kind: kind.into(),
            principal_id: author.id.clone(),
        };
        let mut identity = self.identity.clone();
        let answer = identity.get_permission_set(request).await;
        let answer = answer.map_err(|status| peer_error("identity", status))?;
        Ok(PermissionSet::resolve(&answer.into_inner().permissions).holds(RUN))
    }
}

#[async_trait]
impl Consumer for Checks {
    fn name(&self) -> &'static str {
        "pipelines.checks"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["terraform_state"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(event) = event.event.as_ref() else {
            return Ok(());
        };
        let Some(Payload::DriftCheckRequested(asked)) = &event.payload else {
            return Ok(());
        };
        let (execution_id, refusal) = match self.answer(tx, event, asked).await? {
            Ok(execution) => (execution.to_string(), ""),
            Err(refusal) => (String::new(), refusal),
        };
        tx.tell(Payload::DriftCheckAnswered(DriftCheckAnswered {
            drift_run_id: asked.drift_run_id.clone(),
            execution_id,
            refusal: refusal.to_owned(),
        }));
        Ok(())
    }
}
