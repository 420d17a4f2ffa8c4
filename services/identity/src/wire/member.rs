//! Users, members and invitations.

use api::identity::v1::{self, InviteMemberRequest, UpdateMemberRequest};
use kit::{
    Error, Reason, Result, Violations,
    ids::{self, UserId},
};

use super::timestamp;
use crate::model::{
    Email, EmailToken, Held, InvitationId, Member, Membership, NewInvitation, OpenInvitation, Profile, Purpose, now,
};

/// Another role for a member.
#[derive(Debug)]
pub(crate) struct NewRole {
    pub(crate) user: UserId,
    pub(crate) role: String,
}

impl TryFrom<UpdateMemberRequest> for NewRole {
    type Error = Error;

    fn try_from(request: UpdateMemberRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let user = ids::required("user_id", &request.user_id, &mut violations);
        violations.length("role", &request.role, 1, 100);
        violations.finish(user.map(|user| NewRole {
            user,
            role: request.role,
        }))
    }
}

impl TryFrom<InviteMemberRequest> for NewInvitation {
    type Error = Error;

    fn try_from(request: InviteMemberRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let email = Email::parse("email", &request.email, &mut violations);
        violations.length("role", &request.role, 1, 100);
        let expires_at = now() + crate::model::INVITATION_LIFETIME;
        let id = InvitationId::new();
        violations.finish(email.map(|email| NewInvitation {
            id,
            email,
            role: request.role,
            expires_at,
        }))
    }
}

/// An invitation, by its id.
pub(crate) fn invitation_id(text: &str) -> Result<InvitationId> {
    let mut violations = Violations::new();
    let id = ids::required("invitation_id", text, &mut violations);
    violations.finish(id)
}

impl From<OpenInvitation> for v1::Invitation {
    fn from(invitation: OpenInvitation) -> Self {
        v1::Invitation {
            id: invitation.id.to_string(),
            email: invitation.email.as_str().to_owned(),
            role: invitation.role.as_str().to_owned(),
            inviter_id: invitation.inviter_id().map(|id| id.to_string()).unwrap_or_default(),
            created_at: Some(timestamp(invitation.created_at)),
            expires_at: Some(timestamp(invitation.expires_at)),
        }
    }
}

/// The token of an invitation to accept; what is none of ours is answered like one that is not known.
pub(crate) fn invitation_token(text: String) -> Result<EmailToken> {
    let text = super::secret("token", text)?;
    EmailToken::parse(Purpose::Invitation, &text).ok_or_else(invitation_invalid)
}

/// One answer for all that is wrong with an invitation.
pub(crate) fn invitation_invalid() -> Error {
    Error::new(
        Reason::InvitationInvalid,
        "the invitation is unknown, used, expired or meant for somebody else",
    )
}

/// A member, by the user's id.
pub(crate) fn member_id(text: &str) -> Result<UserId> {
    let mut violations = Violations::new();
    let user = ids::required("user_id", text, &mut violations);
    violations.finish(user)
}

impl From<Member> for v1::Member {
    fn from(member: Member) -> Self {
        v1::Member {
            user_id: member.user_id.to_string(),
            email: member.email.as_str().to_owned(),
            username: member.username.as_str().to_owned(),
            first_name: member.first_name.as_str().to_owned(),
            last_name: member.last_name.as_str().to_owned(),
            role: member.role.as_str().to_owned(),
            joined_at: Some(timestamp(member.joined_at)),
        }
    }
}

impl From<Profile> for v1::User {
    fn from(user: Profile) -> Self {
        v1::User {
            id: user.id.to_string(),
            email: user.email.as_str().to_owned(),
            username: user.username.as_str().to_owned(),
            first_name: user.first_name.as_str().to_owned(),
            last_name: user.last_name.as_str().to_owned(),
            created_at: Some(timestamp(user.created_at)),
            ..Default::default()
        }
    }
}

/// A membership with what its role gives, seen with a token of `current`.
/// Of no session in particular.
pub(crate) fn membership(membership: Membership, held: &Held) -> v1::Membership {
    v1::Membership {
        organization_id: membership.org_id.to_string(),
        organization_name: membership.organization.as_str().to_owned(),
        organization_slug: membership.slug.as_str().to_owned(),
        role: membership.role.as_str().to_owned(),
        permissions: held.permissions().names().map(str::to_owned).collect(),
        joined_at: Some(timestamp(membership.joined_at)),
        current: false,
    }
}
