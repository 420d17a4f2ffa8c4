//! What tokens and keys stand for, for peers and for whoever asks.

use api::identity::v1::{
    CheckSessionRequest, CheckSessionResponse, ExchangeApiKeyRequest, ExchangeApiKeyResponse, GetPermissionSetRequest,
    GetPermissionSetResponse, GetSigningKeysRequest, GetSigningKeysResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::wire::{self, Question, SessionQuestion};
use kit::auth::{PeerScope, PublicScope, admitted};

pub(super) async fn exchange_api_key(
    identity: &Identity,
    request: Request<ExchangeApiKeyRequest>,
) -> Result<Response<ExchangeApiKeyResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let key = wire::api_key_text(request.api_key)?;
    let exchanged = identity.keeper.exchange(&scope, &key).await?;
    Ok(Response::new(ExchangeApiKeyResponse {
        access_token: exchanged.token.text,
        access_token_expires_at: Some(wire::timestamp(exchanged.token.expires_at)),
        organization_id: exchanged.org.to_string(),
        api_key_id: exchanged.key.to_string(),
    }))
}

pub(super) async fn get_signing_keys(
    identity: &Identity,
    request: Request<GetSigningKeysRequest>,
) -> Result<Response<GetSigningKeysResponse>, Status> {
    let (_, GetSigningKeysRequest {}): (PeerScope, _) = admitted(request)?;
    let key_set = identity.keeper.issuer.keys.key_set().await?;
    Ok(Response::new(GetSigningKeysResponse { key_set }))
}

pub(super) async fn get_permission_set(
    identity: &Identity,
    request: Request<GetPermissionSetRequest>,
) -> Result<Response<GetPermissionSetResponse>, Status> {
    let (scope, request): (PeerScope, _) = admitted(request)?;
    let asked = Question::try_from(request)?;
    let (set, permission_version) = identity
        .keeper
        .permission_set(&scope, asked.org, asked.principal)
        .await?;
    let permissions = set.names().map(str::to_owned).collect();
    Ok(Response::new(GetPermissionSetResponse {
        permissions,
        permission_version,
    }))
}

pub(super) async fn check_session(
    identity: &Identity,
    request: Request<CheckSessionRequest>,
) -> Result<Response<CheckSessionResponse>, Status> {
    let (scope, request): (PeerScope, _) = admitted(request)?;
    let asked = SessionQuestion::try_from(request)?;
    let active = identity
        .keeper
        .session_active(&scope, asked.session, asked.principal, asked.epoch)
        .await?;
    Ok(Response::new(CheckSessionResponse { active }))
}
