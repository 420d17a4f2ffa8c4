//! What the gate asks of identity.

use async_trait::async_trait;
use uuid::Uuid;

use super::permission::PermissionSet;
use crate::{
    error::Result,
    ids::{OrgId, Principal},
};

/// The source of keys, permissions and sessions: identity itself, or identity over gRPC.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// The public keys that access tokens verify against, as GetSigningKeys answers them: vouched for by the root key.
    async fn signing_keys(&self) -> Result<String>;

    /// What a principal may do in an organization, and the permission version that this is of.
    async fn permission_set(&self, org: OrgId, principal: Principal) -> Result<(PermissionSet, i64)>;

    /// Whether a token's session still stands.
    async fn session_active(&self, session: Uuid, principal: Principal, epoch: i64) -> Result<bool>;

    /// An access token for an API key.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID for a key that is unknown, expired or revoked.
    async fn exchange_api_key(&self, key: &str) -> Result<String>;
}
