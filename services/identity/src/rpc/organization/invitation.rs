//! How somebody becomes a member.

use api::identity::v1::{
    AcceptInvitationRequest, AcceptInvitationResponse, InviteMemberRequest, InviteMemberResponse,
    ListInvitationsRequest, ListInvitationsResponse, RevokeInvitationRequest, RevokeInvitationResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{EmailToken, InvitationId, NewInvitation, Purpose},
    rpc::grants::{find_role, tell_permissions_changed},
    store,
    wire::{self, invitation_invalid, timestamp},
};
use api::{
    events::v1::{UserChanged, event::Payload},
    policy::{self, Method},
};
use kit::{
    auth::{OrgScope, UserScope, admitted},
    ids::Principal,
};

pub(super) async fn invite_member(
    identity: &Identity,
    request: Request<InviteMemberRequest>,
) -> Result<Response<InviteMemberResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let new = NewInvitation::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let role = find_role(tx, &new.role).await?;
        let caller = store::role::held(tx, scope.principal()).await?;
        caller.may_give(&store::role::held_by_role(tx, role.org_id, role.id).await?)?;
        let token = EmailToken::new(Purpose::Invitation, new.id.0);
        store::invitation::insert(tx, &new, &role, &token.hash(&identity.ring)).await?;
        tx.about(&new.id);
        Ok(InviteMemberResponse {
            invitation_id: new.id.to_string(),
            token: token.expose().to_owned(),
            expires_at: Some(timestamp(new.expires_at)),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn list_invitations(
    _identity: &Identity,
    _request: Request<ListInvitationsRequest>,
) -> Result<Response<ListInvitationsResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn revoke_invitation(
    _identity: &Identity,
    _request: Request<RevokeInvitationRequest>,
) -> Result<Response<RevokeInvitationResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn accept_invitation(
    identity: &Identity,
    request: Request<AcceptInvitationRequest>,
) -> Result<Response<AcceptInvitationResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let token = wire::invitation_token(request.token)?;
    let id = InvitationId(token.id());
    let answer = identity.db.write(&scope, async |tx| {
        let user = scope.user();
        let org = store::lookup::invitation_org(tx, id)
            .await?
            .ok_or_else(invitation_invalid)?;
        tx.enter(org, Principal::User(user)).await?;
        // The organization first, as everywhere: nobody's role changes between the check and the commit.
        store::organization::lock(tx).await?;
        let invitation = store::invitation::lock(tx, id).await?.ok_or_else(invitation_invalid)?;
        let profile = store::user::find(tx, user).await?.ok_or_else(invitation_invalid)?;
        let genuine = token.matches(&identity.ring, &invitation.token_hash);
        if !genuine || !invitation.open || invitation.email != profile.email {
            return Err(invitation_invalid());
        }
        let given = store::role::held_by_role(tx, invitation.role_org_id, invitation.role_id).await?;
        let inviter = store::role::held(tx, invitation.inviter()).await?;
        if !inviter.permissions().holds(inviting().permission) {
            return Err(invitation_invalid());
        }
        inviter.may_give(&given).map_err(|_| invitation_invalid())?;
        if !store::member::insert(tx, user, invitation.role_org_id, invitation.role_id).await? {
            return Err(invitation_invalid());
        }
        store::invitation::update_accepted(tx, invitation.id).await?;
        let member = store::member::find(tx, user).await?.ok_or_else(invitation_invalid)?;
        tx.about(&invitation.id);
        tx.tell(Payload::UserChanged(UserChanged {
            user_id: user.to_string(),
            first_name: profile.first_name.as_str().to_owned(),
            last_name: profile.last_name.as_str().to_owned(),
            version: profile.version,
        }));
        tell_permissions_changed(tx).await?;
        Ok(AcceptInvitationResponse {
            organization_id: org.to_string(),
            role: member.role.as_str().to_owned(),
        })
    });
    Ok(answer.await?)
}

/// The RPC that invites: what it asks for is also asked of the inviter when the invitation is accepted.
fn inviting() -> &'static Method {
    policy::find("/board3.identity.v1.OrganizationService/InviteMember").expect("the protos declare InviteMember")
}
