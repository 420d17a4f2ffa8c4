//! Becoming a user: nothing exists before the address is proven, and nobody learns whose addresses are known.

use api::{
    events::v1::{UserChanged, event::Payload},
    identity::v1::{SignUpRequest, SignUpResponse, VerifyEmailRequest, VerifyEmailResponse},
};
use kit::{
    Result,
    auth::{PublicScope, admitted},
    failpoint,
    ids::{OrgId, Principal, UserId},
};
use tonic::{Request, Response, Status};

use crate::{
    model::{
        Account, EmailToken, Letter, Mail, NewAccount, PendingAccount, Purpose, RoleId, SIGN_UP_LIFETIME, SignUpId,
        Taken, now,
    },
    rpc::{Identity, organization::insert_organization},
    store,
    wire::{Verification, email_token_invalid, timestamp},
};

pub(super) async fn sign_up(
    identity: &Identity,
    request: Request<SignUpRequest>,
) -> Result<Response<SignUpResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let new = NewAccount::try_from(request)?;
    let password_hash = identity.passwords.hash(&new.password).await?;
    // With an account and without one the same is done and kept; only what the message says differs.
    let answer = identity.db.write(&scope, async |tx| {
        let taken = store::sign_up::taken(tx, &new.email, &new.username, new.organization_slug.as_ref()).await?;
        refuse_taken(taken)?;
        let id = SignUpId::new();
        let expires_at = now() + SIGN_UP_LIFETIME;
        if identity.post.may_send(&new.email).await {
            let pending = PendingAccount::new(&new, &password_hash);
            let token = EmailToken::new(Purpose::SignUp, id.0);
            let (address, hash) = (identity.post.address(&new.email), token.hash(&identity.ring));
            let content = pending.seal(&identity.ring, id)?;
            store::sign_up::insert(tx, id, &address, &hash, &content, expires_at).await?;
            let letter = if taken.email {
                Letter::AccountExists
            } else {
                Letter::VerifyEmail {
                    token: token.into_text(),
                }
            };
            store::mail::enqueue(tx, &identity.ring, &Mail::new(new.email.clone(), letter)).await?;
        }
        tx.about(&id);
        Ok(SignUpResponse {
            expires_at: Some(timestamp(expires_at)),
        })
    });
    let answer = answer.await?;
    identity.post.ring();
    Ok(answer)
}

pub(super) async fn verify_email(
    identity: &Identity,
    request: Request<VerifyEmailRequest>,
) -> Result<Response<VerifyEmailResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let asked = Verification::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let id = SignUpId(asked.token.id());
        let waiting = store::sign_up::find(tx, id).await?.ok_or_else(email_token_invalid)?;
        if !waiting.open || !asked.token.matches(&identity.ring, &waiting.token_hash) {
            return Err(email_token_invalid());
        }
        let mut account = PendingAccount::open(&identity.ring, id, &waiting.content)?;
        let address = identity.post.address(&account.email);
        if !store::sign_up::lock_address(tx, &address).await?.contains(&id) {
            return Err(email_token_invalid());
        }
        account.username = asked.username.clone().unwrap_or(account.username);
        account.organization_slug = asked.organization_slug.clone().or(account.organization_slug);
        let (username, slug) = (&account.username, account.organization_slug.as_ref());
        let taken = store::sign_up::taken(tx, &account.email, username, slug).await?;
        if taken.email {
            return Err(email_token_invalid());
        }
        refuse_taken(taken)?;
        failpoint::hit_in("identity.address_locked", account.email.as_str()).await?;
        store::sign_up::delete_of_address(tx, &address).await?;

        let (user, org) = (UserId::new(), OrgId::new());
        tx.enter(org, Principal::User(user)).await?;
        let (name, slug) = (&account.organization_name, account.organization_slug.as_ref());
        let slug = insert_organization(tx, name, slug, "organization_slug").await?;
        store::user::insert(tx, user, &account).await?;
        store::member::insert(tx, user, OrgId::PLATFORM, RoleId::OWNER).await?;
        tx.about(&Account(user));
        tx.tell(Payload::UserChanged(UserChanged {
            user_id: user.to_string(),
            first_name: account.first_name.as_str().to_owned(),
            last_name: account.last_name.as_str().to_owned(),
            version: 1,
        }));
        identity.admins.welcome(tx, user, &account.email).await?;
        Ok(VerifyEmailResponse {
            user_id: user.to_string(),
            organization_id: org.to_string(),
            organization_slug: slug.as_str().to_owned(),
        })
    });
    Ok(answer.await?)
}

fn refuse_taken(taken: Taken) -> Result<()> {
    match (taken.username, taken.slug) {
        (true, _) => Err(store::exists("username")),
        (false, true) => Err(store::exists("organization_slug")),
        (false, false) => Ok(()),
    }
}
