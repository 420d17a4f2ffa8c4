//! Callers that are no persons.

use api::identity::v1::{
    CreateServiceAccountRequest, CreateServiceAccountResponse, DisableServiceAccountRequest,
    DisableServiceAccountResponse, ListServiceAccountsRequest, ListServiceAccountsResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;

pub(super) async fn create_service_account(
    _identity: &Identity,
    _request: Request<CreateServiceAccountRequest>,
) -> Result<Response<CreateServiceAccountResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn list_service_accounts(
    _identity: &Identity,
    _request: Request<ListServiceAccountsRequest>,
) -> Result<Response<ListServiceAccountsResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn disable_service_account(
    _identity: &Identity,
    _request: Request<DisableServiceAccountRequest>,
) -> Result<Response<DisableServiceAccountResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
