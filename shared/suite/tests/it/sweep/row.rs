//! What the sweep must know of an RPC.

use futures_util::future::BoxFuture;
use kit::Reason;

use super::world::{Tenant, World};

/// What the sweep must know of an RPC.
pub(crate) struct Row {
    pub(crate) path: &'static str,
    /// A call that succeeds once.
    pub(crate) valid: for<'a> fn(&'a World, &'a Tenant) -> BoxFuture<'a, Valid>,
    /// Every field that names something of an organization, and what another organization's is answered.
    pub(crate) foreign: &'static [(&'static str, Foreign, IdOf)],
    /// The fields that a message without any is told to have.
    pub(crate) required: &'static [&'static str],
    /// Fields and what is below them that hold no wrong value, or are not read.
    pub(crate) free: &'static [&'static str],
    /// Fields that look like ids and are any text.
    pub(crate) texts: &'static [&'static str],
    /// Durations of the answer that tell what is left of something: a repeat hears what is left by then.
    pub(crate) left: &'static [&'static str],
}

/// The id of something that a tenant has.
pub(crate) type IdOf = fn(&Tenant) -> String;

/// A call that succeeds once.
pub(crate) struct Valid {
    pub(crate) message: Vec<u8>,
    /// Whose call it is, where it is not the owner's.
    pub(crate) caller: Option<String>,
    /// Other arguments by the same caller, where another row's call would have another.
    pub(crate) other: Option<Vec<u8>>,
}

/// What another organization's id is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// As if it were not there.
    NotFound,
    /// As one among other things that may be wrong, so that nothing is told.
    Reason(Reason),
    /// A filter or question: nothing of the other organization is in the answer.
    Silent,
    /// Peers ask about any organization.
    Answered,
}
