//! API keys.

use api::{
    events::v1::{SessionRevoked, event::Payload},
    identity::v1::{
        CreateApiKeyRequest, CreateApiKeyResponse, GetApiKeyRequest, GetApiKeyResponse, ListApiKeysRequest,
        ListApiKeysResponse, RevokeApiKeyRequest, RevokeApiKeyResponse, RotateApiKeyRequest, RotateApiKeyResponse,
    },
};
use kit::{
    Error, Reason,
    auth::{OrgScope, admitted},
    crypto,
    db::Tx,
    failpoint,
    ids::Principal,
    page::Listing,
};
use time::{Duration, OffsetDateTime};
use tonic::{Request, Response, Status};

use crate::{
    model::{ApiKey, ApiKeyId, Held, NewApiKey, Owner, ServiceAccountId, now},
    rpc::{Identity, grants::caller},
    store,
    wire::{self, KeysPage, RequestedKey, Rotation, timestamp},
};

pub(super) async fn create_api_key(
    identity: &Identity,
    request: Request<CreateApiKeyRequest>,
) -> Result<Response<CreateApiKeyResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let RequestedKey(new) = RequestedKey::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let caller = caller(tx, &scope).await?;
        let owner = owner(tx, &scope, new.service_account).await?;
        let expires_at = new.end(now(), owner.latest)?;
        may_make(tx, &caller, owner, &new.scopes).await?;
        failpoint::hit_in("identity.key_allowed", &tx.org().to_string()).await?;
        let (made, secret) = make(identity, tx, &new, owner, expires_at).await?;
        tx.about(&made.id);
        Ok(CreateApiKeyResponse {
            api_key: Some(shown(identity, made)),
            secret: secret.expose().to_owned(),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn get_api_key(
    identity: &Identity,
    request: Request<GetApiKeyRequest>,
) -> Result<Response<GetApiKeyResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let id = wire::api_key_id(&request.api_key_id)?;
    let key = identity
        .db
        .read(&scope, async |tx| {
            store::api_key::find(tx, id).await?.ok_or_else(|| not_found(id))
        })
        .await?;
    Ok(Response::new(GetApiKeyResponse {
        api_key: Some(shown(identity, key)),
    }))
}

pub(super) async fn list_api_keys(
    identity: &Identity,
    request: Request<ListApiKeysRequest>,
) -> Result<Response<ListApiKeysResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let asked = KeysPage::try_from(request)?;
    let filter = (asked.of, asked.ended);
    let list = Listing::new(&identity.ring, "identity.ListApiKeys", scope.org().0, &filter);
    let after = match list.open::<(i64, ApiKeyId)>(&asked.page_token)? {
        None => None,
        Some((microseconds, id)) => {
            let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1_000);
            Some((created_at.map_err(Error::internal)?, id))
        }
    };
    let keys = identity
        .db
        .read(&scope, async |tx| {
            store::api_key::list(tx, asked.of, asked.ended, after, asked.size).await
        })
        .await?;
    let page = list.page(keys, asked.size, |last| {
        // Within i64 for all times that PostgreSQL has.
        ((last.created_at.unix_timestamp_nanos() / 1_000) as i64, last.id)
    });
    let page = page.map(|key| shown(identity, key));
    Ok(Response::new(ListApiKeysResponse {
        api_keys: page.items,
        next_page_token: page.next,
    }))
}

