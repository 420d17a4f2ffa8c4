//! What becomes of a stage, and why work on it ends early.

use std::time::Duration;

use api::pipelines::v1::StageKind;

use crate::supervise::FENCED;

/// Between the interrupt and SIGKILL where the lease is still ours.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// What became of a stage.
pub(crate) enum Outcome {
    Succeeded(Vec<u8>),
    Failed(&'static str, String),
    Cancelled,
    /// Nobody here can say, or another attempt may do it: the lease is left to run out.
    Unknown(String),
}

/// Why work ends early; the later ones outweigh the earlier.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Stop {
    Leaving,
    Cancelled,
    Fenced,
    Lost,
}

impl Stop {
    pub(crate) fn grace(self) -> Duration {
        match self {
            Stop::Cancelled | Stop::Leaving => GRACE,
            Stop::Fenced | Stop::Lost => FENCED,
        }
    }

    pub(crate) fn told(self) -> &'static str {
        match self {
            Stop::Cancelled => "the execution is cancelled",
            Stop::Leaving => "the runner is stopped",
            Stop::Fenced => "the lease ran out before it could be renewed",
            Stop::Lost => "the lease is lost",
        }
    }

    pub(crate) fn outcome(self, kind: StageKind) -> Outcome {
        match (self, kind) {
            (Stop::Cancelled, _) => Outcome::Cancelled,
            (Stop::Leaving | Stop::Fenced, StageKind::Apply) => {
                Outcome::Failed("RUNNER_FAILED", self.told().to_owned())
            }
            // What changes nothing is attempted again once the lease has run out.
            (Stop::Leaving | Stop::Fenced | Stop::Lost, _) => Outcome::Unknown(self.told().to_owned()),
        }
    }
}
