//! The keys that access tokens are signed with.

use api::identity::v1::{
    ListSigningKeysRequest, ListSigningKeysResponse, RevokeSigningKeyRequest, RevokeSigningKeyResponse,
    RotateSigningKeyRequest, RotateSigningKeyResponse, signing_key_service_server::SigningKeyService,
};
use tonic::{Request, Response, Status};

use super::Identity;

#[tonic::async_trait]
impl SigningKeyService for Identity {
    async fn list_signing_keys(
        &self,
        _request: Request<ListSigningKeysRequest>,
    ) -> Result<Response<ListSigningKeysResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn rotate_signing_key(
        &self,
        _request: Request<RotateSigningKeyRequest>,
    ) -> Result<Response<RotateSigningKeyResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn revoke_signing_key(
        &self,
        _request: Request<RevokeSigningKeyRequest>,
    ) -> Result<Response<RevokeSigningKeyResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}
