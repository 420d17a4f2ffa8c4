//! Enums, to and from the model.

use api::terraform_state::v1;
use kit::Violations;

use crate::model::drift::{Cause, DriftKind, DriftStatus, Severity};

/// Declares how one of the model's enums stands in messages; in requests, the zero means that it is not given.
macro_rules! enums {
    ($name:ident: $model:ident = $wire:ident { $($variant:ident),+ $(,)? }) => {
        impl From<$model> for v1::$wire {
            fn from(value: $model) -> Self {
                match value {
                    $($model::$variant => v1::$wire::$variant),+
                }
            }
        }

        /// The value, where one is given.
        pub(super) fn $name(field: &str, number: i32, violations: &mut Violations) -> Option<$model> {
            match v1::$wire::try_from(number) {
                Ok(v1::$wire::Unspecified) => None,
                $(Ok(v1::$wire::$variant) => Some($model::$variant),)+
                Err(_) => {
                    violations.add(field, "is not known");
                    None
                }
            }
        }
    };
}

enums!(kind: DriftKind = DriftKind { Changed, Deleted });
enums!(status: DriftStatus = DriftStatus { Open, Acknowledged, Accepted, Resolved, Reopened, Ignored });
enums!(severity: Severity = DriftSeverity { Info, Warning, Critical });
enums!(cause: Cause = DriftCause {
    InSync,
    PendingApply,
    Drifted,
    AdoptedOutside,
    Conflict,
    Unmanaged,
    Missing,
    Unknown,
});
