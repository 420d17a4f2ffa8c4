//! Setting another password.

use api::identity::v1::{
    ChangePasswordRequest, ChangePasswordResponse, RequestPasswordResetRequest, RequestPasswordResetResponse,
    ResetPasswordRequest, ResetPasswordResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;

pub(super) async fn request_password_reset(
    _identity: &Identity,
    _request: Request<RequestPasswordResetRequest>,
) -> Result<Response<RequestPasswordResetResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn reset_password(
    _identity: &Identity,
    _request: Request<ResetPasswordRequest>,
) -> Result<Response<ResetPasswordResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn change_password(
    _identity: &Identity,
    _request: Request<ChangePasswordRequest>,
) -> Result<Response<ChangePasswordResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
