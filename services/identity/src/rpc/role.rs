//! Roles, and what they allow.

use api::identity::v1::{
    CheckPermissionRequest, CheckPermissionResponse, CreateRoleRequest, CreateRoleResponse, DeleteRoleRequest,
    DeleteRoleResponse, GetEffectivePermissionsRequest, GetEffectivePermissionsResponse, GetRoleRequest,
    GetRoleResponse, ListPermissionsRequest, ListPermissionsResponse, ListRolesRequest, ListRolesResponse,
    UpdateRoleRequest, UpdateRoleResponse, role_service_server::RoleService,
};
use tonic::{Request, Response, Status};

use super::Identity;

#[tonic::async_trait]
impl RoleService for Identity {
    async fn create_role(&self, _request: Request<CreateRoleRequest>) -> Result<Response<CreateRoleResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_role(&self, _request: Request<GetRoleRequest>) -> Result<Response<GetRoleResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_roles(&self, _request: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn update_role(&self, _request: Request<UpdateRoleRequest>) -> Result<Response<UpdateRoleResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn delete_role(&self, _request: Request<DeleteRoleRequest>) -> Result<Response<DeleteRoleResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_permissions(
        &self,
        _request: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn check_permission(
        &self,
        _request: Request<CheckPermissionRequest>,
    ) -> Result<Response<CheckPermissionResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_effective_permissions(
        &self,
        _request: Request<GetEffectivePermissionsRequest>,
    ) -> Result<Response<GetEffectivePermissionsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}
