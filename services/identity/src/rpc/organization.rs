//! Members of organizations, and how somebody becomes one.

use api::{
    events::v1::{PermissionsChanged, UserChanged, event::Payload},
    identity::v1::{
        AcceptInvitationRequest, AcceptInvitationResponse, InviteMemberRequest, InviteMemberResponse,
        ListMembersRequest, ListMembersResponse, UpdateMemberRequest, UpdateMemberResponse,
        organization_service_server::OrganizationService,
    },
    policy::{self, Method},
};
use kit::{
    Error, Reason, Result,
    auth::{OrgScope, UserScope, admitted, scope::Admitted},
    db::Tx,
    ids::{Principal, UserId},
    page::Listing,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::Identity;
use crate::{
    model::{InvitationToken, NewInvitation, Role, RoleId},
    store,
    wire::{self, NewRole, invitation_invalid, timestamp},
};

#[tonic::async_trait]
impl OrganizationService for Identity {
    async fn invite_member(
        &self,
        request: Request<InviteMemberRequest>,
    ) -> Result<Response<InviteMemberResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let new = NewInvitation::try_from(request)?;
        let answer = self.db.write(&scope, async |tx| {
            let role = find_role(tx, &new.role).await?;
            let caller = store::role::held(tx, scope.principal()).await?;
            caller.may_give(&store::role::held_by_role(tx, role.org_id, role.id).await?)?;
            let token = InvitationToken::new(new.id);
            store::invitation::insert(tx, &new, &role, &token.hash(&self.ring)).await?;
            tx.about(&new.id);
            Ok(InviteMemberResponse {
                invitation_id: new.id.to_string(),
                token: token.expose().to_owned(),
                expires_at: Some(timestamp(new.expires_at)),
            })
        });
        Ok(answer.await?)
    }

    async fn accept_invitation(
        &self,
        request: Request<AcceptInvitationRequest>,
    ) -> Result<Response<AcceptInvitationResponse>, Status> {
        let (scope, request): (UserScope, _) = admitted(request)?;
        let token = wire::invitation_token(request.token)?;
        let answer = self.db.write(&scope, async |tx| {
            let user = scope.user();
            let org = store::lookup::invitation_org(tx, token.id())
                .await?
                .ok_or_else(invitation_invalid)?;
            tx.enter(org, Principal::User(user)).await?;
            // The organization first, as everywhere: nobody's role changes between the check and the commit.
            store::organization::lock(tx).await?;
            let invitation = store::invitation::lock(tx, token.id())
                .await?
                .ok_or_else(invitation_invalid)?;
            let profile = store::user::find(tx, user).await?.ok_or_else(invitation_invalid)?;
            let genuine = token.matches(&self.ring, &invitation.token_hash);
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

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let size = wire::members_page(&request)?;
        let list = Listing::new(&self.ring, "identity.ListMembers", scope.org().0, &());
        let after = match list.open::<(i64, UserId)>(&request.page_token)? {
            None => None,
            Some((microseconds, user)) => {
                let joined_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1_000);
                Some((joined_at.map_err(Error::internal)?, user))
            }
        };
        let members = self
            .db
            .read(&scope, async |tx| store::member::list(tx, after, size).await)
            .await?;
        let page = list.page(members, size, |last| {
            // Within i64 for all times that PostgreSQL has.
            ((last.joined_at.unix_timestamp_nanos() / 1_000) as i64, last.user_id)
        });
        let page = page.map(Into::into);
        Ok(Response::new(ListMembersResponse {
            members: page.items,
            next_page_token: page.next,
        }))
    }

    async fn update_member(
        &self,
        request: Request<UpdateMemberRequest>,
    ) -> Result<Response<UpdateMemberResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked = NewRole::try_from(request)?;
        let answer = self.db.write(&scope, async |tx| {
            store::organization::lock(tx).await?;
            let not_found = || Error::not_found("member", asked.user);
            let member = store::member::find(tx, asked.user).await?.ok_or_else(not_found)?;
            let role = find_role(tx, &asked.role).await?;
            // What the gate saw may be a moment old; under the lock it is what holds.
            let caller = store::role::held(tx, scope.principal()).await?;
            let needed = scope.call().method.permission;
            if !caller.permissions().holds(needed) {
                return Err(
                    Error::new(Reason::PermissionMissing, "the caller's role has just changed")
                        .with("permission", needed),
                );
            }
            caller.may_give(&store::role::held_by_role(tx, member.role_org_id, member.role_id).await?)?;
            caller.may_give(&store::role::held_by_role(tx, role.org_id, role.id).await?)?;
            if (member.role_org_id, member.role_id) != (role.org_id, role.id) {
                if member.role_id == RoleId::OWNER && !store::member::other_owner_exists(tx, asked.user).await? {
                    return Err(Error::new(
                        Reason::LastOwner,
                        "the last owner of an organization stays one",
                    ));
                }
                store::member::update_role(tx, asked.user, &role).await?;
                tell_permissions_changed(tx).await?;
            }
            let member = store::member::find(tx, asked.user).await?.ok_or_else(not_found)?;
            tx.about(&member);
            Ok(UpdateMemberResponse {
                member: Some(member.into()),
            })
        });
        Ok(answer.await?)
    }
}

/// The RPC that invites: what it asks for is also asked of the inviter when the invitation is accepted.
fn inviting() -> &'static Method {
    policy::find("/board3.identity.v1.OrganizationService/InviteMember").expect("the protos declare InviteMember")
}

async fn find_role(tx: &mut Tx, name: &str) -> Result<Role> {
    store::role::find(tx, name)
        .await?
        .ok_or_else(|| Error::not_found("role", name))
}

/// Makes the next version of the organization's permissions; every service asks anew for what it needs.
async fn tell_permissions_changed(tx: &mut Tx) -> Result<()> {
    let permission_version = store::organization::update_permission_version(tx).await?;
    tx.tell(Payload::PermissionsChanged(PermissionsChanged { permission_version }));
    Ok(())
}
