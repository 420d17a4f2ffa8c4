//! API keys as rows; their text is `kit::crypto::ApiKey`, and no row holds it.

use diesel::prelude::*;
use kit::{db::About, ids::UserId};
use time::OffsetDateTime;

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
    pub(crate) expires_at: OffsetDateTime,
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
