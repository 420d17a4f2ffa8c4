//! API keys.

use api::identity::v1::{
    CreateApiKeyRequest, CreateApiKeyResponse, GetApiKeyRequest, GetApiKeyResponse, ListApiKeysRequest,
    ListApiKeysResponse, RevokeApiKeyRequest, RevokeApiKeyResponse, RotateApiKeyRequest, RotateApiKeyResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{ApiKeyId, Held, now},
    store,
    wire::RequestedKey,
};
use kit::{
    Error, Reason,
    auth::{OrgScope, admitted},
    crypto::ApiKey,
    ids::Principal,
};

pub(super) async fn create_api_key(
    identity: &Identity,
    request: Request<CreateApiKeyRequest>,
) -> Result<Response<CreateApiKeyResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let RequestedKey(new) = RequestedKey::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        // A key's keys are its creator's, hold no more than the key itself and end no later.
        let maker = match scope.principal() {
            Principal::User(user) => Some((user, None)),
            Principal::ApiKey(id) => store::api_key::find_active(tx, ApiKeyId(id))
                .await?
                .map(|key| (key.creator_id, Some(key.expires_at))),
            Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => None,
        };
        let (creator, latest) =
            maker.ok_or_else(|| Error::new(Reason::CallerNotAllowed, "only users and keys make keys"))?;
        let expires_at = new.end(now(), latest)?;
        let caller = store::role::held(tx, scope.principal()).await?;
        caller.may_give(&Held::of(&new.scopes))?;
        let key = ApiKey::generate(&identity.keeper.issuer.environment);
        let digest = key.digest(&identity.keeper.api_key_pepper);
        let made = store::api_key::insert(tx, &new, creator, expires_at, key.public_id(), &digest).await?;
        tx.about(&made.id);
        Ok(CreateApiKeyResponse {
            api_key: Some(made.into()),
            secret: key.expose().to_owned(),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn get_api_key(
    _identity: &Identity,
    _request: Request<GetApiKeyRequest>,
) -> Result<Response<GetApiKeyResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn list_api_keys(
    _identity: &Identity,
    _request: Request<ListApiKeysRequest>,
) -> Result<Response<ListApiKeysResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn rotate_api_key(
    _identity: &Identity,
    _request: Request<RotateApiKeyRequest>,
) -> Result<Response<RotateApiKeyResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn revoke_api_key(
    _identity: &Identity,
    _request: Request<RevokeApiKeyRequest>,
) -> Result<Response<RevokeApiKeyResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
