//! The three-way view, in messages.

use api::terraform_state::v1;
use kit::{Error, Result, Violations, crypto::KeyRing, ids, page::PageSize};

use super::{super::value::shown, kinds};
use crate::{model::drift::check::ViewRow, store::drift::ViewFilter, wire::list::Asked};

impl TryFrom<v1::GetThreeWayViewRequest> for Asked<ViewFilter> {
    type Error = Error;

    fn try_from(request: v1::GetThreeWayViewRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::required("state_id", &request.state_id, &mut violations);
        let cause = kinds::cause("cause", request.cause, &mut violations);
        violations.length("address", &request.address, 0, 512);
        let size = PageSize::parse(request.page_size, &mut violations);
        let (state, size) = violations.finish(state.zip(size))?;
        Ok(Asked {
            filter: ViewFilter {
                state,
                cause,
                address: request.address,
            },
            size,
            token: request.page_token,
        })
    }
}

/// A row with its values.
///
/// # Errors
/// KEY_MISSING and CONTENT_CORRUPT where they do not open.
pub(crate) fn row(row: ViewRow, ring: &KeyRing) -> Result<v1::ThreeWayRow> {
    let [design, state, reality] = row.values(ring)?.map(|value| value.map(shown));
    Ok(v1::ThreeWayRow {
        id: format!("{}/{}", row.check_id, row.place),
        address: row.address.into(),
        resource_type: row.resource_type.into(),
        path: row.path,
        design,
        state,
        reality,
        masked: row.masked,
        cause: v1::DriftCause::from(row.cause).into(),
    })
}
