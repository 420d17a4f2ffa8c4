//! API keys.

use api::identity::v1::{
    self, CreateApiKeyRequest, CreateServiceAccountRequest, ListApiKeysRequest, RotateApiKeyRequest,
};
use kit::{Error, Result, Violations, auth::token::ACCESS_LIFETIME, ids, page::PageSize};
use prost_types::Timestamp;
use time::{Duration, OffsetDateTime};

use super::{role::grants, timestamp};
use crate::model::{
    ApiKey, ApiKeyId, Description, Name, NewApiKey, NewServiceAccount, ServiceAccount, ServiceAccountId, now,
};

/// The key that a request asks for. Whether its end is near enough and far enough is for the write to say: of a repeat,
/// time may have made it wrong. It is told here only beside what is wrong with every repeat too.
#[derive(Debug)]
pub(crate) struct RequestedKey(pub(crate) NewApiKey);

impl TryFrom<CreateApiKeyRequest> for RequestedKey {
    type Error = Error;

    fn try_from(request: CreateApiKeyRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let name = Name::parse("name", &request.name, &mut violations);
        let count = request.scopes.len();
        violations.check((1..=200).contains(&count), "scopes", "must be 1 to 200 permissions");
        let scopes = grants("scopes", request.scopes, &mut violations);
        let service_account = ids::optional("service_account_id", &request.service_account_id, &mut violations);
        let expires_at = request.expires_at.and_then(|asked| {
            let end = moment(asked);
            violations.check(end.is_some(), "expires_at", "must be a time");
            end
        });
        let wrong = expires_at.and_then(|end| NewApiKey::end_violation(end, now()));
        if let Some(wrong) = wrong.filter(|_| !violations.is_empty()) {
            violations.add("expires_at", wrong);
        }
        let key = name.map(|name| NewApiKey {
            id: ApiKeyId::new(),
            name,
            scopes,
            expires_at,
            service_account,
        });
        violations.finish(key.map(RequestedKey))
    }
}

fn moment(time: Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let seconds = OffsetDateTime::from_unix_timestamp(time.seconds).ok()?;
    // PostgreSQL keeps microseconds.
    seconds.replace_nanosecond(nanos / 1_000 * 1_000).ok()
}

/// A key as callers see it; the environment is part of what it begins with.
pub(crate) fn api_key(key: ApiKey, environment: &str) -> v1::ApiKey {
    v1::ApiKey {
        id: key.id.to_string(),
        name: key.name.as_str().to_owned(),
        prefix: format!("b3_{environment}_{}_", key.public_id),
        public_id: key.public_id,
        scopes: key.scopes,
        creator_id: key.creator_id.to_string(),
        created_at: Some(timestamp(key.created_at)),
        expires_at: Some(timestamp(key.expires_at)),
        last_used_at: key.last_used_at.map(timestamp),
        revoked_at: key.revoked_at.map(timestamp),
        service_account_id: key.service_account_id.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// A key to look at or to end.
pub(crate) fn api_key_id(text: &str) -> Result<ApiKeyId> {
    let mut violations = Violations::new();
    let id = ids::required("api_key_id", text, &mut violations);
    violations.finish(id)
}

/// Which keys to list.
#[derive(Debug)]
pub(crate) struct KeysPage {
    pub(crate) size: PageSize,
    pub(crate) of: Option<ServiceAccountId>,
    pub(crate) ended: bool,
    pub(crate) page_token: String,
}

impl TryFrom<ListApiKeysRequest> for KeysPage {
    type Error = Error;

    fn try_from(request: ListApiKeysRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let size = PageSize::parse(request.page_size, &mut violations);
        let of = ids::optional("service_account_id", &request.service_account_id, &mut violations);
        violations.finish(size.map(|size| KeysPage {
            size,
            of,
            ended: request.show_ended,
            page_token: request.page_token,
        }))
    }
}

/// A key to replace, and how long it works on.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) key: ApiKeyId,
    pub(crate) overlap: Duration,
}

impl TryFrom<RotateApiKeyRequest> for Rotation {
    type Error = Error;

    fn try_from(request: RotateApiKeyRequest) -> Result<Self> {
        const LONGEST: Duration = Duration::days(7);
        let mut violations = Violations::new();
        let key = ids::required("api_key_id", &request.api_key_id, &mut violations);
        let overlap = request.overlap.map_or(Duration::days(1), |overlap| {
            Duration::seconds(overlap.seconds).saturating_add(Duration::nanoseconds(overlap.nanos.into()))
        });
        // A token that the key was exchanged for before is over when the key is.
        let sane = overlap.is_zero() || (overlap >= ACCESS_LIFETIME && overlap <= LONGEST);
        violations.check(sane, "overlap", "must be 0, or 5 minutes to 7 days");
        violations.finish(key.map(|key| Rotation { key, overlap }))
    }
}

impl TryFrom<CreateServiceAccountRequest> for NewServiceAccount {
    type Error = Error;

    fn try_from(request: CreateServiceAccountRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let name = Name::parse("name", &request.name, &mut violations);
        let description = Description::parse("description", request.description, &mut violations);
        violations.length("role", &request.role, 1, 100);
        violations.finish(name.map(|name| NewServiceAccount {
            id: ServiceAccountId::new(),
            name,
            description,
            role: request.role,
        }))
    }
}

pub(crate) fn service_account_id(text: &str) -> Result<ServiceAccountId> {
    let mut violations = Violations::new();
    let id = ids::required("service_account_id", text, &mut violations);
    violations.finish(id)
}

impl From<ServiceAccount> for v1::ServiceAccount {
    fn from(account: ServiceAccount) -> Self {
        v1::ServiceAccount {
            id: account.id.to_string(),
            name: account.name.as_str().to_owned(),
            description: account.description.as_str().to_owned(),
            role: account.role.map(|role| role.as_str().to_owned()).unwrap_or_default(),
            disabled: account.disabled_at.is_some(),
            created_at: Some(timestamp(account.created_at)),
        }
    }
}
