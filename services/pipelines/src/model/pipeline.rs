//! Pipelines: which stages a design goes through, against which state, and what starts them.

use std::collections::HashMap;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    prelude::{Insertable, Queryable, Selectable},
    serialize::{self, Output, ToSql},
    sql_types::Jsonb,
};
use kit::{Violations, db::About, ids::OrgId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    Author, DesignId, EventId, PipelineId, PipelineName, PrincipalId, PrincipalKind, StageKind, StageName, StateName,
};
use crate::schema::pipelines;

/// The most stages of a pipeline.
pub const MOST_STAGES: usize = 20;

/// A pipeline to make.
#[derive(Clone, Debug)]
pub struct NewPipeline {
    /// Its name.
    pub name: PipelineName,
    /// The design it takes.
    pub design_id: DesignId,
    /// The state it works on.
    pub state_name: StateName,
    /// Its stages.
    pub stages: Definition,
    /// Whether drift starts it.
    pub on_drift: bool,
}

/// What starts an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A caller, through RunPipeline.
    Caller(Author),
    /// An event of drift, with its own place in the chain.
    Drift {
        /// The event.
        event: EventId,
        /// How many events stand between it and a caller.
        depth: i32,
    },
    /// The event by which a schedule asks for a check for drift, with its own place in the chain.
    Schedule {
        /// The event.
        event: EventId,
        /// How many events stand between it and a caller.
        depth: i32,
    },
}

/// A stage of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageDefinition {
    /// Its name, unique in the pipeline.
    pub name: StageName,
    /// What it does.
    pub kind: StageKind,
    /// The stages that must succeed before.
    pub needs: Vec<StageName>,
}

/// A stage as it was asked for, not looked at yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// What it does; none where that was no known kind, which has left a violation.
    pub kind: Option<StageKind>,
    /// Names of stages.
    pub needs: Vec<String>,
}

/// The stages of a pipeline in the order that people see: 1 to 20, without cycles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[serde(transparent)]
#[diesel(sql_type = Jsonb)]
pub struct Definition(Vec<StageDefinition>);

impl Definition {
    /// Validate, plan, apply.
    pub fn standard() -> Self {
        let stage = |kind: StageKind, needs: &[StageKind]| StageDefinition {
            name: StageName(kind.as_str().to_owned()),
            kind,
            needs: needs.iter().map(|need| StageName(need.as_str().to_owned())).collect(),
        };
        Definition(vec![
            stage(StageKind::Validate, &[]),
            stage(StageKind::Plan, &[StageKind::Validate]),
            stage(StageKind::Apply, &[StageKind::Plan]),
        ])
    }

    /// One check for drift.
    pub fn drift_check() -> Self {
        Definition(vec![StageDefinition {
            name: StageName(StageKind::Drift.as_str().to_owned()),
            kind: StageKind::Drift,
            needs: Vec::new(),
        }])
    }

    /// The stages.
    pub fn stages(&self) -> &[StageDefinition] {
        &self.0
    }

    /// Reads stages as the value of `stages`, each rule on each of them; none means the standard ones.
    pub fn parse(drafts: Vec<Draft>, violations: &mut Violations) -> Option<Self> {
        if drafts.is_empty() {
            return Some(Definition::standard());
        }
        if drafts.len() > MOST_STAGES {
            violations.add("stages", format!("must be at most {MOST_STAGES}"));
            return None;
        }
        let mut places = HashMap::new();
        for (place, draft) in drafts.iter().enumerate() {
            if places.contains_key(&draft.name) {
                violations.add(format!("stages[{place}].name"), "is the name of another stage");
            } else {
                places.insert(draft.name.clone(), place);
            }
        }
        let needed: Vec<Vec<usize>> = drafts
            .iter()
            .enumerate()
            .map(|(place, draft)| needs(place, draft, &places, violations))
            .collect();
        let circles = circles(&needed);
        let mut names = Vec::new();
        for (place, draft) in drafts.iter().enumerate() {
            names.push(StageName::parse(
                &format!("stages[{place}].name"),
                draft.name.clone(),
                violations,
            ));
            if circles[place] {
                violations.add(
                    format!("stages[{place}].needs"),
                    "must not lead back to the stage itself",
                );
            }
            let plans = needed[place]
                .iter()
                .filter(|&&need| drafts[need].kind == Some(StageKind::Plan))
                .count();
            if draft.kind == Some(StageKind::Apply) && plans != 1 {
                violations.add(
                    format!("stages[{place}].needs"),
                    "must hold exactly one plan stage for an apply",
                );
            }
        }
        let names: Vec<StageName> = names.into_iter().collect::<Option<_>>()?;
        let stages = drafts.iter().zip(&needed).zip(&names).map(|((draft, needed), name)| {
            Some(StageDefinition {
                name: name.clone(),
                kind: draft.kind?,
                needs: needed.iter().map(|&need| names[need].clone()).collect(),
            })
        });
        stages.collect::<Option<_>>().map(Definition)
    }
}

