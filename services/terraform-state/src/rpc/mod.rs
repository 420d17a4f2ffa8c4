//! The RPCs, one method each: who, is it sane, one transaction, answer.

pub(crate) mod drift;
pub(crate) mod key;
pub(crate) mod lock;
pub(crate) mod schedule;
pub(crate) mod state;

use kit::{
    Error, Result,
    auth::scope::{Admitted, OrgScope},
    crypto::KeyRing,
    db::Tx,
    page::Listing,
};
use serde::Serialize;

use crate::{
    backend::touchable,
    model::{StateId, state::State},
    store,
};

/// The list that a call pages through.
pub(crate) fn listing<'a>(ring: &'a KeyRing, scope: &OrgScope, filter: &impl Serialize) -> Listing<'a> {
    Listing::new(ring, scope.call().method.action, scope.org().0, filter)
}

/// A stream that ends before it says anything.
pub(crate) fn no_message() -> Error {
    Error::violation("message", "is missing")
}

/// The state, which must be there and the caller's to touch.
pub(crate) fn there(scope: &OrgScope, found: Option<State>, id: StateId) -> Result<State> {
    let state = found.ok_or_else(|| Error::not_found("state", id))?;
    touchable(scope, &state)?;
    Ok(state)
}

/// A state that must be there and the caller's to touch.
pub(crate) async fn find(tx: &mut Tx, scope: &OrgScope, id: StateId) -> Result<State> {
    there(scope, store::state::find(tx, id).await?, id)
}

/// As [`find`], held until the transaction ends; the audit event is about it.
pub(crate) async fn hold(tx: &mut Tx, scope: &OrgScope, id: StateId) -> Result<State> {
    let state = there(scope, store::state::lock(tx, id).await?, id)?;
    tx.about(&state);
    Ok(state)
}
