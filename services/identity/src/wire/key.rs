//! API keys.

use api::identity::v1::{self, CreateApiKeyRequest};
use kit::{Error, Result, Violations, auth::permission::is_grant};
use prost_types::Timestamp;
use time::{Duration, OffsetDateTime};

use super::timestamp;
use crate::model::{ApiKey, ApiKeyId, Name, NewApiKey, now};

const DEFAULT_LIFETIME: Duration = Duration::days(90);
const LONGEST_LIFETIME: Duration = Duration::days(366);
const SHORTEST_LIFETIME: Duration = Duration::minutes(1);

/// The key that a request asks for.
#[derive(Debug)]
pub(crate) struct RequestedKey(pub(crate) NewApiKey);

impl TryFrom<CreateApiKeyRequest> for RequestedKey {
    type Error = Error;

    fn try_from(request: CreateApiKeyRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let name = Name::parse("name", &request.name, &mut violations);
        let count = request.scopes.len();
        violations.check((1..=200).contains(&count), "scopes", "must be 1 to 200 permissions");
        let mut scopes = Vec::new();
        for (index, scope) in request.scopes.into_iter().take(200).enumerate() {
            let field = format!("scopes[{index}]");
            violations.check(
                scope.len() <= 200 && is_grant(&scope),
                &field,
                "must be <slice>.<resource>.<verb>, where * stands for a whole segment",
            );
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let expires_at = expiry(request.expires_at, &mut violations);
        let key = name.zip(expires_at).map(|(name, expires_at)| NewApiKey {
            id: ApiKeyId::new(),
            name,
            scopes,
            expires_at,
        });
        violations.finish(key.map(RequestedKey))
    }
}

fn expiry(asked: Option<Timestamp>, violations: &mut Violations) -> Option<OffsetDateTime> {
    let now = now();
    let Some(asked) = asked else {
        return Some(now + DEFAULT_LIFETIME);
    };
    let nanos = u32::try_from(asked.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let time = nanos
        .zip(OffsetDateTime::from_unix_timestamp(asked.seconds).ok())
        .and_then(|(nanos, time)| {
            // PostgreSQL keeps microseconds.
            time.replace_nanosecond(nanos / 1_000 * 1_000).ok()
        });
    let time = time.filter(|time| (now + SHORTEST_LIFETIME..=now + LONGEST_LIFETIME).contains(time));
    violations.check(time.is_some(), "expires_at", "must be a minute to 366 days ahead");
    time
}

impl From<ApiKey> for v1::ApiKey {
    fn from(key: ApiKey) -> Self {
        v1::ApiKey {
            id: key.id.to_string(),
            name: key.name.as_str().to_owned(),
            public_id: key.public_id,
            scopes: key.scopes,
            creator_id: key.creator_id.to_string(),
            created_at: Some(timestamp(key.created_at)),
            expires_at: Some(timestamp(key.expires_at)),
        }
    }
}
