//! What an organization may keep.

use diesel::{OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::schema::organization_limits;

/// An organization's own limits, where it has any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// The most bytes of one content.
    pub(crate) state_bytes: Option<u64>,
    /// The most bytes of all versions, as they are stored.
    pub(crate) stored_bytes: Option<u64>,
}

impl Limits {
    /// As they stand in the organization's row.
    pub(crate) fn of(state_bytes: Option<i64>, stored_bytes: Option<i64>) -> Limits {
        let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
        Limits {
            state_bytes: bytes(state_bytes),
            stored_bytes: bytes(stored_bytes),
        }
    }
}

/// The limits of the transaction's organization.
pub(crate) async fn find(tx: &mut Tx) -> Result<Limits> {
    let row: Option<(Option<i64>, Option<i64>)> = organization_limits::table
        .find(tx.org())
        .select((organization_limits::state_bytes, organization_limits::stored_bytes))
        .first(tx)
        .await
        .optional()?;
    let (state, stored) = row.unwrap_or_default();
    Ok(Limits::of(state, stored))
}
