//! Proving once more that it is the user who asks, before what a stolen session must not do.
//!
//! Each attempt is counted from its start, and given back when all that was asked for was right.

use kit::{Error, Reason, Result, auth::UserScope, rate::Limit};

use super::Identity;
use crate::{model::Password, store};

/// Proves the caller's password.
///
/// # Errors
/// REAUTHENTICATION_FAILED; RATE_LIMITED after too many of these; OVERLOADED.
pub(in crate::rpc) async fn reauthenticate(identity: &Identity, scope: &UserScope, password: &Password) -> Result<()> {
    let attempt = Attempt::begin(identity, scope).await?;
    let proven = attempt.prove(password).await;
    attempt.end(proven).await?;
    Ok(())
}

/// One error for wrong passwords and wrong codes: which of them it was is not told.
pub(in crate::rpc) fn failed() -> Error {
    Error::new(Reason::ReauthenticationFailed, "the password or the code is not right")
}

/// An attempt of the caller at proving who they are.
pub(in crate::rpc) struct Attempt<'a> {
    identity: &'a Identity,
    scope: &'a UserScope,
    limits: [(String, Limit); 1],
}

impl<'a> Attempt<'a> {
    /// Counts it, before anything is looked at.
    ///
    /// # Errors
    /// RATE_LIMITED.
    pub(in crate::rpc) async fn begin(identity: &'a Identity, scope: &'a UserScope) -> Result<Self> {
        let limits = [(format!("reauthenticate:{}", scope.user()), identity.guesses)];
        identity.limiter.check(&limits).await.into_result()?;
        Ok(Attempt {
            identity,
            scope,
            limits,
        })
    }

    /// Whether the password is the caller's: the epoch that it belongs to.
    ///
    /// # Errors
    /// REAUTHENTICATION_FAILED, OVERLOADED.
    pub(in crate::rpc) async fn prove(&self, password: &Password) -> Result<i64> {
        let known = self.identity.db.look(self.scope, store::password::find).await?;
        let hash = known.as_ref().and_then(|known| known.password_hash.as_ref());
        let right = self.identity.passwords.verify(password, hash).await?;
        known.filter(|_| right).map(|known| known.epoch).ok_or_else(failed)
    }

    /// Gives a success back to the limit. A failed proof is in the audit trail like everything that is denied.
    ///
    /// # Errors
    /// Those of the outcome.
    pub(in crate::rpc) async fn end<T>(self, outcome: Result<T>) -> Result<T> {
        if outcome.is_ok() {
            self.identity.limiter.refund(&self.limits).await;
        }
        outcome
    }
}
