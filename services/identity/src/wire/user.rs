//! Users: what is asked of them, and how they and their colleagues see them.

use api::identity::v1::{
    self, DeleteUserRequest, GetUserRequest, ListUsersRequest, ReactivateUserRequest, SuspendUserRequest,
    UpdateUserRequest,
};
use kit::{
    Error, Result, Violations,
    ids::{self, UserId},
    mask::Mask,
    page::PageSize,
};

use super::timestamp;
use crate::model::{Colleague, Etag, Name, Password, Profile, ProfileChange, Slug};

/// The longest beginning of a name or an address that is searched for.
const LONGEST_QUERY: usize = 254;
const LONGEST_REASON: usize = 500;

pub(crate) fn user_asked_for(request: &GetUserRequest) -> Result<UserId> {
    user_id(&request.user_id)
}

pub(crate) fn user_to_reactivate(request: &ReactivateUserRequest) -> Result<UserId> {
    user_id(&request.user_id)
}

fn user_id(text: &str) -> Result<UserId> {
    let mut violations = Violations::new();
    let user = ids::required("user_id", text, &mut violations);
    violations.finish(user)
}

/// Which users are listed; an empty query is all of them.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) query: String,
    pub(crate) size: PageSize,
    pub(crate) page_token: String,
}

impl TryFrom<ListUsersRequest> for Search {
    type Error = Error;

    fn try_from(request: ListUsersRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let size = PageSize::parse(request.page_size, &mut violations);
        violations.length("query", &request.query, 0, LONGEST_QUERY);
        violations.finish(size.map(|size| Search {
            query: request.query,
            size,
            page_token: request.page_token,
        }))
    }
}

/// Changes to a profile that was seen at an etag.
#[derive(Debug)]
pub(crate) struct OwnChange {
    pub(crate) etag: Etag,
    pub(crate) change: ProfileChange,
}

impl TryFrom<UpdateUserRequest> for OwnChange {
    type Error = Error;

    fn try_from(request: UpdateUserRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let known = ["username", "first_name", "last_name"];
        let mask = Mask::parse(request.update_mask.as_ref(), &known, &mut violations);
        let etag = Etag::required("etag", request.etag, &mut violations);
        violations.check(request.user.is_some(), "user", "is required");
        let user = request.user.unwrap_or_default();
        let has = |field: &str| mask.as_ref().is_some_and(|mask| mask.has(field));
        let mut name = |field: &str, path: &str, text: &str| {
            has(field).then(|| Name::parse(path, text, &mut violations)).flatten()
        };
        let first_name = name("first_name", "user.first_name", &user.first_name);
        let last_name = name("last_name", "user.last_name", &user.last_name);
        let username = has("username")
            .then(|| Slug::parse("user.username", &user.username, &mut violations))
            .flatten();
        let change = ProfileChange {
            username,
            first_name,
            last_name,
        };
        violations.finish(etag.map(|etag| OwnChange { etag, change }))
    }
}

/// Whom to keep out, and why.
#[derive(Debug)]
pub(crate) struct Suspension {
    pub(crate) user: UserId,
    pub(crate) reason: String,
}

impl TryFrom<SuspendUserRequest> for Suspension {
    type Error = Error;

    fn try_from(request: SuspendUserRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let user = ids::required("user_id", &request.user_id, &mut violations);
        violations.length("reason", &request.reason, 0, LONGEST_REASON);
        violations.finish(user.map(|user| Suspension {
            user,
            reason: request.reason,
        }))
    }
}

/// Proof that it is the user who wants to be gone, and whether at once.
#[derive(Debug)]
pub(crate) struct Farewell {
    pub(crate) password: Password,
    pub(crate) anonymize: bool,
}

impl TryFrom<DeleteUserRequest> for Farewell {
    type Error = Error;

    fn try_from(request: DeleteUserRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let password = Password::parse("password", request.password, &mut violations);
        violations.finish(password.map(|password| Farewell {
            password,
            anonymize: request.anonymize,
        }))
    }
}

/// A user as they see themselves.
pub(crate) fn own_user(profile: Profile, totp: bool) -> v1::User {
    let etag = Etag::of(profile.version).into();
    v1::User {
        etag,
        totp,
        ..profile.into()
    }
}

impl From<Colleague> for v1::OrganizationUser {
    fn from(colleague: Colleague) -> Self {
        v1::OrganizationUser {
            role: colleague.role.as_str().to_owned(),
            suspended: colleague.is_suspended(),
            joined_at: Some(timestamp(colleague.joined_at)),
            suspended_reason: colleague.suspended_reason,
            user: Some(colleague.profile.into()),
        }
    }
}
