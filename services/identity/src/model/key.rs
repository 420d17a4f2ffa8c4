//! API keys as rows; their text is `kit::crypto::ApiKey`, and no row holds it.

use diesel::prelude::*;
use kit::{Error, Result, db::About, ids::UserId};
use time::{Duration, OffsetDateTime};

use super::{Description, Name};

kit::id! {
    /// An API key.
    ApiKeyId
}

kit::id! {
    /// A service account.
    ServiceAccountId
}

impl About for ServiceAccountId {
    const TYPE: &'static str = "service_account";
    fn id(&self) -> String {
        self.to_string()
    }
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
    /// The service account that was asked for.
    pub(crate) service_account: Option<ServiceAccountId>,
}

/// Whose a key is, and until when it can last at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) creator: UserId,
    /// None: the key is its creator's.
    pub(crate) service_account: Option<ServiceAccountId>,
    /// The end of the calling key, which no key that it makes outlives.
    pub(crate) latest: Option<OffsetDateTime>,
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
    pub(crate) last_used_at: Option<OffsetDateTime>,
    pub(crate) revoked_at: Option<OffsetDateTime>,
    pub(crate) service_account_id: Option<ServiceAccountId>,
}

impl ApiKey {
    /// The key that takes this one's place from now on: as long-lived, unless the calling key ends sooner.
    pub(crate) fn successor(&self, now: OffsetDateTime, latest: Option<OffsetDateTime>) -> (NewApiKey, OffsetDateTime) {
        let end = now + (self.expires_at - self.created_at);
        let new = NewApiKey {
            id: ApiKeyId::new(),
            name: self.name.clone(),
            scopes: self.scopes.clone(),
            expires_at: None,
            service_account: self.service_account_id,
        };
        (new, latest.map_or(end, |latest| latest.min(end)))
    }

    /// Whether an owner of new keys could have made this one: a service account's is anybody's who may make keys of it,
    /// a creator's is the creator's alone.
    pub(crate) fn could_be_made_by(&self, owner: Owner) -> bool {
        self.service_account_id.is_some() || (owner.service_account.is_none() && owner.creator == self.creator_id)
    }
}

/// The service account to make.
#[derive(Debug)]
pub(crate) struct NewServiceAccount {
    pub(crate) id: ServiceAccountId,
    pub(crate) name: Name,
    pub(crate) description: Description,
    /// The role's name.
    pub(crate) role: String,
}

/// A caller that is no person.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct ServiceAccount {
    pub(crate) id: ServiceAccountId,
    pub(crate) name: Name,
    pub(crate) description: Description,
    /// None for a disabled one whose role is gone.
    pub(crate) role: Option<Name>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) disabled_at: Option<OffsetDateTime>,
}
