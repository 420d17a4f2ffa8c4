//! Roles, and questions about permissions.

use api::identity::v1::{
    self, CheckPermissionRequest, CreateRoleRequest, DeleteRoleRequest, GetEffectivePermissionsRequest, PrincipalKind,
    UpdateRoleRequest,
};
use kit::{Error, Result, Violations, auth::permission::is_grant, ids, ids::Principal, page::PageSize};

use super::{auth::principal, timestamp};
use crate::model::{Description, Name, Role, RoleContent, RoleId};

/// The most permissions that a role or a key names, or a question asks for.
const MOST: usize = 200;
const LONGEST_PERMISSION: usize = 200;
const LONGEST_ETAG: usize = 64;

/// Well-formed grants, each once, in the order given; what is not is told by its index.
pub(super) fn grants(field: &str, asked: Vec<String>, violations: &mut Violations) -> Vec<String> {
    let mut grants = Vec::new();
    for (index, grant) in asked.into_iter().take(MOST).enumerate() {
        violations.check(
            grant.len() <= LONGEST_PERMISSION && is_grant(&grant),
            &format!("{field}[{index}]"),
            "must be <slice>.<resource>.<verb>, where * stands for a whole segment",
        );
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    grants
}

fn content(name: &str, description: String, asked: Vec<String>, violations: &mut Violations) -> Option<RoleContent> {
    let name = Name::parse("name", name, violations);
    let description = Description::parse("description", description, violations);
    violations.check(asked.len() <= MOST, "permissions", "must be at most 200 permissions");
    let mut grants = grants("permissions", asked, violations);
    grants.sort_unstable();
    name.map(|name| RoleContent {
        name,
        description,
        grants,
    })
}

impl TryFrom<CreateRoleRequest> for RoleContent {
    type Error = Error;

    fn try_from(request: CreateRoleRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let content = content(&request.name, request.description, request.permissions, &mut violations);
        violations.finish(content)
    }
}

/// A change to a role that was seen at an etag.
#[derive(Debug)]
pub(crate) struct RoleChange {
    pub(crate) id: RoleId,
    pub(crate) etag: String,
    pub(crate) content: RoleContent,
}

impl TryFrom<UpdateRoleRequest> for RoleChange {
    type Error = Error;

    fn try_from(request: UpdateRoleRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("role_id", &request.role_id, &mut violations);
        let content = content(&request.name, request.description, request.permissions, &mut violations);
        violations.check(!request.etag.is_empty(), "etag", "is required");
        violations.length("etag", &request.etag, 0, LONGEST_ETAG);
        violations.finish(id.zip(content).map(|(id, content)| RoleChange {
            id,
            etag: request.etag,
            content,
        }))
    }
}

/// A role to delete, if it still has the etag.
#[derive(Debug)]
pub(crate) struct RoleDeletion {
    pub(crate) id: RoleId,
    pub(crate) etag: Option<String>,
}

impl TryFrom<DeleteRoleRequest> for RoleDeletion {
    type Error = Error;

    fn try_from(request: DeleteRoleRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("role_id", &request.role_id, &mut violations);
        violations.length("etag", &request.etag, 0, LONGEST_ETAG);
        let etag = Some(request.etag).filter(|etag| !etag.is_empty());
        violations.finish(id.map(|id| RoleDeletion { id, etag }))
    }
}

pub(crate) fn role_id(text: &str) -> Result<RoleId> {
    let mut violations = Violations::new();
    let id = ids::required("role_id", text, &mut violations);
    violations.finish(id)
}

/// The size of a page of a list that has no filter.
pub(crate) fn page_size(asked: i32) -> Result<PageSize> {
    let mut violations = Violations::new();
    let size = PageSize::parse(asked, &mut violations);
    violations.finish(size)
}

/// A role and what is written in it.
pub(crate) fn role(role: Role, grants: Vec<String>) -> v1::Role {
    v1::Role {
        id: role.id.to_string(),
        name: role.name.as_str().to_owned(),
        description: role.description.as_str().to_owned(),
        permissions: grants,
        system: role.is_system(),
        created_at: Some(timestamp(role.created_at)),
        etag: role.etag(),
    }
}

/// May a principal do these things?
#[derive(Debug)]
pub(crate) struct PermissionQuestions {
    pub(crate) principal: Principal,
    pub(crate) permissions: Vec<String>,
}

impl PermissionQuestions {
    pub(crate) fn parse(request: CheckPermissionRequest, caller: Principal) -> Result<Self> {
        let mut violations = Violations::new();
        let principal = whom(request.principal_kind, &request.principal_id, caller, &mut violations);
        let count = request.permissions.len();
        violations.check(
            (1..=MOST).contains(&count),
            "permissions",
            "must be 1 to 200 permissions",
        );
        for (index, permission) in request.permissions.iter().take(MOST).enumerate() {
            violations.check(
                permission.len() <= LONGEST_PERMISSION && is_grant(permission) && !permission.contains('*'),
                &format!("permissions[{index}]"),
                "must be <slice>.<resource>.<verb> without wildcards",
            );
        }
        violations.finish(principal.map(|principal| PermissionQuestions {
            principal,
            permissions: request.permissions,
        }))
    }
}

/// Whose permissions are asked for.
pub(crate) fn subject(request: &GetEffectivePermissionsRequest, caller: Principal) -> Result<Principal> {
    let mut violations = Violations::new();
    let principal = whom(request.principal_kind, &request.principal_id, caller, &mut violations);
    violations.finish(principal)
}

/// The caller where neither kind nor id is given.
fn whom(kind: i32, id: &str, caller: Principal, violations: &mut Violations) -> Option<Principal> {
    if kind == i32::from(PrincipalKind::Unspecified) && id.is_empty() {
        return Some(caller);
    }
    principal(kind, id, violations)
}