/// The places of the stages that one needs.
fn needs(place: usize, draft: &Draft, places: &HashMap<String, usize>, violations: &mut Violations) -> Vec<usize> {
    let mut needed = Vec::new();
    if draft.needs.len() > MOST_STAGES {
        violations.add(
            format!("stages[{place}].needs"),
            format!("must be at most {MOST_STAGES}"),
        );
        return needed;
    }
    for (at, need) in draft.needs.iter().enumerate() {
        match places.get(need) {
            None => violations.add(
                format!("stages[{place}].needs[{at}]"),
                "must be the name of a stage of the pipeline",
            ),
            Some(other) if needed.contains(other) => {
                violations.add(format!("stages[{place}].needs[{at}]"), "is named before");
            }
            Some(&other) => needed.push(other),
        }
    }
    needed
}

/// Which stages need themselves in the end.
fn circles(needed: &[Vec<usize>]) -> Vec<bool> {
    let mut reached: Vec<Vec<bool>> = needed
        .iter()
        .map(|needs| (0..needed.len()).map(|other| needs.contains(&other)).collect())
        .collect();
    for through in 0..needed.len() {
        let beyond = reached[through].clone();
        for row in &mut reached {
            if row[through] {
                row.iter_mut().zip(&beyond).for_each(|(to, also)| *to |= also);
            }
        }
    }
    (0..needed.len()).map(|place| reached[place][place]).collect()
}

impl ToSql<Jsonb, Pg> for Definition {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let value = serde_json::to_value(self)?;
        ToSql::<Jsonb, Pg>::to_sql(&value, &mut out.reborrow())
    }
}

impl FromSql<Jsonb, Pg> for Definition {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let value: serde_json::Value = FromSql::<Jsonb, Pg>::from_sql(value)?;
        Ok(serde_json::from_value(value)?)
    }
}

/// Which pipelines to list.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineFilter {
    /// Only those of this design.
    pub design: Option<DesignId>,
}

/// A pipeline's row.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = pipelines, check_for_backend(diesel::pg::Pg))]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// Its name.
    pub name: PipelineName,
    /// The design it takes.
    pub design_id: DesignId,
    /// The state it works on.
    pub state_name: StateName,
    /// Its stages.
    pub stages: Definition,
    /// Whether drift starts it.
    pub on_drift: bool,
    /// Who made it.
    pub creator_id: PrincipalId,
    /// When.
    pub created_at: OffsetDateTime,
}

/// A pipeline's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = pipelines, check_for_backend(diesel::pg::Pg))]
pub struct PipelineRow<'a> {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: PipelineId,
    /// Its name.
    pub name: &'a PipelineName,
    /// The design it takes.
    pub design_id: DesignId,
    /// The state it works on.
    pub state_name: &'a StateName,
    /// Its stages.
    pub stages: &'a Definition,
    /// Whether drift starts it.
    pub on_drift: bool,
    /// What kind of creator makes it.
    pub creator_kind: PrincipalKind,
    /// Who makes it.
    pub creator_id: PrincipalId,
}

impl About for Pipeline {
    const TYPE: &'static str = "pipeline";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn draft(name: &str, kind: StageKind, needs: &[&str]) -> Draft {
        Draft {
            name: name.to_owned(),
            kind: Some(kind),
            needs: needs.iter().map(|&need| need.to_owned()).collect(),
        }
    }

    fn wrong(drafts: Vec<Draft>) -> Vec<String> {
        let mut violations = Violations::new();
        Definition::parse(drafts, &mut violations);
        let error = violations.into_result().unwrap_err();
        error
            .violations()
            .iter()
            .map(|violation| violation.field.clone())
            .collect()
    }

    #[test]
    fn no_stages_are_the_standard_ones() {
        let mut violations = Violations::new();
        let stages = Definition::parse(Vec::new(), &mut violations).unwrap();
        assert_eq!(stages, Definition::standard());
        assert_eq!(
            serde_json::to_string(&stages.stages()[2]).unwrap(),
            r#"{"name":"apply","kind":"apply","needs":["plan"]}"#
        );
    }

    #[test]
    fn stages_may_stand_in_any_order() {
        use StageKind::{Apply, Plan, Validate};
        let drafts = vec![
            draft("a", Apply, &["p", "v"]),
            draft("p", Plan, &[]),
            draft("v", Validate, &["p"]),
        ];
        let mut violations = Violations::new();
        assert!(Definition::parse(drafts, &mut violations).is_some());
        violations.into_result().unwrap();
    }

    #[test]
    fn everything_wrong_with_stages_is_told_at_once() {
        use StageKind::{Apply, Plan};
        let drafts = vec![
            draft("p", Plan, &["a"]),
            draft("q", Plan, &["q"]),
            draft("a", Apply, &["p", "q"]),
            draft("b", Apply, &["a"]),
            draft("p", Plan, &["nobody", "q", "q"]),
            draft("Ä", Plan, &[]),
        ];
        assert_eq!(
            wrong(drafts),
            [
                "stages[4].name",
                "stages[4].needs[0]",
                "stages[4].needs[2]",
                "stages[0].needs",
                "stages[1].needs",
                "stages[2].needs",
                "stages[2].needs",
                "stages[3].needs",
                "stages[5].name",
            ]
        );
        assert_eq!(wrong(vec![draft("p", Plan, &[]); 21]), ["stages"]);
        assert_eq!(wrong(vec![draft("p", Plan, &["p"; 21])]), ["stages[0].needs"]);
    }
}
