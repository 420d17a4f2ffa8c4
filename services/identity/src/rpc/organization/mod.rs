//! The RPCs of OrganizationService, each in the room of its subject.

mod domain;
mod founding;
mod invitation;
mod member;
#[allow(clippy::module_inception)]
mod organization;

use api::identity::v1::{
    AcceptInvitationRequest, AcceptInvitationResponse, CreateOrganizationRequest, CreateOrganizationResponse,
    DeleteOrganizationRequest, DeleteOrganizationResponse, GetOrganizationRequest, GetOrganizationResponse,
    InviteMemberRequest, InviteMemberResponse, ListInvitationsRequest, ListInvitationsResponse, ListMembersRequest,
    ListMembersResponse, ListOrganizationsRequest, ListOrganizationsResponse, RemoveDomainRequest,
    RemoveDomainResponse, RemoveMemberRequest, RemoveMemberResponse, RequestDomainVerificationRequest,
    RequestDomainVerificationResponse, RevokeInvitationRequest, RevokeInvitationResponse, TransferOwnershipRequest,
    TransferOwnershipResponse, UndeleteOrganizationRequest, UndeleteOrganizationResponse, UpdateMemberRequest,
    UpdateMemberResponse, UpdateOrganizationRequest, UpdateOrganizationResponse, VerifyDomainRequest,
    VerifyDomainResponse, organization_service_server::OrganizationService,
};
use tonic::{Request, Response, Status};

pub(super) use founding::insert_organization;
use kit::{Error, Reason, auth::OrgScope, db::Tx, ids::OrgId};

use super::{Identity, grants::caller};
use crate::model::Held;

#[tonic::async_trait]
impl OrganizationService for Identity {
    async fn create_organization(
        &self,
        request: Request<CreateOrganizationRequest>,
    ) -> Result<Response<CreateOrganizationResponse>, Status> {
        organization::create_organization(self, request).await
    }

    async fn get_organization(
        &self,
        request: Request<GetOrganizationRequest>,
    ) -> Result<Response<GetOrganizationResponse>, Status> {
        organization::get_organization(self, request).await
    }

    async fn list_organizations(
        &self,
        request: Request<ListOrganizationsRequest>,
    ) -> Result<Response<ListOrganizationsResponse>, Status> {
        organization::list_organizations(self, request).await
    }

    async fn update_organization(
        &self,
        request: Request<UpdateOrganizationRequest>,
    ) -> Result<Response<UpdateOrganizationResponse>, Status> {
        organization::update_organization(self, request).await
    }

    async fn delete_organization(
        &self,
        request: Request<DeleteOrganizationRequest>,
    ) -> Result<Response<DeleteOrganizationResponse>, Status> {
        organization::delete_organization(self, request).await
    }

    async fn undelete_organization(
        &self,
        request: Request<UndeleteOrganizationRequest>,
    ) -> Result<Response<UndeleteOrganizationResponse>, Status> {
        organization::undelete_organization(self, request).await
    }

    async fn request_domain_verification(
        &self,
        request: Request<RequestDomainVerificationRequest>,
    ) -> Result<Response<RequestDomainVerificationResponse>, Status> {
        domain::request_domain_verification(self, request).await
    }

    async fn verify_domain(
        &self,
        request: Request<VerifyDomainRequest>,
    ) -> Result<Response<VerifyDomainResponse>, Status> {
        domain::verify_domain(self, request).await
    }

    async fn remove_domain(
        &self,
        request: Request<RemoveDomainRequest>,
    ) -> Result<Response<RemoveDomainResponse>, Status> {
        domain::remove_domain(self, request).await
    }

    async fn invite_member(
        &self,
        request: Request<InviteMemberRequest>,
    ) -> Result<Response<InviteMemberResponse>, Status> {
        invitation::invite_member(self, request).await
    }

    async fn list_invitations(
        &self,
        request: Request<ListInvitationsRequest>,
    ) -> Result<Response<ListInvitationsResponse>, Status> {
        invitation::list_invitations(self, request).await
    }

    async fn revoke_invitation(
        &self,
        request: Request<RevokeInvitationRequest>,
    ) -> Result<Response<RevokeInvitationResponse>, Status> {
        invitation::revoke_invitation(self, request).await
    }

    async fn accept_invitation(
        &self,
        request: Request<AcceptInvitationRequest>,
    ) -> Result<Response<AcceptInvitationResponse>, Status> {
        invitation::accept_invitation(self, request).await
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        member::list_members(self, request).await
    }

    async fn update_member(
        &self,
        request: Request<UpdateMemberRequest>,
    ) -> Result<Response<UpdateMemberResponse>, Status> {
        member::update_member(self, request).await
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        member::remove_member(self, request).await
    }

    async fn transfer_ownership(
        &self,
        request: Request<TransferOwnershipRequest>,
    ) -> Result<Response<TransferOwnershipResponse>, Status> {
        member::transfer_ownership(self, request).await
    }
}

/// What the caller holds under the organization's lock, which every change of rights and of the organization takes first.
///
/// # Errors
/// PERMISSION_MISSING for who has just lost what the RPC asks for. CALLER_NOT_ALLOWED in the platform's organization:
/// what it is and who is in it is said by the operator alone.
async fn rights(tx: &mut Tx, scope: &OrgScope) -> kit::Result<Held> {
    if scope.org() == OrgId::PLATFORM {
        let refused = "the platform's organization is the operator's";
        return Err(Error::new(Reason::CallerNotAllowed, refused));
    }
    caller(tx, scope).await
}
