//! The end of an account, at its owner's own word.

use api::{
    events::v1::{UserEpochChanged, event::Payload},
    identity::v1::{DeleteUserRequest, DeleteUserResponse},
};
use kit::{
    Error, Reason, Result,
    auth::{UserScope, admitted},
    db::Tx,
    failpoint,
    ids::{OrgId, Principal, UserId},
};
use tonic::{Request, Response, Status};

use crate::{
    forgetting::tell_anonymized,
    model::{Account, SessionId},
    rpc::{
        Identity,
        ending::end_sessions,
        grants::{an_owner_stays, tell_permissions_changed},
        reauthenticate::reauthenticate,
    },
    store,
    wire::Farewell,
};

pub(super) async fn delete_user(
    identity: &Identity,
    request: Request<DeleteUserRequest>,
) -> Result<Response<DeleteUserResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let farewell = Farewell::try_from(request)?;
    reauthenticate(identity, &scope, &farewell.password).await?;
    let user = scope.user();
    let mut ended = Vec::new();
    let answer = identity.db.write(&scope, async |tx| {
        let known_in = places(tx, user).await?;
        // In the order of all: a login holds the second factor, then organizations, then users, then what refers to them.
        store::totp::delete(tx, user).await?;
        for org in &known_in {
            tx.enter(*org, Principal::User(user)).await?;
            store::organization::lock(tx).await?;
        }
        let gone = || Error::new(Reason::SessionRevoked, "the session has ended");
        store::user::lock(tx, user).await?.ok_or_else(gone)?;
        failpoint::hit_in("identity.user_locked", &user.to_string()).await?;
        for org in &known_in {
            ended.extend(leave(tx, *org, user).await?);
        }
        // Accounts belong to no organization: what ends one is an event of the platform's.
        tx.enter(OrgId::PLATFORM, Principal::User(user)).await?;
        let epoch = store::user::delete(tx, user, &known_in).await?.ok_or_else(gone)?;
        for org in &known_in {
            let payload = UserEpochChanged {
                user_id: user.to_string(),
                epoch,
            };
            tx.tell_in(*org, Payload::UserEpochChanged(payload));
        }
        if farewell.anonymize {
            for account in store::user::anonymize(tx, user).await? {
                tell_anonymized(tx, &account);
            }
        }
        tx.about(&Account(user));
        Ok(DeleteUserResponse {})
    });
    let answer = answer.await?;
    identity.hide_all(&ended).await;
    Ok(answer)
}

/// The organizations that know a user, in the order of locks; the platform's among them for all.
async fn places(tx: &mut Tx, user: UserId) -> Result<Vec<OrgId>> {
    let mut places = store::user::list_orgs(tx, user).await?;
    places.extend(store::user::list_visited_orgs(tx, user).await?);
    places.push(OrgId::PLATFORM);
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// Takes the user out of an organization, which is locked, and ends their sessions of it.
async fn leave(tx: &mut Tx, org: OrgId, user: UserId) -> Result<Vec<SessionId>> {
    tx.enter(org, Principal::User(user)).await?;
    if let Some(member) = store::member::find(tx, user).await? {
        an_owner_stays(tx, &member).await?;
        store::member::delete(tx, user).await?;
        tx.acted("LeaveOrganization", &member);
        tell_permissions_changed(tx).await?;
    }
    end_sessions(tx, Some(user)).await
}
