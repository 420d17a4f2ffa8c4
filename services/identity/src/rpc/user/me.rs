//! The caller's own account.

use std::collections::HashMap;

use api::{
    events::v1::{UserChanged, event::Payload},
    identity::v1::{GetMeRequest, GetMeResponse, UpdateUserRequest, UpdateUserResponse},
};
use kit::{
    Error, Reason,
    auth::{UserScope, admitted},
    failpoint,
    ids::OrgId,
    views::View,
};
use prost::Message;
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use crate::{
    model::{Account, Held, RoleId},
    rpc::Identity,
    store::{self, own_view},
    wire::{self, OwnChange},
};

pub(super) async fn get_me(
    identity: &Identity,
    request: Request<GetMeRequest>,
) -> Result<Response<GetMeResponse>, Status> {
    let (scope, GetMeRequest {}): (UserScope, _) = admitted(request)?;
    let user = scope.user();
    let context = format!("identity own view|{user}").into_bytes();
    let open = |sealed: &[u8]| {
        let body = identity.ring.open(sealed, &context).ok()?;
        GetMeResponse::decode(body.expose_secret()).ok()
    };
    let load = || async {
        let Some((value, shows)) = read_own(identity, &scope).await? else {
            return Ok(None);
        };
        let body = identity.ring.seal(&value.encode_to_vec(), &context);
        Ok(Some(View { value, body, shows }))
    };
    let answer = identity.own_views.get_or_load(&user.to_string(), open, load).await?;
    let answer = answer.ok_or_else(|| Error::new(Reason::SessionRevoked, "the session has ended"))?;
    let mut answer = GetMeResponse::clone(&answer);
    let current = scope.org().map(|org| org.to_string());
    for membership in &mut answer.memberships {
        membership.current = current.as_ref() == Some(&membership.organization_id);
    }
    Ok(Response::new(answer))
}

/// What a user is shown of the own account, of no session in particular, and the parts that it shows.
async fn read_own(identity: &Identity, scope: &UserScope) -> kit::Result<Option<(GetMeResponse, Vec<String>)>> {
    let user = scope.user();
    let read = identity.db.read(scope, async |tx| {
        let Some(profile) = store::user::find(tx, user).await? else {
            return Ok(None);
        };
        let memberships = store::member::list_memberships(tx, user).await?;
        let roles: Vec<_> = memberships.iter().map(|one| (one.role_org_id, one.role_id)).collect();
        let grants = store::member::list_grants(tx, &roles).await?;
        let totp = store::totp::enrolled(tx, user).await?;
        // Also those that are not shown now: deleted ones may come back.
        let orgs = store::user::list_orgs(tx, user).await?;
        Ok(Some((profile, memberships, grants, totp, orgs)))
    });
    let Some((profile, memberships, grants, totp, orgs)) = read.await? else {
        return Ok(None);
    };
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
        wire::membership(one, held)
    });
    let answer = GetMeResponse {
        user: Some(wire::own_user(profile, totp)),
        memberships: memberships.collect(),
    };
    let shows = orgs.into_iter().map(own_view::organization);
    Ok(Some((answer, shows.chain([own_view::user(user)]).collect())))
}

pub(super) async fn update_user(
    identity: &Identity,
    request: Request<UpdateUserRequest>,
) -> Result<Response<UpdateUserResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let OwnChange { etag, change } = OwnChange::try_from(request)?;
    let user = scope.user();
    let answer = identity.db.write(&scope, async |tx| {
        let gone = || Error::new(Reason::SessionRevoked, "the session has ended");
        let before = store::user::lock(tx, user).await?.ok_or_else(gone)?;
        etag.expect(before.version, "account")?;
        failpoint::hit_in("identity.user_locked", &user.to_string()).await?;
        let profile = store::user::update(tx, user, &change).await?;
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
    Ok(answer.await?)
}
