//! Access tokens: who signs them, and what peers verify them with.

use std::{sync::Arc, time::SystemTime};

use kit::{
    Result,
    auth::token::{ACCESS_LIFETIME, AccessClaims},
    ids::{OrgId, Principal},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::signing_keys::SigningKeys;

/// Signs with the key that is active.
pub(crate) struct Issuer {
    pub(crate) environment: Arc<str>,
    pub(crate) keys: Arc<SigningKeys>,
}

/// A signed access token.
pub(crate) struct AccessToken {
    pub(crate) text: String,
    pub(crate) expires_at: OffsetDateTime,
}

/// The versions that a token carries, so that verifiers know when it is out of date.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Versions {
    pub(crate) epoch: i64,
    pub(crate) permission_version: i64,
}

impl Issuer {
    /// A token for 5 minutes, or until `latest` if that is sooner. It names the organization that it is of, the platform's
    /// like any other, or none: whoever calls has seen that the principal is there.
    ///
    /// # Errors
    /// DEPENDENCY_UNAVAILABLE before any key is known.
    pub(crate) fn sign(
        &self,
        principal: Principal,
        org: impl Into<Option<OrgId>>,
        session: Uuid,
        versions: Versions,
        latest: OffsetDateTime,
    ) -> Result<AccessToken> {
        let expires_at = OffsetDateTime::from(SystemTime::now() + ACCESS_LIFETIME).min(latest);
        let claims = AccessClaims {
            principal,
            org: org.into(),
            session,
            epoch: versions.epoch,
            permission_version: versions.permission_version,
            expires_at: expires_at.into(),
        };
        Ok(AccessToken {
            text: self.keys.current()?.sign_access(&self.environment, &claims),
            expires_at,
        })
    }
}
