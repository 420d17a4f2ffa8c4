//! Lists: what is asked for, and pages that fit in a message.

use api::terraform_state::v1;
use kit::{
    Error, Result, Violations, ids,
    page::{Listing, PageSize},
};
use prost::Message;
use serde::Serialize;

use crate::model::{StateId, lock::LockFilter, state::StateFilter};

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
    fn finish(filter: Option<F>, (size, token): (i32, String), mut violations: Violations) -> Result<Self> {
        let size = PageSize::parse(size, &mut violations);
        let (filter, size) = violations.finish(filter.zip(size))?;
        Ok(Asked { filter, size, token })
    }
}

impl TryFrom<v1::ListStatesRequest> for Asked<StateFilter> {
    type Error = Error;

    fn try_from(request: v1::ListStatesRequest) -> Result<Self> {
        let mut violations = Violations::new();
        violations.length("name_prefix", &request.name_prefix, 0, 200);
        let filter = StateFilter {
            design: ids::optional("design_id", &request.design_id, &mut violations),
            prefix: request.name_prefix,
            only: None,
        };
        Asked::finish(Some(filter), (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListLocksRequest> for Asked<LockFilter> {
    type Error = Error;

    fn try_from(request: v1::ListLocksRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let silent_since = match &request.silent_since {
            None => Some(None),
            Some(time) => super::micros("silent_since", time, &mut violations).map(Some),
        };
        let filter = silent_since.map(|silent_since| LockFilter {
            silent_since,
            maintenance_only: request.maintenance_only,
            only: None,
        });
        Asked::finish(filter, (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListLockHistoryRequest> for Asked<Option<StateId>> {
    type Error = Error;

    fn try_from(request: v1::ListLockHistoryRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::optional("state_id", &request.state_id, &mut violations);
        Asked::finish(Some(state), (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListStateVersionsRequest> for Asked<StateId> {
    type Error = Error;

    fn try_from(request: v1::ListStateVersionsRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::required("state_id", &request.state_id, &mut violations);
        Asked::finish(state, (request.page_size, request.page_token), violations)
    }
}

/// The items of a page and the token of the next one: it ends at its size, or before its message would be too large.
pub(crate) fn page<R, M: Message, C: Serialize>(
    listing: &Listing<'_>,
    size: PageSize,
    rows: Vec<R>,
    cursor: impl Fn(&R) -> C,
    item: impl Fn(R) -> M,
) -> (Vec<M>, String) {
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for row in rows {
        let at = cursor(&row);
        let item = item(row);
        // An item costs its length, and a tag and a length of at most 5 bytes.
        bytes += item.encoded_len() + 6;
        if let Some(last) = &last
            && (items.len() == size.get() || bytes > MOST_BYTES)
        {
            return (items, listing.token(last));
        }
        items.push(item);
        last = Some(at);
    }
    (items, String::new())
}
