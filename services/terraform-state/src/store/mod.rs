//! The service's statements, one function each; every one runs in the caller's transaction and organization.

pub(crate) mod chunk;
pub(crate) mod compaction;
pub(crate) mod design;
pub(crate) mod drift;
pub(crate) mod execution;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod limit;
pub(crate) mod lock;
pub(crate) mod resource;
pub(crate) mod schedule;
pub(crate) mod state;
pub(crate) mod version;

use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};
use time::OffsetDateTime;

use crate::schema::clock_timestamp;

/// The time that rows are written with.
pub(crate) async fn now(tx: &mut Tx) -> Result<OffsetDateTime> {
    Ok(diesel::select(clock_timestamp()).get_result(tx).await?)
}
