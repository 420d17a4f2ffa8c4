//! The keys that access tokens are signed with; for the platform's organization alone.

use api::identity::v1::{
    ListSigningKeysRequest, ListSigningKeysResponse, RevokeSigningKeyRequest, RevokeSigningKeyResponse,
    RotateSigningKeyRequest, RotateSigningKeyResponse, signing_key_service_server::SigningKeyService,
};
use kit::{
    Violations,
    auth::{OrgScope, admitted},
    page::{Listing, PageSize},
};
use tonic::{Request, Response, Status};

use super::Identity;
use crate::{platform::platform_only, store, wire};

#[tonic::async_trait]
impl SigningKeyService for Identity {
    async fn list_signing_keys(
        &self,
        request: Request<ListSigningKeysRequest>,
    ) -> Result<Response<ListSigningKeysResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        platform_only(&scope)?;
        let mut violations = Violations::new();
        let size = PageSize::parse(request.page_size, &mut violations);
        let size = violations.finish(size)?;
        let list = Listing::new(&self.ring, "identity.ListSigningKeys", scope.org().0, &());
        let before = list.open::<i64>(&request.page_token)?;
        let keys = self
            .db
            .read(&scope, async |tx| store::signing_key::list(tx, before, size).await)
            .await?;
        let page = list.page(keys, size, |last| last.number).map(Into::into);
        Ok(Response::new(ListSigningKeysResponse {
            keys: page.items,
            next_page_token: page.next,
        }))
    }

    async fn rotate_signing_key(
        &self,
        request: Request<RotateSigningKeyRequest>,
    ) -> Result<Response<RotateSigningKeyResponse>, Status> {
        let (scope, RotateSigningKeyRequest { .. }): (OrgScope, _) = admitted(request)?;
        platform_only(&scope)?;
        let keys = &self.keeper.issuer.keys;
        let answer = self.db.write(&scope, async |tx| {
            let key = keys.rotate(tx).await?;
            tx.about(&key);
            Ok(RotateSigningKeyResponse { key: Some(key.into()) })
        });
        Ok(answer.await?)
    }

    async fn revoke_signing_key(
        &self,
        request: Request<RevokeSigningKeyRequest>,
    ) -> Result<Response<RevokeSigningKeyResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        platform_only(&scope)?;
        let id = wire::signing_key_id(request)?;
        let keys = &self.keeper.issuer.keys;
        let answer = self.db.write(&scope, async |tx| {
            let key = keys.revoke(tx, &id).await?;
            tx.about(&key);
            Ok(RevokeSigningKeyResponse { key: Some(key.into()) })
        });
        let answer = answer.await?;
        // Here at once; where it fails, within the second.
        let _ = keys.refresh().await;
        Ok(answer)
    }
}