pub(super) async fn rotate_api_key(
    identity: &Identity,
    request: Request<RotateApiKeyRequest>,
) -> Result<Response<RotateApiKeyResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let Rotation { key: id, overlap } = Rotation::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let caller = caller(tx, &scope).await?;
        let old = store::api_key::lock_active(tx, id)
            .await?
            .ok_or_else(|| not_found(id))?;
        failpoint::hit_in("identity.key_found", &tx.org().to_string()).await?;
        let maker = owner(tx, &scope, old.service_account_id).await?;
        if !old.could_be_made_by(maker) {
            return Err(Error::new(
                Reason::Escalation,
                "a key that is of a person is rotated by that person",
            ));
        }
        may_make(tx, &caller, maker, &old.scopes).await?;
        let (new, expires_at) = old.successor(now(), maker.latest);
        // The successor is as much the old one's creator's as the old one was.
        let owner = Owner {
            creator: old.creator_id,
            ..maker
        };
        let (made, secret) = make(identity, tx, &new, owner, expires_at).await?;
        let old_end = store::api_key::end_within(tx, id, overlap).await?;
        if overlap == Duration::ZERO {
            tell_ended(tx, id);
        }
        tx.about(&made.id);
        Ok(RotateApiKeyResponse {
            api_key: Some(shown(identity, made)),
            secret: secret.expose().to_owned(),
            old_expires_at: Some(timestamp(old_end)),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn revoke_api_key(
    identity: &Identity,
    request: Request<RevokeApiKeyRequest>,
) -> Result<Response<RevokeApiKeyResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let id = wire::api_key_id(&request.api_key_id)?;
    let answer = identity.db.write(&scope, async |tx| {
        let revoked = store::api_key::revoke(tx, id).await?;
        let key = match revoked {
            Some(key) => {
                tell_ended(tx, id);
                key
            }
            None => {
                let key = store::api_key::find(tx, id).await?.ok_or_else(|| not_found(id))?;
                if key.revoked_at.is_none() {
                    // Its time is over; a token that was made before that was known ends with this.
                    tell_ended(tx, id);
                }
                key
            }
        };
        tx.about(&key.id);
        Ok(RevokeApiKeyResponse {
            api_key: Some(shown(identity, key)),
        })
    });
    Ok(answer.await?)
}

/// Tells every service that a key is void; verifiers know a key by its id as they know a session.
pub(super) fn tell_ended(tx: &mut Tx, key: ApiKeyId) {
    tx.tell(Payload::SessionRevoked(SessionRevoked {
        session_id: key.to_string(),
    }));
}

/// Whose a key is that the caller makes: the service account's that is named, else the caller's own.
/// A key's keys are whose it is, and end no later.
async fn owner(tx: &mut Tx, scope: &OrgScope, named: Option<ServiceAccountId>) -> kit::Result<Owner> {
    let caller = match scope.principal() {
        Principal::User(creator) => Some(Owner {
            creator,
            service_account: None,
            latest: None,
        }),
        Principal::ApiKey(id) => store::api_key::find_active(tx, ApiKeyId(id)).await?.map(|key| Owner {
            creator: key.creator_id,
            service_account: key.service_account_id,
            latest: Some(key.expires_at),
        }),
        Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => None,
    };
    let caller = caller.ok_or_else(|| Error::new(Reason::CallerNotAllowed, "only users and keys make keys"))?;
    Ok(Owner {
        service_account: named.or(caller.service_account),
        ..caller
    })
}

/// Lets the caller make a key with these scopes: each lies within what the caller holds, and within the role of the
/// service account that the key is of.
async fn may_make(tx: &mut Tx, caller: &Held, owner: Owner, scopes: &[String]) -> kit::Result<()> {
    let given = Held::of(scopes);
    if let Some(account) = owner.service_account {
        let position = store::role::of_service_account(tx, account)
            .await?
            .ok_or_else(|| Error::not_found("service_account", account))?;
        position.held.may_give(&given)?;
    }
    caller.may_give(&given)
}

async fn make(
    identity: &Identity,
    tx: &mut Tx,
    new: &NewApiKey,
    owner: Owner,
    expires_at: OffsetDateTime,
) -> kit::Result<(ApiKey, crypto::ApiKey)> {
    let secret = crypto::ApiKey::generate(&identity.keeper.issuer.environment);
    let digest = secret.digest(&identity.keeper.api_key_pepper);
    let made = store::api_key::insert(tx, new, owner, expires_at, secret.public_id(), &digest).await?;
    Ok((made, secret))
}

fn shown(identity: &Identity, key: ApiKey) -> api::identity::v1::ApiKey {
    wire::api_key(key, &identity.keeper.issuer.environment)
}

fn not_found(id: ApiKeyId) -> Error {
    Error::not_found("api_key", id)
}
