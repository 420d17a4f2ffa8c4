//! API keys as rows; their text is `kit::crypto::ApiKey`, and no row holds it.

use diesel::prelude::*;
use kit::{Error, Result, db::About, ids::UserId};
use time::{Duration, OffsetDateTime};

use super::Name;

kit::id! {
    /// An API key.
    ApiKeyId
}

impl About for ApiKeyId {
    const TYPE: &'static str = "api_key";
    fn id(&self) -> String {
        self.to_string()
    }
}

/// The key to make.
#[derive(Debug)]
pub(crate) struct NewApiKey {
    pub(crate) id: ApiKeyId,
    pub(crate) name: Name,
    /// Grants, in the order given and each once.
    pub(crate) scopes: Vec<String>,
    /// The end that was asked for.
    pub(crate) expires_at: Option<OffsetDateTime>,
}

impl NewApiKey {
    const DEFAULT_LIFETIME: Duration = Duration::days(90);
    const SHORTEST_LIFETIME: Duration = Duration::minutes(1);
    const LONGEST_LIFETIME: Duration = Duration::days(366);

    /// What is wrong with asking for this end at this time.
    pub(crate) fn end_violation(asked: OffsetDateTime, now: OffsetDateTime) -> Option<&'static str> {
        let span = now + Self::SHORTEST_LIFETIME..=now + Self::LONGEST_LIFETIME;
        (!span.contains(&asked)).then_some("must be a minute to 366 days ahead")
    }

    /// When the key ends, if it is made now by whom ends at `latest`: no key outlives the one that made it.
    ///
    /// # Errors
    /// INVALID_REQUEST for an end that is too near, too far, or after the maker's.
    pub(crate) fn end(&self, now: OffsetDateTime, latest: Option<OffsetDateTime>) -> Result<OffsetDateTime> {
        let Some(asked) = self.expires_at else {
            let end = now + Self::DEFAULT_LIFETIME;
            return Ok(latest.map_or(end, |latest| latest.min(end)));
        };
        let outlives = latest.is_some_and(|latest| asked > latest);
        let violation = outlives.then_some("must not be after the end of the calling key");
        match Self::end_violation(asked, now).or(violation) {
            None => Ok(asked),
            Some(violation) => Err(Error::violation("expires_at", violation)),
        }
    }
}

/// A key without its secret.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = crate::schema::api_keys)]
pub(crate) struct ApiKey {
    pub(crate) id: ApiKeyId,
    pub(crate) name: Name,
    pub(crate) public_id: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) creator_id: UserId,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
}
