//! Users as others see them, and what users change of themselves.

use diesel::prelude::*;
use kit::{db::About, ids::UserId};
use time::OffsetDateTime;

use super::{Name, Profile, Slug};

/// A user, as audit events name one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account(pub(crate) UserId);

impl About for Account {
    const TYPE: &'static str = "user";
    fn id(&self) -> String {
        self.0.to_string()
    }
}

/// A member of an organization as a user.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct Colleague {
    pub(crate) profile: Profile,
    pub(crate) role: Name,
    pub(crate) joined_at: OffsetDateTime,
    /// Of the membership, and of the account.
    pub(crate) suspended: (Option<OffsetDateTime>, Option<OffsetDateTime>),
    /// The organization's words.
    pub(crate) suspended_reason: String,
}

impl Colleague {
    /// Whether the user is kept out of the organization.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.0.is_some() || self.suspended.1.is_some()
    }
}

/// What is to change of a user; what is none stays.
#[derive(Debug)]
pub(crate) struct ProfileChange {
    pub(crate) username: Option<Slug>,
    pub(crate) first_name: Option<Name>,
    pub(crate) last_name: Option<Name>,
}
