//! Second factors: beginning one, putting it in force, taking it away, and new recovery codes.

use api::identity::v1::{
    ConfirmTotpRequest, ConfirmTotpResponse, DisableTotpRequest, DisableTotpResponse, EnrollTotpRequest,
    EnrollTotpResponse, RegenerateRecoveryCodesRequest, RegenerateRecoveryCodesResponse,
};
use kit::{
    Error, Reason, Result,
    auth::{UserScope, admitted},
    db::Tx,
    ids::{OrgId, Principal},
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{Account, Code, Letter, Mail, Password, RecoveryCodes, SessionId, TotpSecret},
    rpc::{
        reauthenticate::{Attempt, failed, reauthenticate},
        second_factor::{accepted_step, spend, spend_recovery_code},
        session::revoke_all,
    },
    store::{self, totp::Factor},
    wire::Proof,
};

pub(super) async fn enroll_totp(
    identity: &Identity,
    request: Request<EnrollTotpRequest>,
) -> Result<Response<EnrollTotpResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let password = Password::try_from(request)?;
    reauthenticate(identity, &scope, &password).await?;
    let user = scope.user();
    let secret = TotpSecret::generate();
    let sealed = secret.seal(&identity.ring, user);
    let answer = identity.db.write(&scope, async |tx| {
        at_home(tx, &scope).await?;
        let owner = store::user::find(tx, user).await?.ok_or_else(gone)?;
        if !store::totp::insert(tx, user, &sealed).await? {
            return Err(store::exists("totp"));
        }
        tx.about(&Account(user));
        Ok(EnrollTotpResponse {
            secret: secret.base32(),
            otpauth_uri: secret.uri(&owner.email),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn confirm_totp(
    identity: &Identity,
    request: Request<ConfirmTotpRequest>,
) -> Result<Response<ConfirmTotpResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let code = Code::try_from(request)?;
    let attempt = Attempt::begin(identity, &scope).await?;
    let user = scope.user();
    let mut ended = Vec::new();
    let answer = identity.db.write(&scope, async |tx| {
        at_home(tx, &scope).await?;
        let factor = store::totp::lock(tx, user).await?.ok_or_else(not_enrolled)?;
        if factor.confirmed {
            return Err(store::exists("totp"));
        }
        let step = accepted_step(identity, user, &factor, &code)?.ok_or_else(failed)?;
        store::totp::confirm(tx, user, step).await?;
        let codes = RecoveryCodes::generate(&identity.ring, user);
        store::totp::replace_recovery_codes(tx, user, &codes.hashes).await?;
        ended = changed(identity, tx, &scope, true).await?;
        Ok(ConfirmTotpResponse {
            recovery_codes: codes.texts,
        })
    });
    let answer = attempt.end(answer.await).await?;
    identity.post.ring();
    identity.hide_all(&ended).await;
    Ok(answer)
}

pub(super) async fn disable_totp(
    identity: &Identity,
    request: Request<DisableTotpRequest>,
) -> Result<Response<DisableTotpResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let proof = Proof::try_from(request)?;
    let attempt = Attempt::begin(identity, &scope).await?;
    let proven = attempt.prove(&proof.password).await;
    let user = scope.user();
    let mut ended = Vec::new();
    let answer = identity.db.write(&scope, async |tx| {
        proven?;
        at_home(tx, &scope).await?;
        let factor = in_force(tx, &scope).await?;
        let right = spend(identity, tx, user, &factor, &proof.code).await?
            || spend_recovery_code(identity, tx, user, &proof.code).await?;
        if !right {
            return Err(failed());
        }
        store::totp::delete(tx, user).await?;
        ended = changed(identity, tx, &scope, false).await?;
        Ok(DisableTotpResponse {})
    });
    let answer = attempt.end(answer.await).await?;
    identity.post.ring();
    identity.hide_all(&ended).await;
    Ok(answer)
}

pub(super) async fn regenerate_recovery_codes(
    identity: &Identity,
    request: Request<RegenerateRecoveryCodesRequest>,
) -> Result<Response<RegenerateRecoveryCodesResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let proof = Proof::try_from(request)?;
    let attempt = Attempt::begin(identity, &scope).await?;
    let proven = attempt.prove(&proof.password).await;
    let user = scope.user();
    let answer = identity.db.write(&scope, async |tx| {
        proven?;
        at_home(tx, &scope).await?;
        let factor = in_force(tx, &scope).await?;
        // Whoever found the codes on paper makes no new ones by them.
        if !spend(identity, tx, user, &factor, &proof.code).await? {
            return Err(failed());
        }
        let codes = RecoveryCodes::generate(&identity.ring, user);
        store::totp::replace_recovery_codes(tx, user, &codes.hashes).await?;
        tx.about(&Account(user));
        Ok(RegenerateRecoveryCodesResponse {
            recovery_codes: codes.texts,
        })
    });
    Ok(attempt.end(answer.await).await?)
}

/// Goes on in the organization of the caller's token: its trail tells of the call.
async fn at_home(tx: &mut Tx, scope: &UserScope) -> Result<()> {
    tx.enter(scope.org().unwrap_or(OrgId::PLATFORM), Principal::User(scope.user()))
        .await
}

/// The caller's factor, locked, if it is in force.
async fn in_force(tx: &mut Tx, scope: &UserScope) -> Result<Factor> {
    let factor = store::totp::lock(tx, scope.user()).await?;
    factor.filter(|factor| factor.confirmed).ok_or_else(not_enrolled)
}

/// What follows when the factor is in force or gone: the owner is written to, and the other sessions end.
async fn changed(identity: &Identity, tx: &mut Tx, scope: &UserScope, enabled: bool) -> Result<Vec<SessionId>> {
    let user = scope.user();
    let owner = store::user::find(tx, user).await?.ok_or_else(gone)?;
    let mail = Mail::new(owner.email, Letter::SecondFactorChanged { enabled });
    store::mail::enqueue(tx, &identity.ring, &mail).await?;
    let ended = revoke_all(tx, user, Some(SessionId(scope.session()))).await?;
    at_home(tx, scope).await?;
    tx.about(&Account(user));
    Ok(ended)
}

fn not_enrolled() -> Error {
    Error::new(Reason::ResourceNotFound, "the account has no second factor").with("resource", "totp")
}

fn gone() -> Error {
    Error::new(Reason::SessionRevoked, "the session has ended")
}
