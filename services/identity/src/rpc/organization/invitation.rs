//! How somebody becomes a member.

use api::identity::v1::{
    AcceptInvitationRequest, AcceptInvitationResponse, InviteMemberRequest, InviteMemberResponse,
    ListInvitationsRequest, ListInvitationsResponse, RevokeInvitationRequest, RevokeInvitationResponse,
};
use tonic::{Request, Response, Status};

use super::{organization::here, rights};
use crate::rpc::Identity;
use crate::{
    model::{EmailToken, InvitationId, Letter, Mail, NewInvitation, Purpose, from_microseconds, microseconds},
    rpc::grants::{find_role, tell_permissions_changed},
    store,
    wire::{self, invitation_invalid, timestamp},
};
use api::{
    events::v1::{UserChanged, event::Payload},
    policy::{self, Method},
};
use kit::{
    Error,
    auth::{OrgScope, UserScope, admitted},
    ids::Principal,
    page::Listing,
};

pub(super) async fn invite_member(
    identity: &Identity,
    request: Request<InviteMemberRequest>,
) -> Result<Response<InviteMemberResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let new = NewInvitation::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let caller = rights(tx, &scope).await?;
        let role = find_role(tx, &new.role).await?;
        caller.may_give(&store::role::held_by_role(tx, role.org_id, role.id).await?)?;
        let token = EmailToken::new(Purpose::Invitation, new.id.0);
        store::invitation::insert(tx, &new, &role, &token.hash(&identity.ring)).await?;
        tx.about(&new.id);
        let answer = InviteMemberResponse {
            invitation_id: new.id.to_string(),
            token: token.expose().to_owned(),
            expires_at: Some(timestamp(new.expires_at)),
        };
        // The same is answered for an address that has had enough of them.
        if identity.post.may_send(&new.email).await {
            let letter = Letter::Invitation {
                organization: here(tx).await?.name,
                token: token.into_text(),
            };
            store::mail::enqueue(tx, &identity.ring, &Mail::new(new.email.clone(), letter)).await?;
        }
        Ok(answer)
    });
    let answer = answer.await?;
    identity.post.ring();
    Ok(answer)
}

pub(super) async fn list_invitations(
    identity: &Identity,
    request: Request<ListInvitationsRequest>,
) -> Result<Response<ListInvitationsResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let size = wire::page_size(request.page_size)?;
    let list = Listing::new(&identity.ring, "identity.ListInvitations", scope.org().0, &());
    let before = match list.open::<(i64, InvitationId)>(&request.page_token)? {
        None => None,
        Some((created_at, id)) => Some((from_microseconds(created_at)?, id)),
    };
    let invitations = identity
        .db
        .read(&scope, async |tx| store::invitation::list_open(tx, before, size).await)
        .await?;
    let page = list.page(invitations, size, |last| (microseconds(last.created_at), last.id));
    let page = page.map(Into::into);
    Ok(Response::new(ListInvitationsResponse {
        invitations: page.items,
        next_page_token: page.next,
    }))
}

pub(super) async fn revoke_invitation(
    identity: &Identity,
    request: Request<RevokeInvitationRequest>,
) -> Result<Response<RevokeInvitationResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let id = wire::invitation_id(&request.invitation_id)?;
    let answer = identity.db.write(&scope, async |tx| {
        // Who accepts it at the same moment comes first or too late, never both.
        let invitation = store::invitation::lock(tx, id)
            .await?
            .filter(|invitation| invitation.open);
        invitation.ok_or_else(|| Error::not_found("invitation", id))?;
        store::invitation::update_revoked(tx, id).await?;
        tx.about(&id);
        Ok(RevokeInvitationResponse {})
    });
    Ok(answer.await?)
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
        // Of an organization that is deleted, or an account that is kept out, nobody becomes a member.
        if !store::member::exists(tx, org, user).await? {
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
