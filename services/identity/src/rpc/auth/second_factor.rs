//! The second factor: one-time passwords and recovery codes.

use api::identity::v1::{
    ConfirmTotpRequest, ConfirmTotpResponse, DisableTotpRequest, DisableTotpResponse, EnrollTotpRequest,
    EnrollTotpResponse, RegenerateRecoveryCodesRequest, RegenerateRecoveryCodesResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;

pub(super) async fn enroll_totp(
    _identity: &Identity,
    _request: Request<EnrollTotpRequest>,
) -> Result<Response<EnrollTotpResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn confirm_totp(
    _identity: &Identity,
    _request: Request<ConfirmTotpRequest>,
) -> Result<Response<ConfirmTotpResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn disable_totp(
    _identity: &Identity,
    _request: Request<DisableTotpRequest>,
) -> Result<Response<DisableTotpResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn regenerate_recovery_codes(
    _identity: &Identity,
    _request: Request<RegenerateRecoveryCodesRequest>,
) -> Result<Response<RegenerateRecoveryCodesResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
