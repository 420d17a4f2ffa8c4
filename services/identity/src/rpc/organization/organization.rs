//! Organizations themselves.

use api::identity::v1::{
    CreateOrganizationRequest, CreateOrganizationResponse, DeleteOrganizationRequest, DeleteOrganizationResponse,
    GetOrganizationRequest, GetOrganizationResponse, ListOrganizationsRequest, ListOrganizationsResponse,
    UndeleteOrganizationRequest, UndeleteOrganizationResponse, UpdateOrganizationRequest, UpdateOrganizationResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;

pub(super) async fn create_organization(
    _identity: &Identity,
    _request: Request<CreateOrganizationRequest>,
) -> Result<Response<CreateOrganizationResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn get_organization(
    _identity: &Identity,
    _request: Request<GetOrganizationRequest>,
) -> Result<Response<GetOrganizationResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn list_organizations(
    _identity: &Identity,
    _request: Request<ListOrganizationsRequest>,
) -> Result<Response<ListOrganizationsResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn update_organization(
    _identity: &Identity,
    _request: Request<UpdateOrganizationRequest>,
) -> Result<Response<UpdateOrganizationResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn delete_organization(
    _identity: &Identity,
    _request: Request<DeleteOrganizationRequest>,
) -> Result<Response<DeleteOrganizationResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn undelete_organization(
    _identity: &Identity,
    _request: Request<UndeleteOrganizationRequest>,
) -> Result<Response<UndeleteOrganizationResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
