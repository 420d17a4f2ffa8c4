//! API keys.

use api::identity::v1::{CreateApiKeyRequest, CreateApiKeyResponse, api_key_service_server::ApiKeyService};
use kit::{
    Error, Reason, Result,
    auth::{OrgScope, admitted},
    crypto::ApiKey,
    ids::Principal,
};
use tonic::{Request, Response, Status};

use super::Identity;
use crate::{
    model::{ApiKeyId, Held},
    store,
    wire::RequestedKey,
};

#[tonic::async_trait]
impl ApiKeyService for Identity {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let RequestedKey(new) = RequestedKey::try_from(request)?;
        let answer = self.db.write(&scope, async |tx| {
            // A key's keys are its creator's, and hold no more than the key itself.
            let creator = match scope.principal() {
                Principal::User(user) => Some(user),
                Principal::ApiKey(id) => store::api_key::find_active(tx, ApiKeyId(id))
                    .await?
                    .map(|(_, creator)| creator),
                Principal::Service(_) | Principal::Anonymous => None,
            };
            let creator =
                creator.ok_or_else(|| Error::new(Reason::CallerNotAllowed, "only users and keys make keys"))?;
            let caller = store::role::held(tx, scope.principal()).await?;
            caller.may_let_use(&Held::of(&new.scopes))?;
            let key = ApiKey::generate(&self.keeper.issuer.environment);
            let digest = key.digest(&self.keeper.api_key_pepper);
            let made = store::api_key::insert(tx, &new, creator, key.public_id(), &digest).await?;
            tx.about(&made.id);
            Ok(CreateApiKeyResponse {
                api_key: Some(made.into()),
                secret: key.expose().to_owned(),
            })
        });
        Ok(answer.await?)
    }
}
