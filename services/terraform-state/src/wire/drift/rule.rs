//! Rules, and lists of them.

use api::terraform_state::v1;
use kit::{Error, Result, Violations, ids, page::PageSize};
use time::{Duration, OffsetDateTime};

use super::kinds;
use crate::{
    model::drift::rule::{DriftRuleId, NewRule, Rule},
    wire::{list::Asked, timestamp},
};

/// The longest that something is ignored.
const LONGEST: Duration = Duration::days(366);

impl TryFrom<v1::CreateDriftRuleRequest> for NewRule {
    type Error = Error;

    fn try_from(request: v1::CreateDriftRuleRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let Some(rule) = request.drift_rule else {
            violations.add("drift_rule", "is required");
            return violations.finish(None);
        };
        let state = ids::optional("drift_rule.state_id", &rule.state_id, &mut violations);
        pattern("drift_rule.address", &rule.address, 512, &mut violations);
        pattern("drift_rule.resource_type", &rule.resource_type, 200, &mut violations);
        pattern("drift_rule.path", &rule.path, 1_000, &mut violations);
        violations.length("drift_rule.reason", &rule.reason, 1, 1_000);
        let kind = kinds::kind("drift_rule.kind", rule.kind, &mut violations);
        let severity = kinds::severity("drift_rule.severity", rule.severity, &mut violations);
        if rule.ignore && rule.severity != 0 {
            violations.add("drift_rule.severity", "must not be given for a rule that ignores");
        } else if !rule.ignore && rule.severity == 0 {
            violations.add("drift_rule.severity", "is required of a rule that does not ignore");
        }
        let expires_at = rule.expires_at.as_ref().and_then(|at| expiry(at, &mut violations));
        if rule.ignore && rule.expires_at.is_none() {
            violations.add("drift_rule.expires_at", "is required of a rule that ignores");
        }
        violations.into_result()?;
        Ok(NewRule {
            state,
            address: rule.address,
            resource_type: rule.resource_type,
            path: rule.path,
            kind,
            severity,
            reason: rule.reason,
            expires_at,
        })
    }
}

fn pattern(field: &str, text: &str, most: usize, violations: &mut Violations) {
    let characters = text.chars().count();
    violations.check(
        characters <= most,
        field,
        &format!("must have at most {most} characters"),
    );
    violations.check(
        !text.chars().any(char::is_control),
        field,
        "must have no control characters",
    );
}

fn expiry(at: &prost_types::Timestamp, violations: &mut Violations) -> Option<OffsetDateTime> {
    let time = OffsetDateTime::from_unix_timestamp(at.seconds).ok();
    let time = time.and_then(|time| {
        let nanos = u32::try_from(at.nanos).ok()?;
        time.replace_nanosecond(nanos).ok()
    });
    let now = OffsetDateTime::now_utc();
    let fits = time.filter(|time| *time > now && *time <= now + LONGEST);
    violations.check(
        fits.is_some(),
        "drift_rule.expires_at",
        "must be in the future, and within 366 days",
    );
    fits
}

impl From<Rule> for v1::DriftRule {
    fn from(rule: Rule) -> Self {
        let severity = rule.severity.map(v1::DriftSeverity::from);
        v1::DriftRule {
            id: rule.id.to_string(),
            state_id: rule.state_id.map(|id| id.to_string()).unwrap_or_default(),
            address: rule.address,
            resource_type: rule.resource_type,
            path: rule.path,
            kind: rule.kind.map(v1::DriftKind::from).unwrap_or_default().into(),
            severity: severity.unwrap_or_default().into(),
            ignore: severity.is_none(),
            reason: rule.reason,
            expires_at: rule.expires_at.map(timestamp),
            author_id: rule.author_id.to_string(),
            created_at: Some(timestamp(rule.created_at)),
        }
    }
}

impl TryFrom<v1::ListDriftRulesRequest> for Asked<()> {
    type Error = Error;

    fn try_from(request: v1::ListDriftRulesRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let size = PageSize::parse(request.page_size, &mut violations);
        Ok(Asked {
            filter: (),
            size: violations.finish(size)?,
            token: request.page_token,
        })
    }
}

/// A rule to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End(pub(crate) DriftRuleId);

impl TryFrom<v1::DeleteDriftRuleRequest> for End {
    type Error = Error;

    fn try_from(request: v1::DeleteDriftRuleRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("drift_rule_id", &request.drift_rule_id, &mut violations);
        violations.finish(id).map(End)
    }
}
