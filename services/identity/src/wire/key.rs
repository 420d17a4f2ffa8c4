//! API keys.

use api::identity::v1::{self, CreateApiKeyRequest};
use kit::{Error, Result, Violations, auth::permission::is_grant};
use prost_types::Timestamp;
use time::OffsetDateTime;

use super::timestamp;
use crate::model::{ApiKey, ApiKeyId, Name, NewApiKey, now};

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
            ..Default::default()
        }
    }
}
