//! One method for each RPC, each in the same order: who, is it sane, one transaction, answer.

pub(crate) mod design;
pub(crate) mod template;

use kit::{
    Error, Result,
    auth::scope::{Admitted, OrgScope},
    crypto::KeyRing,
    page::Listing,
};
use serde::Serialize;

use crate::model::{DesignId, design::Design};

/// The list that a call pages through.
fn listing<'a>(ring: &'a KeyRing, scope: &OrgScope, filter: &impl Serialize) -> Listing<'a> {
    Listing::new(ring, scope.call().method.action, scope.org().0, filter)
}

/// The design, which must be there.
fn there(found: Option<Design>, id: DesignId) -> Result<Design> {
    found.ok_or_else(|| Error::not_found("design", id))
}
