//! What there is to be permitted, and who is told who may do it.

use api::{
    identity::v1::*,
    policy::{METHODS, PERMISSIONS},
};
use kit::auth::PermissionSet;
use tonic::Status;
use uuid::Uuid;

use crate::house::{House, reason, violations};

impl House {
    pub(crate) async fn effective(
        &self,
        credential: &str,
        kind: PrincipalKind,
        id: &str,
    ) -> Result<GetEffectivePermissionsResponse, Status> {
        let request = GetEffectivePermissionsRequest {
            principal_kind: kind.into(),
            principal_id: id.to_owned(),
        };
        let answer = self.roles(credential).get_effective_permissions(request).await?;
        Ok(answer.into_inner())
    }

    /// Which of these a principal may do.
    async fn check(
        &self,
        credential: &str,
        kind: PrincipalKind,
        id: &str,
        permissions: &[&str],
    ) -> Result<Vec<bool>, Status> {
        let request = CheckPermissionRequest {
            principal_kind: kind.into(),
            principal_id: id.to_owned(),
            permissions: permissions.iter().map(|&permission| permission.to_owned()).collect(),
        };
        let checks = self
            .roles(credential)
            .check_permission(request)
            .await?
            .into_inner()
            .checks;
        let asked: Vec<&str> = checks.iter().map(|check| check.permission.as_str()).collect();
        assert_eq!(asked, permissions);
        Ok(checks.iter().map(|check| check.allowed).collect())
    }
}

#[tokio::test]
async fn every_permission_is_listed_with_the_methods_that_ask_for_it() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let viewer = house.colleague(&ada, "viewer", "viewer").await;
    let (mut seen, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListPermissionsRequest {
            page_size: 7,
            page_token,
        };
        let page = house
            .roles(viewer.token())
            .list_permissions(request)
            .await
            .unwrap()
            .into_inner();
        seen.extend(page.permissions);
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    let names: Vec<&str> = seen.iter().map(|permission| permission.name.as_str()).collect();
    assert_eq!((names.as_slice(), pages), (PERMISSIONS, PERMISSIONS.len().div_ceil(7)));
    let asked: usize = seen.iter().map(|permission| permission.methods.len()).sum();
    assert_eq!(
        asked,
        METHODS.iter().filter(|method| !method.permission.is_empty()).count()
    );
    let roles = seen.iter().find(|permission| permission.name == "identity.role.read");
    assert_eq!(
        roles.unwrap().methods,
        ["GetRole", "ListPermissions", "ListRoles"].map(|name| format!("board3.identity.v1.RoleService/{name}"))
    );
    let request = ListPermissionsRequest {
        page_size: -1,
        page_token: "x".to_owned(),
    };
    let refused = house.roles(ada.token()).list_permissions(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["page_size"]);
    let request = ListPermissionsRequest {
        page_size: 0,
        page_token: "x".to_owned(),
    };
    assert_eq!(
        reason(house.roles(ada.token()).list_permissions(request).await),
        "PAGE_TOKEN_INVALID"
    );
}

#[tokio::test]
async fn everybody_may_ask_what_they_may_do() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let nobody = PrincipalKind::Unspecified;
    let asked = ["designs.design.read", "designs.design.write", "designs.castle.read"];
    for (role, allowed) in [
        ("viewer", [true, false, false]),
        ("operator", [true, false, false]),
        ("editor", [true, true, false]),
        ("admin", [true, true, false]),
        ("owner", [true, true, false]),
    ] {
        let person = house.colleague(&ada, role, role).await;
        assert_eq!(
            house.check(person.token(), nobody, "", &asked).await.unwrap(),
            allowed,
            "{role}"
        );
        let own = house.effective(person.token(), nobody, "").await.unwrap();
        assert_eq!(own.role, role);
        let roles = house.roles(ada.token()).list_roles(ListRolesRequest::default()).await;
        let roles = roles.unwrap().into_inner().roles;
        let grants = &roles.iter().find(|listed| listed.name == role).unwrap().permissions;
        let expected: Vec<&str> = PermissionSet::resolve(grants).names().collect();
        assert_eq!(own.permissions, expected);
        // The same about oneself by name, and when somebody else asks.
        for token in [person.token(), ada.token()] {
            let other = house.effective(token, PrincipalKind::User, &person.user).await.unwrap();
            assert_eq!(
                (other.role, other.permissions),
                (own.role.clone(), own.permissions.clone())
            );
        }
    }
}

#[tokio::test]
async fn a_key_is_told_with_the_role_that_it_comes_from() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let own = house
        .key(ada.token(), &["designs.*.read", "identity.permission.read"])
        .await
        .unwrap();
    let told = house
        .effective(&own.secret, PrincipalKind::Unspecified, "")
        .await
        .unwrap();
    assert_eq!(told.role, "owner");
    assert!(told.permissions.contains(&"designs.design.read".to_owned()));
    assert!(!told.permissions.contains(&"designs.design.write".to_owned()));
    assert_eq!(told.permission_version, 1);
    let account = house.service_account(ada.token(), "ci", "viewer").await.unwrap();
    let key = house
        .key_of(ada.token(), &account.id, &["designs.*.read"])
        .await
        .unwrap()
        .api_key
        .unwrap();
    let told = house
        .effective(ada.token(), PrincipalKind::ApiKey, &key.id)
        .await
        .unwrap();
    assert_eq!(told.role, "viewer");
    house.revoke_key(ada.token(), &key.id).await.unwrap();
    let told = house
        .effective(ada.token(), PrincipalKind::ApiKey, &key.id)
        .await
        .unwrap();
    assert_eq!((told.role.as_str(), told.permissions.len()), ("", 0));
}

#[tokio::test]
async fn who_is_not_in_the_organization_holds_nothing_in_it() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let key = house
        .key(eve.token(), &["designs.*.read"])
        .await
        .unwrap()
        .api_key
        .unwrap();
    for (kind, id) in [
        (PrincipalKind::User, eve.user),
        (PrincipalKind::ApiKey, key.id),
        (PrincipalKind::User, Uuid::now_v7().to_string()),
    ] {
        let told = house.effective(ada.token(), kind, &id).await.unwrap();
        assert_eq!((told.role.as_str(), told.permissions.len()), ("", 0));
        let checked = house.check(ada.token(), kind, &id, &["designs.design.read"]).await;
        assert_eq!(checked.unwrap(), [false]);
    }
}

#[tokio::test]
async fn questions_that_are_none_are_told_all_that_is_wrong() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let wrong = ["designs.*.read", "nonsense", "designs.design.read"];
    let refused = house.check(ada.token(), PrincipalKind::User, "x", &wrong).await;
    assert_eq!(
        violations(&refused.unwrap_err()),
        ["permissions[0]", "permissions[1]", "principal_id"]
    );
    let refused = house
        .check(ada.token(), PrincipalKind::Unspecified, &ada.user, &[])
        .await;
    assert_eq!(violations(&refused.unwrap_err()), ["permissions", "principal_kind"]);
    let many = vec!["designs.design.read"; 201];
    let refused = house.check(ada.token(), PrincipalKind::Unspecified, "", &many).await;
    assert_eq!(violations(&refused.unwrap_err()), ["permissions"]);
    let refused = house.effective(ada.token(), PrincipalKind::ApiKey, "").await;
    assert_eq!(violations(&refused.unwrap_err()), ["principal_id"]);
}
