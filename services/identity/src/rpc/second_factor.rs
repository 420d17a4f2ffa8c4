//! Codes of the second factor, presented with a password.

use kit::{
    Error, Result,
    db::Tx,
    ids::{Principal, UserId},
};

use super::Identity;
use crate::{
    model::{Code, TotpSecret, now},
    store::{self, totp::Factor},
};

/// What a login's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum SecondFactor {
    /// The account has no second factor in force.
    NotEnrolled,
    /// It was right, and works no more.
    Right,
    /// The account has a second factor, and no code came.
    Missing,
    /// It was not right, or was used before.
    Wrong,
}

/// Judges a login's code and spends a right one; what is spent is spent with the transaction's commit.
/// The transaction goes on in the user's name.
pub(in crate::rpc) async fn verify_at_login(
    identity: &Identity,
    tx: &mut Tx,
    user: UserId,
    code: Option<&str>,
) -> Result<SecondFactor> {
    tx.enter(tx.org(), Principal::User(user)).await?;
    let Some(factor) = store::totp::lock(tx, user).await?.filter(|factor| factor.confirmed) else {
        return Ok(SecondFactor::NotEnrolled);
    };
    let Some(code) = code.map(Code::new) else {
        return Ok(SecondFactor::Missing);
    };
    let right =
        spend(identity, tx, user, &factor, &code).await? || spend_recovery_code(identity, tx, user, &code).await?;
    Ok(if right {
        SecondFactor::Right
    } else {
        SecondFactor::Wrong
    })
}

/// Whether an application's code is right, for the first time, under the factor's lock.
pub(in crate::rpc) async fn spend(
    identity: &Identity,
    tx: &mut Tx,
    user: UserId,
    factor: &Factor,
    code: &Code,
) -> Result<bool> {
    let step = accepted_step(identity, user, factor, code)?;
    if let Some(step) = step {
        store::totp::update_last_step(tx, user, step).await?;
    }
    Ok(step.is_some())
}

/// Whether a recovery code is the user's, for the first time.
pub(in crate::rpc) async fn spend_recovery_code(
    identity: &Identity,
    tx: &mut Tx,
    user: UserId,
    code: &Code,
) -> Result<bool> {
    let hashes = code.recovery_hashes(&identity.ring, user);
    Ok(!hashes.is_empty() && store::totp::delete_recovery_code(tx, user, &hashes).await?)
}

/// The step that a right code is of.
pub(in crate::rpc) fn accepted_step(
    identity: &Identity,
    user: UserId,
    factor: &Factor,
    code: &Code,
) -> Result<Option<i64>> {
    let secret = TotpSecret::open(&identity.ring, &factor.sealed, user)
        .ok_or_else(|| Error::internal("a second factor's secret cannot be opened"))?;
    Ok(secret.accept(code, now(), factor.last_step))
}
