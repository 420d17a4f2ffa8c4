//! The producer's answers, each of which comes within a bound or is a failure.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use tonic_types::StatusExt;

use crate::error::{self, Reason};

/// Bounds each answer of the producer.
const ANSWER: Duration = Duration::from_secs(5);

/// Why the log could not be read to its end.
pub(super) enum Stopped {
    EpochChanged,
    Failed(Status),
}

impl From<Status> for Stopped {
    fn from(status: Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason);
        if reason.as_deref() == Some(error::name(Reason::EpochChanged)) {
            Stopped::EpochChanged
        } else {
            Stopped::Failed(status)
        }
    }
}

/// The answer, if it comes in time.
pub(super) async fn bounded<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(ANSWER, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the producer did not answer in time")))
}
