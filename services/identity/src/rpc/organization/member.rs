//! Members and their roles.

use api::identity::v1::{
    ListMembersRequest, ListMembersResponse, RemoveMemberRequest, RemoveMemberResponse, TransferOwnershipRequest,
    TransferOwnershipResponse, UpdateMemberRequest, UpdateMemberResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::RoleId,
    rpc::grants::{find_role, tell_permissions_changed},
    store,
    wire::{self, NewRole},
};
use kit::{
    Error, Reason,
    auth::{OrgScope, admitted, scope::Admitted},
    ids::UserId,
    page::Listing,
};
use time::OffsetDateTime;

pub(super) async fn list_members(
    identity: &Identity,
    request: Request<ListMembersRequest>,
) -> Result<Response<ListMembersResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let size = wire::members_page(&request)?;
    let list = Listing::new(&identity.ring, "identity.ListMembers", scope.org().0, &());
    let after = match list.open::<(i64, UserId)>(&request.page_token)? {
        None => None,
        Some((microseconds, user)) => {
            let joined_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1_000);
            Some((joined_at.map_err(Error::internal)?, user))
        }
    };
    let members = identity
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

pub(super) async fn update_member(
    identity: &Identity,
    request: Request<UpdateMemberRequest>,
) -> Result<Response<UpdateMemberResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let asked = NewRole::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        store::organization::lock(tx).await?;
        let not_found = || Error::not_found("member", asked.user);
        let member = store::member::find(tx, asked.user).await?.ok_or_else(not_found)?;
        let role = find_role(tx, &asked.role).await?;
        // What the gate saw may be a moment old; under the lock it is what holds.
        let caller = store::role::held(tx, scope.principal()).await?;
        let needed = scope.call().method.permission;
        if !caller.permissions().holds(needed) {
            return Err(
                Error::new(Reason::PermissionMissing, "the caller's role has just changed").with("permission", needed),
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

pub(super) async fn remove_member(
    _identity: &Identity,
    _request: Request<RemoveMemberRequest>,
) -> Result<Response<RemoveMemberResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn transfer_ownership(
    _identity: &Identity,
    _request: Request<TransferOwnershipRequest>,
) -> Result<Response<TransferOwnershipResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
