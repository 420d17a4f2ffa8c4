//! The domains that an organization has proven to own.

use api::identity::v1::{
    RemoveDomainRequest, RemoveDomainResponse, RequestDomainVerificationRequest, RequestDomainVerificationResponse,
    VerifyDomainRequest, VerifyDomainResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;

pub(super) async fn request_domain_verification(
    _identity: &Identity,
    _request: Request<RequestDomainVerificationRequest>,
) -> Result<Response<RequestDomainVerificationResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn verify_domain(
    _identity: &Identity,
    _request: Request<VerifyDomainRequest>,
) -> Result<Response<VerifyDomainResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn remove_domain(
    _identity: &Identity,
    _request: Request<RemoveDomainRequest>,
) -> Result<Response<RemoveDomainResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
