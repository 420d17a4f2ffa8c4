//! Lists: what is asked for, and pages that fit in a message.

use api::terraform_state::v1;
use kit::{
    Error, Result, Violations, ids,
    page::{Listing, PageSize},
};
use prost::Message;
use serde::Serialize;
use time::Duration;

use crate::model::{StateId, lock::LockFilter, resource::ResourceFilter, state::StateFilter};

/// 10,000 days.
const MOST_SILENCE_SECONDS: i64 = 10_000 * 24 * 60 * 60;

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
            locked: request.locked,
            silent_for: request.silent_for.and_then(|asked| silence(&asked, &mut violations)),
            deleted: request.deleted,
        };
        Asked::finish(Some(filter), (request.page_size, request.page_token), violations)
    }
}

/// A time without a word, of at least a second.
fn silence(asked: &prost_types::Duration, violations: &mut Violations) -> Option<Duration> {
    let sound =
        asked.seconds >= 1 && asked.seconds <= MOST_SILENCE_SECONDS && (0..1_000_000_000).contains(&asked.nanos);
    violations.check(sound, "silent_for", "must be from 1 s to 10,000 days");
    sound.then(|| Duration::new(asked.seconds, asked.nanos))
}

impl TryFrom<v1::ListStateResourcesRequest> for Asked<ResourceFilter> {
    type Error = Error;

    fn try_from(request: v1::ListStateResourcesRequest) -> Result<Self> {
        let mut violations = Violations::new();
        for (field, text, most) in [
            ("address_prefix", &request.address_prefix, 1000),
            ("type", &request.r#type, 200),
            ("provider", &request.provider, 300),
            ("module", &request.module, 1000),
        ] {
            violations.length(field, text, 0, most);
        }
        let filter = ResourceFilter {
            state: ids::optional("state_id", &request.state_id, &mut violations),
            prefix: request.address_prefix,
            resource_type: request.r#type,
            provider: request.provider,
            module: request.module,
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
