//! The members of an organization as users, and who is kept out.

use api::identity::v1::{
    GetUserRequest, GetUserResponse, ListUsersRequest, ListUsersResponse, ReactivateUserRequest,
    ReactivateUserResponse, SuspendUserRequest, SuspendUserResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;

pub(super) async fn get_user(
    _identity: &Identity,
    _request: Request<GetUserRequest>,
) -> Result<Response<GetUserResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn list_users(
    _identity: &Identity,
    _request: Request<ListUsersRequest>,
) -> Result<Response<ListUsersResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn suspend_user(
    _identity: &Identity,
    _request: Request<SuspendUserRequest>,
) -> Result<Response<SuspendUserResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn reactivate_user(
    _identity: &Identity,
    _request: Request<ReactivateUserRequest>,
) -> Result<Response<ReactivateUserResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
