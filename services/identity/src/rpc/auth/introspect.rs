//! What a token stands for at this moment, for its organization.

use api::identity::v1::{IntrospectTokenRequest, IntrospectTokenResponse, PrincipalKind};
use kit::{
    Result,
    auth::{
        OrgScope, admitted,
        token::{self, AccessClaims, PublicKey},
    },
    crypto::ApiKey,
    db::Tx,
    ids::Principal,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::rpc::Identity;
use crate::{
    model::{ApiKeyId, Presented, RefreshToken, SessionId},
    store, wire,
};

/// What a valid token stands for.
struct Standing {
    principal: Principal,
    /// The session, or the API key's own id.
    session: Uuid,
    expires_at: OffsetDateTime,
}

/// Whatever is not valid, for whatever reason, is answered alike.
pub(super) async fn introspect_token(
    identity: &Identity,
    request: Request<IntrospectTokenRequest>,
) -> Result<Response<IntrospectTokenResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let text = wire::token_to_look_at(request.token)?;
    let claims = identity.verified(&text).await?;
    let found = identity.db.read(&scope, async |tx| {
        let Some(standing) = identity.standing(tx, &text, claims.as_ref()).await? else {
            return Ok(None);
        };
        // Who has no place in the organization any more is as good as gone.
        let position = store::role::position(tx, standing.principal).await?;
        Ok(position.map(|position| (standing, position.held.into_permissions())))
    });
    let Some((standing, permissions)) = found.await? else {
        return Ok(Response::new(IntrospectTokenResponse::default()));
    };
    let (kind, id) = match standing.principal {
        Principal::User(user) => (PrincipalKind::User, user.0),
        Principal::ApiKey(key) => (PrincipalKind::ApiKey, key),
        Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => {
            return Ok(Response::new(IntrospectTokenResponse::default()));
        }
    };
    Ok(Response::new(IntrospectTokenResponse {
        active: true,
        organization_id: scope.org().to_string(),
        principal_kind: kind.into(),
        principal_id: id.to_string(),
        session_id: standing.session.to_string(),
        expires_at: Some(wire::timestamp(standing.expires_at)),
        permissions: permissions.names().map(str::to_owned).collect(),
    }))
}

impl Identity {
    /// What a text stands for in the transaction's organization, if it is a token that is valid now.
    async fn standing(&self, tx: &mut Tx, text: &str, claims: Option<&AccessClaims>) -> Result<Option<Standing>> {
        if let Some(token) = RefreshToken::parse(&self.ring, text) {
            return self.refresh_token_standing(tx, &token).await;
        }
        if let Ok(key) = ApiKey::parse(text) {
            return self.api_key_standing(tx, &key).await;
        }
        match claims {
            Some(claims) => self.access_token_standing(tx, claims).await,
            None => Ok(None),
        }
    }

    /// Of a session's tokens the one that would be continued; looking at another one ends nothing.
    async fn refresh_token_standing(&self, tx: &mut Tx, token: &RefreshToken) -> Result<Option<Standing>> {
        let Some(family) = store::session::find_family(tx, token.session()).await? else {
            return Ok(None);
        };
        let idle_end = store::session::idle_end(tx, token.session()).await?;
        let stands = store::lookup::session_state(tx, token.session())
            .await?
            .is_some_and(|state| state.active);
        let continued = match family.judge(&self.ring, token) {
            Presented::Current | Presented::Repeated => true,
            Presented::Reused | Presented::Void => false,
        };
        Ok((stands && continued).then(|| Standing {
            principal: Principal::User(family.session.user_id),
            session: family.session.id.0,
            expires_at: idle_end.map_or(family.session.expires_at, |end| end.min(family.session.expires_at)),
        }))
    }

    async fn api_key_standing(&self, tx: &mut Tx, key: &ApiKey) -> Result<Option<Standing>> {
        if key.env() != &*self.keeper.issuer.environment {
            return Ok(None);
        }
        let known = store::lookup::api_key_by_public_id(tx, key.public_id()).await?;
        let ours = known.filter(|known| known.active && known.org_id == tx.org());
        let genuine = ours.filter(|known| key.verify(&self.keeper.api_key_pepper, &known.digest));
        Ok(genuine.map(|known| Standing {
            principal: Principal::ApiKey(known.id.0),
            session: known.id.0,
            expires_at: known.expires_at,
        }))
    }

    /// What an access token says, if a key that is believed now signed it.
    async fn verified(&self, text: &str) -> Result<Option<AccessClaims>> {
        let Ok(id) = token::key_id(text) else {
            return Ok(None);
        };
        let standing = self.keeper.issuer.keys.refresh().await?;
        let mut keys = standing.keys.iter();
        let key = keys.find(|key| key.id == id);
        let key = key.and_then(|key| PublicKey::parse(&key.public_key));
        Ok(key.and_then(|key| key.verify_access(&self.keeper.issuer.environment, text).ok()))
    }

    async fn access_token_standing(&self, tx: &mut Tx, claims: &AccessClaims) -> Result<Option<Standing>> {
        if claims.org != Some(tx.org()) {
            return Ok(None);
        }
        let stands = match claims.principal {
            Principal::User(user) => store::lookup::session_state(tx, SessionId(claims.session))
                .await?
                .is_some_and(|state| state.active && state.user_id == user && state.epoch <= claims.epoch),
            Principal::ApiKey(id) => id == claims.session && store::lookup::api_key_active(tx, ApiKeyId(id)).await?,
            Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => false,
        };
        Ok(stands.then(|| Standing {
            principal: claims.principal,
            session: claims.session,
            expires_at: claims.expires_at.into(),
        }))
    }
}
