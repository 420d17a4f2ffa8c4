//! Setting another password.

use api::{
    events::v1::{UserEpochChanged, event::Payload},
    identity::v1::{
        RequestPasswordResetRequest, RequestPasswordResetResponse, ResetPasswordRequest, ResetPasswordResponse,
    },
};
use kit::{
    Error, Violations,
    auth::{PublicScope, admitted},
    failpoint,
    ids::{OrgId, Principal},
};
use tonic::{Request, Response, Status};

use crate::{
    model::{Account, Email, EmailToken, Letter, Mail, Purpose, RESET_LIFETIME, ResetId, now},
    rpc::{Identity, session::revoke_all},
    store,
    wire::{NewPassword, email_token_invalid},
};

pub(super) async fn request_password_reset(
    identity: &Identity,
    request: Request<RequestPasswordResetRequest>,
) -> Result<Response<RequestPasswordResetResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let mut violations = Violations::new();
    let email = Email::parse("email", &request.email, &mut violations);
    let email = violations.finish(email)?;
    // With an account and without one the same is done and written.
    let answer = identity.db.write(&scope, async |tx| {
        let account = store::lookup::login_account(tx, &email, None).await?;
        let account = account.filter(|account| !account.suspended && !account.deleted);
        let user = account.map(|account| account.user_id);
        let id = ResetId::new();
        if identity.post.may_send(&email).await {
            let token = EmailToken::new(Purpose::PasswordReset, id.0);
            let hash = token.hash(&identity.ring);
            store::reset::insert(tx, id, user, &hash, now() + RESET_LIFETIME).await?;
            let letter = Letter::PasswordReset {
                token: token.into_text(),
            };
            let mail = match user {
                Some(_) => Mail::new(email.clone(), letter),
                None => Mail::to_nobody(letter),
            };
            store::mail::enqueue(tx, &identity.ring, &mail).await?;
        }
        match user {
            Some(user) => tx.about(&Account(user)),
            None => tx.about(&id),
        }
        Ok(RequestPasswordResetResponse {})
    });
    let answer = answer.await?;
    identity.post.ring();
    Ok(answer)
}

pub(super) async fn reset_password(
    identity: &Identity,
    request: Request<ResetPasswordRequest>,
) -> Result<Response<ResetPasswordResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let new = NewPassword::try_from(request)?;
    let hash = identity.passwords.hash(&new.password).await?;
    let mut ended = Vec::new();
    let answer = identity.db.write(&scope, async |tx| {
        let id = ResetId(new.token.id());
        let requested = store::reset::find(tx, id).await?.ok_or_else(email_token_invalid)?;
        if !requested.open || !new.token.matches(&identity.ring, &requested.token_hash) {
            return Err(email_token_invalid());
        }
        let user = requested.user.ok_or_else(email_token_invalid)?;
        // The user's row first, as whoever opens a session takes it: what is opened before is ended here.
        tx.enter(OrgId::PLATFORM, Principal::User(user)).await?;
        let set = store::reset::update_password(tx, user, &hash).await?;
        let (epoch, email) = set.ok_or_else(email_token_invalid)?;
        failpoint::hit_in("identity.user_locked", &user.to_string()).await?;
        if !store::reset::delete_of_user(tx, user).await?.contains(&id) {
            return Err(email_token_invalid());
        }
        let profile = store::user::find(tx, user).await?.ok_or_else(email_token_invalid)?;
        if new.password.is_one_of(&[email.as_str(), profile.username.as_str()]) {
            return Err(Error::violation("password", "must not be the account's own name"));
        }
        ended = revoke_all(tx, user, None).await?;
        store::mail::enqueue(tx, &identity.ring, &Mail::new(email.clone(), Letter::PasswordChanged)).await?;

        let account = store::lookup::login_account(tx, &email, None).await?;
        let home = account
            .and_then(|account| account.home_org_id)
            .unwrap_or(OrgId::PLATFORM);
        tx.enter(home, Principal::User(user)).await?;
        tx.tell(Payload::UserEpochChanged(UserEpochChanged {
            user_id: user.to_string(),
            epoch,
        }));
        tx.about(&Account(user));
        Ok(ResetPasswordResponse {})
    });
    let answer = answer.await?;
    identity.post.ring();
    identity.hide_all(&ended).await;
    Ok(answer)
}
