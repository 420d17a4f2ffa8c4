//! The RPCs of ApiKeyService, each in the room of its subject.

mod key;
mod service_account;

use api::identity::v1::{
    CreateApiKeyRequest, CreateApiKeyResponse, CreateServiceAccountRequest, CreateServiceAccountResponse,
    DisableServiceAccountRequest, DisableServiceAccountResponse, GetApiKeyRequest, GetApiKeyResponse,
    ListApiKeysRequest, ListApiKeysResponse, ListServiceAccountsRequest, ListServiceAccountsResponse,
    RevokeApiKeyRequest, RevokeApiKeyResponse, RotateApiKeyRequest, RotateApiKeyResponse,
    api_key_service_server::ApiKeyService,
};
use tonic::{Request, Response, Status};

use super::Identity;

#[tonic::async_trait]
impl ApiKeyService for Identity {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        key::create_api_key(self, request).await
    }

    async fn get_api_key(&self, request: Request<GetApiKeyRequest>) -> Result<Response<GetApiKeyResponse>, Status> {
        key::get_api_key(self, request).await
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        key::list_api_keys(self, request).await
    }

    async fn rotate_api_key(
        &self,
        request: Request<RotateApiKeyRequest>,
    ) -> Result<Response<RotateApiKeyResponse>, Status> {
        key::rotate_api_key(self, request).await
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        key::revoke_api_key(self, request).await
    }

    async fn create_service_account(
        &self,
        request: Request<CreateServiceAccountRequest>,
    ) -> Result<Response<CreateServiceAccountResponse>, Status> {
        service_account::create_service_account(self, request).await
    }

    async fn list_service_accounts(
        &self,
        request: Request<ListServiceAccountsRequest>,
    ) -> Result<Response<ListServiceAccountsResponse>, Status> {
        service_account::list_service_accounts(self, request).await
    }

    async fn disable_service_account(
        &self,
        request: Request<DisableServiceAccountRequest>,
    ) -> Result<Response<DisableServiceAccountResponse>, Status> {
        service_account::disable_service_account(self, request).await
    }
}
