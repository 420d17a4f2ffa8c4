//! Members and their roles.

use api::identity::v1::{
    ListMembersRequest, ListMembersResponse, RemoveMemberRequest, RemoveMemberResponse, TransferOwnershipRequest,
    TransferOwnershipResponse, UpdateMemberRequest, UpdateMemberResponse,
};
use tonic::{Request, Response, Status};

use super::rights;
use crate::{
    model::{RoleId, from_microseconds, microseconds},
    rpc::{
        Identity,
        ending::end_sessions,
        grants::{an_owner_stays, find_role, tell_permissions_changed},
    },
    store,
    wire::{self, NewRole},
};
use kit::{
    Error, Reason, Result,
    auth::{OrgScope, admitted},
    db::Tx,
    ids::{OrgId, Principal, UserId},
    page::Listing,
};

pub(super) async fn list_members(
    identity: &Identity,
    request: Request<ListMembersRequest>,
) -> Result<Response<ListMembersResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let size = wire::page_size(request.page_size)?;
    let list = Listing::new(&identity.ring, "identity.ListMembers", scope.org().0, &());
    let after = match list.open::<(i64, UserId)>(&request.page_token)? {
        None => None,
        Some((joined_at, user)) => Some((from_microseconds(joined_at)?, user)),
    };
    let members = identity
        .db
        .read(&scope, async |tx| store::member::list(tx, after, size).await)
        .await?;
    let page = list.page(members, size, |last| (microseconds(last.joined_at), last.user_id));
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
        let caller = rights(tx, &scope).await?;
        caller.may_give(&store::role::held_by_role(tx, member.role_org_id, member.role_id).await?)?;
        caller.may_give(&store::role::held_by_role(tx, role.org_id, role.id).await?)?;
        if (member.role_org_id, member.role_id) != (role.org_id, role.id) {
            an_owner_stays(tx, &member).await?;
            store::member::update_role(tx, asked.user, (role.org_id, role.id)).await?;
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
    identity: &Identity,
    request: Request<RemoveMemberRequest>,
) -> Result<Response<RemoveMemberResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let user = wire::member_id(&request.user_id)?;
    let mut ended = Vec::new();
    let answer = identity.db.write(&scope, async |tx| {
        store::organization::lock(tx).await?;
        let not_found = || Error::not_found("member", user);
        let member = store::member::find(tx, user).await?.ok_or_else(not_found)?;
        let caller = rights(tx, &scope).await?;
        caller.may_give(&store::role::held_by_role(tx, member.role_org_id, member.role_id).await?)?;
        an_owner_stays(tx, &member).await?;
        store::member::delete(tx, user).await?;
        // Keys that the member made are cut by what the member holds: nothing now.
        ended = end_sessions(tx, Some(user)).await?;
        tell_permissions_changed(tx).await?;
        tx.about(&member);
        Ok(RemoveMemberResponse {})
    });
    let answer = answer.await?;
    identity.hide_all(&ended).await;
    Ok(answer)
}

pub(super) async fn transfer_ownership(
    identity: &Identity,
    request: Request<TransferOwnershipRequest>,
) -> Result<Response<TransferOwnershipResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let user = wire::member_id(&request.user_id)?;
    if scope.principal().user() == Some(user) {
        return Err(Error::violation("user_id", "must be another member's").into());
    }
    let answer = identity.db.write(&scope, async |tx| {
        rights(tx, &scope).await?;
        let owner = owner(tx, scope.principal()).await?;
        let not_found = || Error::not_found("member", user);
        if !store::member::exists(tx, tx.org(), user).await? {
            return Err(not_found());
        }
        store::member::update_role(tx, user, (OrgId::PLATFORM, RoleId::OWNER)).await?;
        store::member::update_role(tx, owner, (OrgId::PLATFORM, RoleId::ADMIN)).await?;
        tell_permissions_changed(tx).await?;
        let member = store::member::find(tx, user).await?.ok_or_else(not_found)?;
        tx.about(&member);
        Ok(TransferOwnershipResponse {
            member: Some(member.into()),
        })
    });
    Ok(answer.await?)
}

/// The calling owner. A key is none, whatever it holds.
async fn owner(tx: &mut Tx, caller: Principal) -> Result<UserId> {
    let refused = || Error::new(Reason::CallerNotAllowed, "only an owner hands an organization over");
    let user = caller.user().ok_or_else(refused)?;
    let member = store::member::find(tx, user).await?.ok_or_else(refused)?;
    if member.is_owner() { Ok(user) } else { Err(refused()) }
}
