//! The caller's own account.

use api::identity::v1::{
    DeleteUserRequest, DeleteUserResponse, GetMeRequest, GetMeResponse, UpdateUserRequest, UpdateUserResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{Held, RoleId, SealedProfile},
    store, wire,
};
use kit::{
    Error, Reason,
    auth::{UserScope, admitted},
    ids::OrgId,
};
use std::{collections::HashMap, time::Duration};

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
    let key = format!("{}.{user}", OrgId::PLATFORM);
    let kept: Option<SealedProfile> = identity.users.get_or_load(&key, PROFILE_KEPT, load).await?;
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
        Ok((memberships, grants))
    });
    let (memberships, grants) = read.await?;
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
        user: Some(profile.into()),
        memberships: memberships.collect(),
    }))
}

pub(super) async fn update_user(
    _identity: &Identity,
    _request: Request<UpdateUserRequest>,
) -> Result<Response<UpdateUserResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn delete_user(
    _identity: &Identity,
    _request: Request<DeleteUserRequest>,
) -> Result<Response<DeleteUserResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
