//! The RPCs of UserService, each in the room of its subject.

mod colleague;
mod deletion;
mod me;
mod suspension;

use api::identity::v1::{
    DeleteUserRequest, DeleteUserResponse, GetMeRequest, GetMeResponse, GetUserRequest, GetUserResponse,
    ListUsersRequest, ListUsersResponse, ReactivateUserRequest, ReactivateUserResponse, SuspendUserRequest,
    SuspendUserResponse, UpdateUserRequest, UpdateUserResponse, user_service_server::UserService,
};
use tonic::{Request, Response, Status};

use super::Identity;

#[tonic::async_trait]
impl UserService for Identity {
    async fn get_me(&self, request: Request<GetMeRequest>) -> Result<Response<GetMeResponse>, Status> {
        me::get_me(self, request).await
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        me::update_user(self, request).await
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        deletion::delete_user(self, request).await
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        colleague::get_user(self, request).await
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        colleague::list_users(self, request).await
    }

    async fn suspend_user(
        &self,
        request: Request<SuspendUserRequest>,
    ) -> Result<Response<SuspendUserResponse>, Status> {
        suspension::suspend_user(self, request).await
    }

    async fn reactivate_user(
        &self,
        request: Request<ReactivateUserRequest>,
    ) -> Result<Response<ReactivateUserResponse>, Status> {
        suspension::reactivate_user(self, request).await
    }
}
