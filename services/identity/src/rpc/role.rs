//! Roles, and what they allow.

use api::identity::v1::{
    CheckPermissionRequest, CheckPermissionResponse, CreateRoleRequest, CreateRoleResponse, DeleteRoleRequest,
    DeleteRoleResponse, GetEffectivePermissionsRequest, GetEffectivePermissionsResponse, GetRoleRequest,
    GetRoleResponse, ListPermissionsRequest, ListPermissionsResponse, ListRolesRequest, ListRolesResponse,
    UpdateRoleRequest, UpdateRoleResponse, role_service_server::RoleService,
};
use kit::{
    Error,
    auth::{OrgScope, admitted},
    db::Tx,
    page::Listing,
};
use tonic::{Request, Response, Status};

use super::{
    Identity,
    grants::{caller, tell_permissions_changed},
    permission,
};
use crate::{
    model::{Held, Name, Role, RoleContent, RoleId},
    store,
    wire::{self, RoleChange, RoleDeletion},
};

#[tonic::async_trait]
impl RoleService for Identity {
    async fn create_role(&self, request: Request<CreateRoleRequest>) -> Result<Response<CreateRoleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let content = RoleContent::try_from(request)?;
        let answer = self.db.write(&scope, async |tx| {
            let caller = caller(tx, &scope).await?;
            caller.may_give(&Held::of(&content.grants))?;
            free(tx, &content.name).await?;
            let role = store::role::insert(tx, RoleId::new(), &content).await?;
            tx.about(&role.id);
            Ok(CreateRoleResponse {
                role: Some(wire::role(role, content.grants)),
            })
        });
        Ok(answer.await?)
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> Result<Response<GetRoleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = wire::role_id(&request.role_id)?;
        let answer = self.db.read(&scope, async |tx| {
            let role = find(tx, id).await?;
            let grants = store::role::list_grants(tx, role.org_id, role.id).await?;
            Ok(GetRoleResponse {
                role: Some(wire::role(role, grants)),
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_roles(&self, request: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let size = wire::page_size(request.page_size)?;
        let list = Listing::new(&self.ring, "identity.ListRoles", scope.org().0, &());
        let after = list.open::<(String, RoleId)>(&request.page_token)?;
        let (roles, grants) = self
            .db
            .read(&scope, async |tx| {
                let roles = store::role::list(tx, after, size).await?;
                let ids: Vec<_> = roles.iter().map(|role| (role.org_id, role.id)).collect();
                let grants = store::member::list_grants(tx, &ids).await?;
                Ok((roles, grants))
            })
            .await?;
        let page = list.page(roles, size, |last| (last.name.as_str().to_owned(), last.id));
        let page = page.map(|role| {
            let own = grants
                .iter()
                .filter(|(org, id, _)| (*org, *id) == (role.org_id, role.id));
            let mut own: Vec<String> = own.map(|(_, _, grant)| grant.clone()).collect();
            own.sort_unstable();
            wire::role(role, own)
        });
        Ok(Response::new(ListRolesResponse {
            roles: page.items,
            next_page_token: page.next,
        }))
    }

    async fn update_role(&self, request: Request<UpdateRoleRequest>) -> Result<Response<UpdateRoleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let RoleChange { id, etag, content } = RoleChange::try_from(request)?;
        let answer = self.db.write(&scope, async |tx| {
            let caller = caller(tx, &scope).await?;
            let role = find(tx, id).await?;
            role.changes_from(Some(&etag))?;
            let before = store::role::list_grants(tx, role.org_id, id).await?;
            caller.may_give(&Held::of(&before))?;
            caller.may_give(&Held::of(&content.grants))?;
            free(tx, &content.name).await?;
            let role = store::role::update(tx, id, &content).await?;
            if before != content.grants {
                tell_permissions_changed(tx).await?;
            }
            tx.about(&role.id);
            Ok(UpdateRoleResponse {
                role: Some(wire::role(role, content.grants)),
            })
        });
        Ok(answer.await?)
    }

    async fn delete_role(&self, request: Request<DeleteRoleRequest>) -> Result<Response<DeleteRoleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let RoleDeletion { id, etag } = RoleDeletion::try_from(request)?;
        let answer = self.db.write(&scope, async |tx| {
            let caller = caller(tx, &scope).await?;
            let role = find(tx, id).await?;
            role.changes_from(etag.as_deref())?;
            caller.may_give(&store::role::held_by_role(tx, role.org_id, id).await?)?;
            store::role::holders(tx, id).await?.none()?;
            store::role::delete(tx, id).await?;
            tx.about(&role.id);
            Ok(DeleteRoleResponse {})
        });
        Ok(answer.await?)
    }

    async fn list_permissions(
        &self,
        request: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        permission::list_permissions(self, request).await
    }

    async fn check_permission(
        &self,
        request: Request<CheckPermissionRequest>,
    ) -> Result<Response<CheckPermissionResponse>, Status> {
        permission::check_permission(self, request).await
    }

    async fn get_effective_permissions(
        &self,
        request: Request<GetEffectivePermissionsRequest>,
    ) -> Result<Response<GetEffectivePermissionsResponse>, Status> {
        permission::get_effective_permissions(self, request).await
    }
}

async fn find(tx: &mut Tx, id: RoleId) -> kit::Result<Role> {
    store::role::find_by_id(tx, id)
        .await?
        .ok_or_else(|| Error::not_found("role", id))
}

/// Refuses the names of the system's roles; those of the organization's own are unique in their table.
async fn free(tx: &mut Tx, name: &Name) -> kit::Result<()> {
    if store::role::is_system_name(tx, name).await? {
        return Err(store::exists("name"));
    }
    Ok(())
}
