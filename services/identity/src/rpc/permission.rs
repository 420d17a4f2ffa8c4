//! What there is to be permitted, and who may do it now.

use api::{
    identity::v1::{
        CheckPermissionRequest, CheckPermissionResponse, GetEffectivePermissionsRequest,
        GetEffectivePermissionsResponse, ListPermissionsRequest, ListPermissionsResponse, Permission, PermissionCheck,
    },
    policy::{METHODS, PERMISSIONS},
};
use kit::{
    auth::{OrgScope, admitted},
    page::Listing,
};
use tonic::{Request, Response, Status};

use super::Identity;
use crate::{
    store,
    wire::{self, PermissionQuestions},
};

pub(super) async fn list_permissions(
    identity: &Identity,
    request: Request<ListPermissionsRequest>,
) -> Result<Response<ListPermissionsResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let size = wire::page_size(request.page_size)?;
    let list = Listing::new(&identity.ring, "identity.ListPermissions", scope.org().0, &());
    let after: Option<String> = list.open(&request.page_token)?;
    let names = PERMISSIONS
        .iter()
        .copied()
        .filter(|name| after.as_deref().is_none_or(|after| *name > after));
    let page = list.page(names.take(size.get() + 1).collect(), size, |last| last.to_owned());
    let page = page.map(|name| {
        let asking = METHODS.iter().filter(|method| method.permission == name);
        let mut methods: Vec<String> = asking
            .map(|method| method.path.trim_start_matches('/').to_owned())
            .collect();
        methods.sort_unstable();
        Permission {
            name: name.to_owned(),
            methods,
        }
    });
    Ok(Response::new(ListPermissionsResponse {
        permissions: page.items,
        next_page_token: page.next,
    }))
}

pub(super) async fn check_permission(
    identity: &Identity,
    request: Request<CheckPermissionRequest>,
) -> Result<Response<CheckPermissionResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let asked = PermissionQuestions::parse(request, scope.principal())?;
    let held = identity
        .db
        .read(&scope, async |tx| store::role::held(tx, asked.principal).await)
        .await?;
    let checks = asked.permissions.into_iter().map(|permission| PermissionCheck {
        allowed: held.permissions().holds(&permission),
        permission,
    });
    Ok(Response::new(CheckPermissionResponse {
        checks: checks.collect(),
    }))
}

pub(super) async fn get_effective_permissions(
    identity: &Identity,
    request: Request<GetEffectivePermissionsRequest>,
) -> Result<Response<GetEffectivePermissionsResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let principal = wire::subject(&request, scope.principal())?;
    let (permission_version, position) = identity
        .db
        .read(&scope, async |tx| {
            // The version first: permissions may be newer than it says, never older.
            let version = store::organization::permission_version(tx).await?.unwrap_or(0);
            Ok((version, store::role::position(tx, principal).await?))
        })
        .await?;
    let (role, permissions) = match position {
        None => (String::new(), Vec::new()),
        Some(position) => (
            position.role.as_str().to_owned(),
            position.held.permissions().names().map(str::to_owned).collect(),
        ),
    };
    Ok(Response::new(GetEffectivePermissionsResponse {
        permissions,
        role,
        permission_version,
    }))
}
