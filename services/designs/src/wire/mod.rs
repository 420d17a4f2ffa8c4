//! Messages to values and back.
//!
//! Every request is read to its end: whoever breaks five rules hears of all five.

pub(crate) mod canvas;
pub(crate) mod design;
pub(crate) mod drift;
pub(crate) mod export;
pub(crate) mod list;
mod structure;

use api::designs::v1;
use kit::Violations;
use time::OffsetDateTime;

use crate::model::{CloudProvider, DesignStatus};

/// Reads a provider that may be left out.
pub(crate) fn provider(field: &str, number: i32, violations: &mut Violations) -> Option<CloudProvider> {
    match v1::CloudProvider::try_from(number) {
        Ok(v1::CloudProvider::Unspecified) => None,
        Ok(v1::CloudProvider::Aws) => Some(CloudProvider::Aws),
        Ok(v1::CloudProvider::Azure) => Some(CloudProvider::Azure),
        Ok(v1::CloudProvider::Gcp) => Some(CloudProvider::Gcp),
        Ok(v1::CloudProvider::Builtin) => Some(CloudProvider::Builtin),
        Err(_) => {
            violations.add(field, UNKNOWN_ENUM);
            None
        }
    }
}

/// Reads a provider that must be given.
pub(crate) fn required_provider(field: &str, number: i32, violations: &mut Violations) -> Option<CloudProvider> {
    violations.check(number != 0, field, "is required");
    provider(field, number, violations)
}

/// Reads a status that may be left out.
pub(crate) fn status(field: &str, number: i32, violations: &mut Violations) -> Option<DesignStatus> {
    match v1::DesignStatus::try_from(number) {
        Ok(v1::DesignStatus::Unspecified) => None,
        Ok(v1::DesignStatus::Draft) => Some(DesignStatus::Draft),
        Ok(v1::DesignStatus::Published) => Some(DesignStatus::Published),
        Ok(v1::DesignStatus::Archived) => Some(DesignStatus::Archived),
        Err(_) => {
            violations.add(field, UNKNOWN_ENUM);
            None
        }
    }
}

/// What is wrong with an enum's number that the proto does not have.
const UNKNOWN_ENUM: &str = "must be a known value";

impl From<CloudProvider> for v1::CloudProvider {
    fn from(provider: CloudProvider) -> Self {
        match provider {
            CloudProvider::Aws => v1::CloudProvider::Aws,
            CloudProvider::Azure => v1::CloudProvider::Azure,
            CloudProvider::Gcp => v1::CloudProvider::Gcp,
            CloudProvider::Builtin => v1::CloudProvider::Builtin,
        }
    }
}

impl From<DesignStatus> for v1::DesignStatus {
    fn from(status: DesignStatus) -> Self {
        match status {
            DesignStatus::Draft => v1::DesignStatus::Draft,
            DesignStatus::Published => v1::DesignStatus::Published,
            DesignStatus::Archived => v1::DesignStatus::Archived,
        }
    }
}

fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).expect("less than a second"),
    }
}
