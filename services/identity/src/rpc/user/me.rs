//! The caller's own account.

use std::{collections::HashMap, time::Duration};

use api::{
    events::v1::{UserChanged, event::Payload},
    identity::v1::{GetMeRequest, GetMeResponse, UpdateUserRequest, UpdateUserResponse},
};
use kit::{
    Error, Reason,
    auth::{UserScope, admitted},
    failpoint,
    ids::{OrgId, UserId},
};
use tonic::{Request, Response, Status};

use crate::{
    model::{Account, Held, RoleId, SealedProfile},
    rpc::Identity,
    store,
    wire::{self, OwnChange},
};

/// How long a profile may come from Redis.
const PROFILE_KEPT: Duration = Duration::from_secs(30 * 60);

pub(super) async fn get_me(
    identity: &Identity,
    request: Request<GetMeRequest>,
) -> Result<Response<GetMeResponse>, Status> {
    let (scope, GetMeRequest {}): (UserScope, _) = admitted(request)?;
    let user = scope.user();
    let find = async || {
        identity
            .db
            .read(&scope, async |tx| store::user::find(tx, user).await)
            .await
    };
    let load = || async {
        let Some(profile) = find().await? else { return Ok(None) };
        let sealed = SealedProfile::seal(&identity.ring, &profile)?;
        Ok(Some((sealed, profile.version)))
    };
    let kept: Option<SealedProfile> = identity
        .users
        .get_or_load(&profile_key(user), PROFILE_KEPT, load)
        .await?;
    let profile = match kept.and_then(|kept| kept.open(&identity.ring, user)) {
        Some(profile) => Some(profile),
        // Sealed under a key that is gone.
        None => find().await?,
    };
    let profile = profile.ok_or_else(|| Error::new(Reason::SessionRevoked, "the session has ended"))?;
    // Permissions are never cached: they are read as they are now.
    let read = identity.db.read(&scope, async |tx| {
        let memberships = store::member::list_memberships(tx, user).await?;
        let roles: Vec<_> = memberships.iter().map(|one| (one.role_org_id, one.role_id)).collect();
        let grants = store::member::list_grants(tx, &roles).await?;
        let totp = store::totp::enrolled(tx, user).await?;
        Ok((memberships, grants, totp))
    });
    let (memberships, grants, totp) = read.await?;
    let mut by_role: HashMap<(OrgId, RoleId), Vec<String>> = HashMap::new();
    for (org, role, grant) in grants {
        by_role.entry((org, role)).or_default().push(grant);
    }
    let held: HashMap<_, _> = by_role
        .into_iter()
        .map(|(role, grants)| (role, Held::of(&grants)))
        .collect();
    let nothing = Held::default();
    let memberships = memberships.into_iter().map(|one| {
        let held = held.get(&(one.role_org_id, one.role_id)).unwrap_or(&nothing);
        wire::membership(one, held, scope.org())
    });
    Ok(Response::new(GetMeResponse {
        user: Some(wire::own_user(profile, totp)),
        memberships: memberships.collect(),
    }))
}

pub(super) async fn update_user(
    identity: &Identity,
    request: Request<UpdateUserRequest>,
) -> Result<Response<UpdateUserResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let OwnChange { etag, change } = OwnChange::try_from(request)?;
    let user = scope.user();
    let mut version = None;
    let answer = identity.db.write(&scope, async |tx| {
        let gone = || Error::new(Reason::SessionRevoked, "the session has ended");
        let before = store::user::lock(tx, user).await?.ok_or_else(gone)?;
        etag.expect(before.version, "account")?;
        failpoint::hit_in("identity.user_locked", &user.to_string()).await?;
        let profile = store::user::update(tx, user, &change).await?;
        version = Some(profile.version);
        for org in store::user::list_orgs(tx, user).await? {
            let payload = UserChanged {
                user_id: user.to_string(),
                first_name: profile.first_name.as_str().to_owned(),
                last_name: profile.last_name.as_str().to_owned(),
                version: profile.version,
            };
            tx.tell_in(org, Payload::UserChanged(payload));
        }
        tx.about(&Account(user));
        let totp = store::totp::enrolled(tx, user).await?;
        Ok(UpdateUserResponse {
            user: Some(wire::own_user(profile, totp)),
        })
    });
    let answer = answer.await?;
    // With Redis away the old names are seen until what is kept ends.
    if let Some(version) = version {
        let _ = identity.users.invalidate(&profile_key(user), version).await;
    }
    Ok(answer)
}

/// Where a user's profile is kept in Redis.
pub(super) fn profile_key(user: UserId) -> String {
    format!("{}.{user}", OrgId::PLATFORM)
}
