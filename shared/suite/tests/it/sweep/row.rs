//! What the sweep must know of an RPC.

use futures_util::future::BoxFuture;
use kit::Reason;

use super::world::{Tenant, World};
use suite::totp;

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
    /// Whoever has made the call may not make it again: what a repeat is answered instead, one of these.
    pub(crate) last: &'static [Reason],
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
    /// Whether the caller's organization is none of the tenant's.
    pub(crate) elsewhere: bool,
    /// The secret of a second factor whose code goes into `code` at the last moment, because it ages.
    pub(crate) totp: Option<String>,
}

impl Valid {
    /// The message as it succeeds now.
    pub(crate) fn now(&self) -> Vec<u8> {
        // A later field takes the place of an earlier one: `code` is number 1 or 2, a text of 6 digits.
        let Some(secret) = &self.totp else {
            return self.message.clone();
        };
        let number = if self.message.is_empty() { 1 } else { 2 };
        let mut message = self.message.clone();
        message.extend([number << 3 | 2, 6]);
        message.extend(totp::code(secret, 0).bytes());
        message
    }
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
    /// The answer is that nothing is allowed.
    Powerless,
}
