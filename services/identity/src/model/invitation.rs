//! Invitations.

use diesel::prelude::*;
use kit::{
    db::About,
    ids::{OrgId, Principal, UserId},
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{ApiKeyId, Email, Name, RoleId};

kit::id! {
    /// An invitation.
    InvitationId
}

impl About for InvitationId {
    const TYPE: &'static str = "invitation";
    fn id(&self) -> String {
        self.to_string()
    }
}

/// How long an invitation lives.
pub(crate) const LIFETIME: Duration = Duration::days(7);

/// Whom to invite as what.
#[derive(Debug)]
pub(crate) struct NewInvitation {
    pub(crate) id: InvitationId,
    pub(crate) email: Email,
    pub(crate) role: String,
    pub(crate) expires_at: OffsetDateTime,
}

/// An invitation, locked by the transaction that accepts it.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct Invitation {
    pub(crate) id: InvitationId,
    pub(crate) email: Email,
    pub(crate) role_org_id: OrgId,
    pub(crate) role_id: RoleId,
    pub(crate) token_hash: Vec<u8>,
    inviter_user_id: Option<UserId>,
    inviter_key_id: Option<ApiKeyId>,
    /// Neither accepted nor revoked nor expired.
    pub(crate) open: bool,
}

impl Invitation {
    /// Who invited, and must still be able to invite and to give the role.
    pub(crate) fn inviter(&self) -> Principal {
        match (self.inviter_user_id, self.inviter_key_id) {
            (Some(user), _) => Principal::User(user),
            (None, Some(key)) => Principal::ApiKey(key.0),
            (None, None) => Principal::Anonymous,
        }
    }
}

/// An invitation that can be accepted, as the organization sees it.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct OpenInvitation {
    pub(crate) id: InvitationId,
    pub(crate) email: Email,
    pub(crate) role: Name,
    inviter_user_id: Option<UserId>,
    inviter_key_id: Option<ApiKeyId>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
}

impl OpenInvitation {
    /// The id of the user or the key that invited.
    pub(crate) fn inviter_id(&self) -> Option<Uuid> {
        self.inviter_user_id
            .map(|user| user.0)
            .or(self.inviter_key_id.map(|key| key.0))
    }
}
