//! Who is kept out: a member, by their organization; an account of everything, by the platform.

use api::{
    events::v1::{PermissionsChanged, SessionRevoked, UserEpochChanged, event::Payload},
    identity::v1::{ReactivateUserRequest, ReactivateUserResponse, SuspendUserRequest, SuspendUserResponse},
};
use kit::{
    Error, Result,
    auth::{OrgScope, admitted},
    db::Tx,
    ids::{OrgId, UserId},
};
use tonic::{Request, Response, Status};

use crate::{
    model::{Account, Held, Member, SessionId},
    rpc::{
        Identity,
        ending::end_sessions,
        grants::{an_owner_stays, caller, tell_permissions_changed},
    },
    store,
    wire::{self, Suspension},
};

pub(super) async fn suspend_user(
    identity: &Identity,
    request: Request<SuspendUserRequest>,
) -> Result<Response<SuspendUserResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let asked = Suspension::try_from(request)?;
    let mut ended = Vec::new();
    let answer = identity.db.write(&scope, async |tx| {
        let caller = caller(tx, &scope).await?;
        ended = if scope.org() == OrgId::PLATFORM {
            suspend_account(tx, &caller, &asked).await?
        } else {
            suspend_member(tx, &caller, &asked).await?
        };
        tx.about(&Account(asked.user));
        Ok(SuspendUserResponse {})
    });
    let answer = answer.await?;
    identity.hide_all(&ended).await;
    Ok(answer)
}

pub(super) async fn reactivate_user(
    identity: &Identity,
    request: Request<ReactivateUserRequest>,
) -> Result<Response<ReactivateUserResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let user = wire::user_to_reactivate(&request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let caller = caller(tx, &scope).await?;
        if scope.org() == OrgId::PLATFORM {
            set_account_suspended(tx, &caller, user, false, "").await?;
        } else {
            let member = member_below(tx, &caller, user).await?;
            if store::suspension::delete(tx, member.user_id).await? {
                tell_permissions_changed(tx).await?;
            }
        }
        tx.about(&Account(user));
        Ok(ReactivateUserResponse {})
    });
    Ok(answer.await?)
}

/// A member who holds nothing that the caller does not.
async fn member_below(tx: &mut Tx, caller: &Held, user: UserId) -> Result<Member> {
    let not_found = || Error::not_found("user", user);
    let member = store::member::find(tx, user).await?.ok_or_else(not_found)?;
    caller.may_give(&store::role::held_by_role(tx, member.role_org_id, member.role_id).await?)?;
    Ok(member)
}

async fn suspend_member(tx: &mut Tx, caller: &Held, asked: &Suspension) -> Result<Vec<SessionId>> {
    let member = member_below(tx, caller, asked.user).await?;
    an_owner_stays(tx, &member).await?;
    if !store::suspension::insert(tx, asked.user, &asked.reason).await? {
        return Ok(Vec::new());
    }
    let ended = end_sessions(tx, Some(asked.user)).await?;
    tell_permissions_changed(tx).await?;
    Ok(ended)
}

async fn suspend_account(tx: &mut Tx, caller: &Held, asked: &Suspension) -> Result<Vec<SessionId>> {
    if let Some(member) = store::member::find(tx, asked.user).await? {
        an_owner_stays(tx, &member).await?;
    }
    if !set_account_suspended(tx, caller, asked.user, true, &asked.reason).await? {
        return Ok(Vec::new());
    }
    let ended = store::suspension::end_account_sessions(tx, asked.user).await?;
    for session in &ended {
        let payload = SessionRevoked {
            session_id: session.id.to_string(),
        };
        tx.tell_in(session.org_id, Payload::SessionRevoked(payload));
    }
    Ok(ended.into_iter().map(|session| session.id).collect())
}

/// Suspends an account or lets it in again, and tells each of its organizations; `false` if nothing has changed.
async fn set_account_suspended(tx: &mut Tx, caller: &Held, user: UserId, suspend: bool, reason: &str) -> Result<bool> {
    caller.may_give(&store::suspension::held_anywhere(tx, user).await?)?;
    let renewed = store::suspension::renew_account_permissions(tx, user, suspend).await?;
    let state = store::suspension::set_account_suspended(tx, user, suspend, reason).await?;
    let state = state.ok_or_else(|| Error::not_found("user", user))?;
    if !state.changed {
        return Ok(false);
    }
    for one in &renewed {
        let payload = PermissionsChanged {
            permission_version: one.permission_version,
        };
        tx.tell_in(one.org_id, Payload::PermissionsChanged(payload));
    }
    if suspend {
        let epoch = UserEpochChanged {
            user_id: user.to_string(),
            epoch: state.epoch,
        };
        // One without an organization is told of in the platform's.
        let mut orgs: Vec<OrgId> = renewed.iter().map(|one| one.org_id).collect();
        if orgs.is_empty() {
            orgs.push(OrgId::PLATFORM);
        }
        for org in orgs {
            tx.tell_in(org, Payload::UserEpochChanged(epoch.clone()));
        }
    }
    Ok(true)
}
