//! Pipelines.

use api::pipelines::v1;
use kit::{Error, Violations, ids};

use super::{UNKNOWN_ENUM, lease, timestamp};
use crate::model::{
    PipelineId, PipelineName, StageKind, StateName, Trigger,
    pipeline::{Definition, Draft, NewPipeline, Pipeline, StageDefinition},
};

impl TryFrom<v1::CreatePipelineRequest> for NewPipeline {
    type Error = Error;

    fn try_from(request: v1::CreatePipelineRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let name = PipelineName::parse("name", request.name, &mut violations);
        let design = ids::required("design_id", &request.design_id, &mut violations);
        let state = StateName::parse("state_name", request.state_name, &mut violations);
        let drafts = request.stages.into_iter().enumerate();
        let drafts = drafts.map(|(at, stage)| draft(at, stage, &mut violations)).collect();
        let stages = Definition::parse(drafts, &mut violations);
        let on_drift = on_drift(&request.triggers, &mut violations);
        let whole = design.zip(state).zip(stages);
        let ((design_id, state_name), stages) = violations.finish(whole)?;
        Ok(NewPipeline {
            name,
            design_id,
            state_name,
            stages,
            on_drift,
        })
    }
}

fn draft(at: usize, stage: v1::StageDefinition, violations: &mut Violations) -> Draft {
    let field = format!("stages[{at}].kind");
    let kind = match v1::StageKind::try_from(stage.kind) {
        Ok(v1::StageKind::Validate) => Some(StageKind::Validate),
        Ok(v1::StageKind::Plan) => Some(StageKind::Plan),
        Ok(v1::StageKind::Apply) => Some(StageKind::Apply),
        Ok(v1::StageKind::Drift) => Some(StageKind::Drift),
        Ok(v1::StageKind::Unspecified) => {
            violations.add(field, "is required");
            None
        }
        Err(_) => {
            violations.add(field, UNKNOWN_ENUM);
            None
        }
    };
    Draft {
        name: stage.name,
        kind,
        needs: stage.needs,
    }
}

/// Whether drift is among the triggers.
fn on_drift(triggers: &[i32], violations: &mut Violations) -> bool {
    let mut on_drift = false;
    for (at, &trigger) in triggers.iter().enumerate() {
        match v1::Trigger::try_from(trigger) {
            Ok(v1::Trigger::Manual) => {}
            Ok(v1::Trigger::Drift) => on_drift = true,
            Ok(v1::Trigger::Schedule) => {
                violations.add(format!("triggers[{at}]"), "must be one that a pipeline is made with");
            }
            Ok(v1::Trigger::Unspecified) | Err(_) => violations.add(format!("triggers[{at}]"), UNKNOWN_ENUM),
        }
    }
    on_drift
}

impl TryFrom<v1::GetPipelineRequest> for PipelineId {
    type Error = Error;

    fn try_from(request: v1::GetPipelineRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("pipeline_id", &request.pipeline_id, &mut violations);
        violations.finish(id)
    }
}

/// A pipeline to run with a version of its design, 0 for the newest.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) pipeline: PipelineId,
    pub(crate) version: i32,
}

impl TryFrom<v1::RunPipelineRequest> for Run {
    type Error = Error;

    fn try_from(request: v1::RunPipelineRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let pipeline = ids::required("pipeline_id", &request.pipeline_id, &mut violations);
        let version = request.design_version;
        violations.check(version >= 0, "design_version", "must not be negative");
        let pipeline = violations.finish(pipeline)?;
        Ok(Run { pipeline, version })
    }
}

impl From<Trigger> for v1::Trigger {
    fn from(trigger: Trigger) -> Self {
        match trigger {
            Trigger::Manual => v1::Trigger::Manual,
            Trigger::Drift => v1::Trigger::Drift,
            Trigger::Schedule => v1::Trigger::Schedule,
        }
    }
}

impl From<Pipeline> for v1::Pipeline {
    fn from(pipeline: Pipeline) -> Self {
        let drift = pipeline.on_drift.then_some(v1::Trigger::Drift.into());
        v1::Pipeline {
            id: pipeline.id.to_string(),
            name: pipeline.name.into(),
            design_id: pipeline.design_id.to_string(),
            state_name: pipeline.state_name.into(),
            stages: pipeline.stages.stages().iter().map(defined).collect(),
            triggers: std::iter::once(v1::Trigger::Manual.into()).chain(drift).collect(),
            creator_id: pipeline.creator_id.to_string(),
            created_at: Some(timestamp(pipeline.created_at)),
        }
    }
}

fn defined(stage: &StageDefinition) -> v1::StageDefinition {
    v1::StageDefinition {
        name: stage.name.to_string(),
        kind: lease::kind(stage.kind).into(),
        needs: stage.needs.iter().map(ToString::to_string).collect(),
    }
}
