//! What a principal may do and whether a session stands, from the tables: for peers over gRPC, and for identity's own
//! gate without it.

use std::sync::Arc;

use api::events::v1::Outcome;
use kit::{
    Error, Reason, Result,
    auth::{Begins, PermissionSet, authority::Authority, scope::WorkerScope},
    crypto::{ApiKey, Pepper},
    db::{About, Db, Refusal},
    ids::{OrgId, Principal},
};
use uuid::Uuid;

use crate::{
    issuer::{AccessToken, Issuer, Versions},
    model::{ApiKeyId, SessionId},
    store,
};

/// The gate's questions, answered here.
pub(crate) struct Keeper {
    pub(crate) db: Db,
    pub(crate) issuer: Issuer,
    pub(crate) api_key_pepper: Pepper,
}

/// An API key's access token, and whose it is.
pub(crate) struct Exchanged {
    pub(crate) token: AccessToken,
    pub(crate) org: OrgId,
    pub(crate) key: ApiKeyId,
}

impl Keeper {
    /// What a principal may do in an organization now, and the version that this is of.
    pub(crate) async fn permission_set(
        &self,
        scope: &impl Begins,
        org: OrgId,
        principal: Principal,
    ) -> Result<(PermissionSet, i64)> {
        self.db
            .read(scope, async |tx| {
                tx.enter(org, Principal::Service("identity")).await?;
                // The version first: permissions may be newer than it says, never older.
                let Some(version) = store::organization::permission_version(tx).await? else {
                    return Ok((PermissionSet::none(), 0));
                };
                Ok((store::role::held(tx, principal).await?.into_permissions(), version))
            })
            .await
    }

    /// Whether a token's session or key still stands.
    pub(crate) async fn session_active(
        &self,
        scope: &impl Begins,
        session: SessionId,
        principal: Principal,
        epoch: i64,
    ) -> Result<bool> {
        self.db
            .read(scope, async |tx| match principal {
                Principal::User(user) => {
                    let state = store::lookup::session_state(tx, session).await?;
                    Ok(state.is_some_and(|state| state.active && state.user_id == user && state.epoch <= epoch))
                }
                Principal::ApiKey(id) => Ok(id == session.0 && store::lookup::api_key_active(tx, ApiKeyId(id)).await?),
                Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => Ok(false),
            })
            .await
    }

    /// An access token for an API key. Its use is noted twice a minute at most; the refusal of a call, if there is such a
    /// key, is in the audit trail.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID, always the same, for a key that is malformed, of another environment, unknown, expired or revoked, or of
    /// an organization that is deleted.
    pub(crate) async fn exchange(&self, scope: &impl Begins, text: &str) -> Result<Exchanged> {
        let invalid = || Error::new(Reason::CredentialInvalid, "the credential is not valid");
        let key = ApiKey::parse(text).map_err(|_| invalid())?;
        if key.env() != &*self.issuer.environment {
            return Err(invalid());
        }
        let known = self
            .db
            .look(scope, async |tx| {
                store::lookup::api_key_by_public_id(tx, key.public_id()).await
            })
            .await?;
        let digest = known.as_ref().map_or([0; 32].as_slice(), |known| &known.digest);
        let genuine = key.verify(&self.api_key_pepper, digest);
        let Some(known) = known else {
            return Err(invalid());
        };
        let principal = Principal::ApiKey(known.id.0);
        let Some(permission_version) = known.permission_version.filter(|_| genuine && known.active) else {
            if scope.call().is_some() {
                let refusal = Refusal {
                    org: known.org_id,
                    actor: if genuine { principal } else { Principal::Anonymous },
                    outcome: Outcome::Failure,
                    about: Some((ApiKeyId::TYPE, known.id.id())),
                };
                self.db.refuse(scope, refusal, &invalid()).await?;
            }
            return Err(invalid());
        };
        if !known.lately_used {
            self.db
                .read(scope, async |tx| {
                    tx.enter(known.org_id, principal).await?;
                    store::api_key::update_last_used(tx, known.id).await
                })
                .await?;
        }
        // A key has no epoch: it is revoked or it is not.
        let versions = Versions {
            epoch: 0,
            permission_version,
        };
        let token = self
            .issuer
            .sign(principal, known.org_id, known.id.0, versions, known.expires_at)?;
        Ok(Exchanged {
            token,
            org: known.org_id,
            key: known.id,
        })
    }
}

/// Identity's own gate asks the tables, between calls.
pub(crate) struct LocalAuthority {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) scope: WorkerScope,
}

#[tonic::async_trait]
impl Authority for LocalAuthority {
    async fn signing_keys(&self) -> Result<String> {
        self.keeper.issuer.keys.key_set().await
    }

    async fn permission_set(&self, org: OrgId, principal: Principal) -> Result<(PermissionSet, i64)> {
        self.keeper.permission_set(&self.scope, org, principal).await
    }

    async fn session_active(&self, session: Uuid, principal: Principal, epoch: i64) -> Result<bool> {
        self.keeper
            .session_active(&self.scope, SessionId(session), principal, epoch)
            .await
    }

    async fn exchange_api_key(&self, key: &str) -> Result<String> {
        Ok(self.keeper.exchange(&self.scope, key).await?.token.text)
    }
}
