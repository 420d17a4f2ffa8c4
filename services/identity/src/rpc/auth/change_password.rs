//! Setting another password with the present one in hand.

use api::{
    events::v1::{UserEpochChanged, event::Payload},
    identity::v1::{ChangePasswordRequest, ChangePasswordResponse},
};
use kit::{
    Error, Reason,
    auth::{UserScope, admitted},
    failpoint,
    ids::{OrgId, Principal},
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{Account, Letter, Mail, SESSION_LIFETIME, Session, SessionId, now},
    rpc::{
        reauthenticate::{Attempt, failed},
        session::revoke_all,
    },
    store,
    wire::PasswordChange,
};

pub(super) async fn change_password(
    identity: &Identity,
    request: Request<ChangePasswordRequest>,
) -> Result<Response<ChangePasswordResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let user = scope.user();
    let gone = || Error::new(Reason::SessionRevoked, "the session has ended");
    let owner = identity.db.look(&scope, async |tx| store::user::find(tx, user).await);
    let owner = owner.await?.ok_or_else(gone)?;
    let change = PasswordChange::parse(request, &owner)?;
    let attempt = Attempt::begin(identity, &scope).await?;
    // After the first of two calls the present password is another one: what the second is answered, the transaction knows.
    let proven = match attempt.prove(&change.present).await {
        Ok(epoch) => Ok((epoch, identity.passwords.hash(&change.new).await?)),
        Err(error) => Err(error),
    };
    let (mut ended, mut opened) = (Vec::new(), None);
    let answer = identity.db.write(&scope, async |tx| {
        let (epoch, hash) = proven?;
        let present = store::session::find_active(tx, SessionId(scope.session()), user).await?;
        let device = present.ok_or_else(gone)?.device;
        failpoint::hit_in("identity.password_proven", &user.to_string()).await?;
        let org = match scope.org() {
            Some(org) if store::member::exists(tx, org, user).await? => org,
            Some(_) | None => OrgId::PLATFORM,
        };
        // The organization that is entered, then the user's row, then the sessions, in the order of all.
        tx.enter(org, Principal::User(user)).await?;
        store::organization::lock_entry(tx).await?;
        let epoch = store::password::update(tx, user, epoch, &hash)
            .await?
            .ok_or_else(failed)?;
        ended = revoke_all(tx, user, None).await?;
        tx.enter(org, Principal::User(user)).await?;
        tx.tell(Payload::UserEpochChanged(UserEpochChanged {
            user_id: user.to_string(),
            epoch,
        }));
        let mail = Mail::new(owner.email.clone(), Letter::PasswordChanged);
        store::mail::enqueue(tx, &identity.ring, &mail).await?;
        let session = opened.insert(Session {
            org_id: org,
            id: SessionId::new(),
            user_id: user,
            device,
            expires_at: now() + SESSION_LIFETIME,
        });
        let tokens = identity.open(tx, session).await?;
        tx.about(&Account(user));
        Ok(ChangePasswordResponse { tokens: Some(tokens) })
    });
    let answer = attempt.end(answer.await).await?;
    identity.post.ring();
    identity.hide_all(&ended).await;
    if let Some(session) = &opened {
        identity.show(session).await;
    }
    Ok(answer)
}
