//! How things stand, in a message.

use api::terraform_state::v1;
use kit::{Error, Result, Violations, ids};

use crate::{model::StateId, store::drift::Numbers};

/// Of what a summary is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) state: Option<StateId>,
    pub(crate) days: i32,
}

impl TryFrom<v1::GetDriftSummaryRequest> for Asked {
    type Error = Error;

    fn try_from(request: v1::GetDriftSummaryRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::optional("state_id", &request.state_id, &mut violations);
        violations.check((0..=366).contains(&request.days), "days", "must be 0 to 366");
        violations.into_result()?;
        Ok(Asked {
            state,
            days: if request.days == 0 { 30 } else { request.days },
        })
    }
}

impl From<Numbers> for v1::GetDriftSummaryResponse {
    fn from(numbers: Numbers) -> Self {
        let by_severity = [
            (v1::DriftSeverity::Critical, numbers.critical),
            (v1::DriftSeverity::Warning, numbers.warning),
            (v1::DriftSeverity::Info, numbers.info),
        ];
        let some = by_severity.into_iter().filter(|(_, count)| *count > 0);
        let rate = if numbers.checks == 0 {
            0.0
        } else {
            numbers.drifted_checks as f64 / numbers.checks as f64
        };
        v1::GetDriftSummaryResponse {
            by_severity: some
                .map(|(severity, count)| v1::DriftSeverityCount {
                    severity: severity.into(),
                    count,
                })
                .collect(),
            accepted: numbers.accepted,
            ignored: numbers.ignored,
            drifted_states: numbers.drifted_states,
            checks: numbers.checks,
            drifted_checks: numbers.drifted_checks,
            errored_checks: numbers.errored_checks,
            drift_rate: rate,
            found: numbers.found,
            resolved: numbers.resolved,
            mean_time_to_resolve: numbers.mean_open.map(|seconds| {
                let mean = seconds.max(0.0);
                prost_types::Duration {
                    seconds: mean.trunc() as i64,
                    nanos: (mean.fract() * 1e9) as i32,
                }
            }),
        }
    }
}
