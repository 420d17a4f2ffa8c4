//! Lists: what is asked for, and pages that fit in a message.

use api::pipelines::v1;
use kit::{
    Error, Violations, ids,
    page::{Listing, PageSize},
};
use prost::Message;
use serde::Serialize;

use super::UNKNOWN_ENUM;
use crate::model::{ExecutionId, ExecutionStatus, execution::ExecutionFilter, pipeline::PipelineFilter};

/// The most bytes of a page's items; with what is around them, the answer stays below 4 MiB.
const MOST_BYTES: usize = (4 << 20) - (64 << 10);

/// One page of a list: which list, how long, and where it goes on.
#[derive(Debug)]
pub(crate) struct Asked<F> {
    pub(crate) filter: F,
    pub(crate) size: PageSize,
    pub(crate) token: String,
}

impl<F> Asked<F> {
    fn finish(filter: Option<F>, (size, token): (i32, String), mut violations: Violations) -> Result<Self, Error> {
        let size = PageSize::parse(size, &mut violations);
        let (filter, size) = violations.finish(filter.zip(size))?;
        Ok(Asked { filter, size, token })
    }
}

impl TryFrom<v1::ListPipelinesRequest> for Asked<PipelineFilter> {
    type Error = Error;

    fn try_from(request: v1::ListPipelinesRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let filter = PipelineFilter {
            design: ids::optional("design_id", &request.design_id, &mut violations),
        };
        Asked::finish(Some(filter), (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListExecutionsRequest> for Asked<ExecutionFilter> {
    type Error = Error;

    fn try_from(request: v1::ListExecutionsRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let filter = ExecutionFilter {
            pipeline: ids::optional("pipeline_id", &request.pipeline_id, &mut violations),
            status: status("status", request.status, &mut violations),
        };
        Asked::finish(Some(filter), (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListStagesRequest> for Asked<ExecutionId> {
    type Error = Error;

    fn try_from(request: v1::ListStagesRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let execution = ids::required("execution_id", &request.execution_id, &mut violations);
        Asked::finish(execution, (request.page_size, request.page_token), violations)
    }
}

/// Reads a status that may be left out.
fn status(field: &str, number: i32, violations: &mut Violations) -> Option<ExecutionStatus> {
    match v1::ExecutionStatus::try_from(number) {
        Ok(v1::ExecutionStatus::Unspecified) => None,
        Ok(v1::ExecutionStatus::Queued) => Some(ExecutionStatus::Queued),
        Ok(v1::ExecutionStatus::Running) => Some(ExecutionStatus::Running),
        Ok(v1::ExecutionStatus::Cancelling) => Some(ExecutionStatus::Cancelling),
        Ok(v1::ExecutionStatus::Succeeded) => Some(ExecutionStatus::Succeeded),
        Ok(v1::ExecutionStatus::Failed) => Some(ExecutionStatus::Failed),
        Ok(v1::ExecutionStatus::Cancelled) => Some(ExecutionStatus::Cancelled),
        Ok(v1::ExecutionStatus::OutcomeUnknown) => Some(ExecutionStatus::OutcomeUnknown),
        Err(_) => {
            violations.add(field, UNKNOWN_ENUM);
            None
        }
    }
}

/// The items of a page and the next page's token: a page ends at its size, or before its message would be too large.
pub(crate) fn page<R, M: Message, C: Serialize>(
    listing: &Listing<'_>,
    size: PageSize,
    rows: Vec<R>,
    cursor: impl Fn(&R) -> C,
    item: impl Fn(R) -> M,
) -> (Vec<M>, String) {
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in rows {
        let place = cursor(&row);
        let message = item(row);
        // An item costs its length, and a tag and a length of at most 5 bytes.
        bytes += message.encoded_len() + 6;
        match &last {
            Some(last) if items.len() == size.get() || bytes > MOST_BYTES => return (items, listing.token(last)),
            _ => {
                items.push(message);
                last = Some(place);
            }
        }
    }
    (items, String::new())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kit::crypto::KeyRing;

    #[test]
    fn a_page_ends_before_its_message_is_too_large_and_the_next_goes_on_there() {
        let ring = KeyRing::ephemeral();
        let listing = Listing::new(&ring, "test", uuid::Uuid::nil(), &());
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let rows = (0..10).filter(|row| after.is_none_or(|after| *row > after)).collect();
            let item = |number: i32| v1::Execution {
                design_version: number,
                status_detail: "d".repeat(1 << 20),
                ..Default::default()
            };
            let (executions, next_page_token) = page(&listing, PageSize::DEFAULT, rows, |row| *row, item);
            let answer = v1::ListExecutionsResponse {
                executions,
                next_page_token,
            };
            assert!(answer.encoded_len() < 4 << 20);
            seen.extend(answer.executions.iter().map(|execution| execution.design_version));
            after = listing.open::<i32>(&answer.next_page_token).unwrap();
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }
}
