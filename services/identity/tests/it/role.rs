//! Roles that organizations make: who makes them, who has them, and what a change does.

use api::{
    events::v1::{Outcome, event::Payload},
    identity::v1::{role_service_client::RoleServiceClient, *},
};
use testkit::Caller;
use tonic::{Code, Status};

use crate::{
    house::{House, Person, eventually, metadata, reason, reason_of, request_id, violations},
    without::fails_without,
};

impl House {
    pub(crate) fn roles(&self, credential: &str) -> RoleServiceClient<Caller> {
        RoleServiceClient::new(self.served.with(credential))
    }

    pub(crate) async fn create_role(
        &self,
        credential: &str,
        name: &str,
        permissions: &[&str],
    ) -> Result<api::identity::v1::Role, Status> {
        let request = CreateRoleRequest {
            name: name.to_owned(),
            description: format!("what {name} may do"),
            permissions: permissions.iter().map(|&permission| permission.to_owned()).collect(),
            request_id: String::new(),
        };
        let answer = self.roles(credential).create_role(request).await?;
        Ok(answer.into_inner().role.unwrap())
    }

    pub(crate) async fn update_role(
        &self,
        credential: &str,
        role: &api::identity::v1::Role,
        permissions: &[&str],
    ) -> Result<api::identity::v1::Role, Status> {
        let request = UpdateRoleRequest {
            role_id: role.id.clone(),
            name: role.name.clone(),
            description: role.description.clone(),
            permissions: permissions.iter().map(|&permission| permission.to_owned()).collect(),
            etag: role.etag.clone(),
            request_id: String::new(),
        };
        let answer = self.roles(credential).update_role(request).await?;
        Ok(answer.into_inner().role.unwrap())
    }

    pub(crate) async fn get_role(&self, credential: &str, id: &str) -> Result<api::identity::v1::Role, Status> {
        let request = GetRoleRequest { role_id: id.to_owned() };
        Ok(self
            .roles(credential)
            .get_role(request)
            .await?
            .into_inner()
            .role
            .unwrap())
    }

    pub(crate) async fn delete_role(&self, credential: &str, id: &str) -> Result<(), Status> {
        let request = DeleteRoleRequest {
            role_id: id.to_owned(),
            ..Default::default()
        };
        self.roles(credential).delete_role(request).await.map(|_| ())
    }
}

/// The id of a role of the system.
fn system(number: u8) -> String {
    format!("00000000-0000-7000-8000-00000000000{number}")
}

#[tokio::test]
async fn a_role_is_made_read_changed_and_deleted() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let made = house
        .create_role(
            ada.token(),
            "archivist",
            &["designs.*.read", "audit.audit_log.read", "designs.*.read"],
        )
        .await
        .unwrap();
    assert_eq!(made.permissions, ["audit.audit_log.read", "designs.*.read"]);
    assert_eq!(
        (made.description.as_str(), made.system),
        ("what archivist may do", false)
    );
    assert_eq!(house.get_role(ada.token(), &made.id).await.unwrap(), made);

    let request = UpdateRoleRequest {
        role_id: made.id.clone(),
        name: "keeper".to_owned(),
        description: String::new(),
        permissions: vec!["designs.*.*".to_owned()],
        etag: made.etag.clone(),
        request_id: String::new(),
    };
    let answer = house.roles(ada.token()).update_role(request).await.unwrap();
    let changed = answer.into_inner().role.unwrap();
    assert_eq!(
        (
            changed.name.as_str(),
            changed.description.as_str(),
            &changed.permissions
        ),
        ("keeper", "", &vec!["designs.*.*".to_owned()])
    );
    assert!(changed.etag != made.etag && changed.created_at == made.created_at);
    assert_eq!(house.get_role(ada.token(), &made.id).await.unwrap(), changed);
    let told = house.told().await;
    let versions = told
        .iter()
        .filter(|(_, payload)| matches!(payload, Payload::PermissionsChanged(_)));
    assert_eq!(versions.count(), 1, "{told:?}");

    house.delete_role(ada.token(), &made.id).await.unwrap();
    let gone = house.get_role(ada.token(), &made.id).await.unwrap_err();
    assert_eq!(
        (
            reason_of(&gone).as_str(),
            metadata(&gone, "resource").as_str(),
            metadata(&gone, "id")
        ),
        ("RESOURCE_NOT_FOUND", "role", made.id.clone())
    );
    for action in ["identity.CreateRole", "identity.UpdateRole", "identity.DeleteRole"] {
        let [event] = &house.audited(action).await[..] else {
            panic!("one event of {action}")
        };
        let about = event.resource.clone().unwrap();
        assert_eq!((about.r#type.as_str(), &about.id), ("role", &made.id));
    }
}

#[tokio::test]
async fn a_change_of_words_alone_makes_no_new_version_of_permissions() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let made = house
        .create_role(ada.token(), "archivist", &["designs.*.read"])
        .await
        .unwrap();
    let before = house.told().await.len();
    let renamed = api::identity::v1::Role {
        name: "librarian".to_owned(),
        ..made
    };
    house
        .update_role(ada.token(), &renamed, &["designs.*.read"])
        .await
        .unwrap();
    assert_eq!(house.told().await.len(), before);
}

#[tokio::test]
async fn a_stale_etag_is_refused() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let made = house.create_role(ada.token(), "archivist", &[]).await.unwrap();
    let changed = house
        .update_role(ada.token(), &made, &["designs.*.read"])
        .await
        .unwrap();
    let refused = house.update_role(ada.token(), &made, &[]).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), refused.code()),
        ("ETAG_MISMATCH", Code::Aborted)
    );
    assert_eq!(metadata(&refused, "current_etag"), changed.etag);
    let stale = DeleteRoleRequest {
        role_id: made.id.clone(),
        etag: made.etag,
        request_id: String::new(),
    };
    assert_eq!(
        reason(house.roles(ada.token()).delete_role(stale.clone()).await),
        "ETAG_MISMATCH"
    );
    let current = DeleteRoleRequest {
        etag: changed.etag,
        ..stale
    };
    house.roles(ada.token()).delete_role(current).await.unwrap();
}

#[tokio::test]
async fn every_violation_of_a_role_is_told_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let wrong = [
        "designs.*.read",
        "designs.*",
        "de*.x.y",
        "Designs.design.read",
        "a.b.c.d",
        "",
    ];
    let request = CreateRoleRequest {
        name: String::new(),
        description: "x".repeat(501),
        permissions: wrong.iter().map(|&permission| permission.to_owned()).collect(),
        request_id: "1".to_owned(),
    };
    let refused = house.roles(ada.token()).create_role(request).await.unwrap_err();
    let expected = [
        "description",
        "name",
        "permissions[1]",
        "permissions[2]",
        "permissions[3]",
        "permissions[4]",
        "permissions[5]",
        "request_id",
    ];
    assert_eq!(violations(&refused), expected);
    let request = UpdateRoleRequest {
        name: "x".repeat(101),
        permissions: vec!["designs.design.read".to_owned(); 201],
        ..Default::default()
    };
    let refused = house.roles(ada.token()).update_role(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["etag", "name", "permissions", "role_id"]);
    let request = DeleteRoleRequest {
        role_id: "x".to_owned(),
        etag: "e".repeat(65),
        request_id: String::new(),
    };
    let refused = house.roles(ada.token()).delete_role(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["etag", "role_id"]);
    assert_eq!(
        violations(&house.get_role(ada.token(), "").await.unwrap_err()),
        ["role_id"]
    );
    let request = ListRolesRequest {
        page_size: -1,
        page_token: String::new(),
    };
    let refused = house.roles(ada.token()).list_roles(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["page_size"]);
    assert_eq!(house.count("roles").await, 5);
}

#[tokio::test]
async fn names_of_the_system_and_names_that_are_taken_are_refused() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let made = house.create_role(ada.token(), "archivist", &[]).await.unwrap();
    let other = house.create_role(ada.token(), "other", &[]).await.unwrap();
    for name in ["archivist", "owner", "Viewer", " admin "] {
        let refused = house.create_role(ada.token(), name, &[]).await.unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), metadata(&refused, "field").as_str()),
            ("RESOURCE_EXISTS", "name"),
            "{name}"
        );
        let renamed = api::identity::v1::Role {
            name: name.to_owned(),
            ..other.clone()
        };
        let refused = house.update_role(ada.token(), &renamed, &[]).await;
        assert_eq!(reason(refused), "RESOURCE_EXISTS", "{name}");
    }
    house.update_role(ada.token(), &made, &[]).await.unwrap();
    house.create_role(eve.token(), "archivist", &[]).await.unwrap();
}

#[tokio::test]
async fn the_systems_roles_stay_as_they_are_and_others_roles_are_not_there() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    for number in 1..=5 {
        let role = house.get_role(ada.token(), &system(number)).await.unwrap();
        assert!(role.system && !role.permissions.is_empty() && !role.description.is_empty());
        let renamed = api::identity::v1::Role {
            name: "mine".to_owned(),
            ..role
        };
        for refused in [
            house.update_role(ada.token(), &renamed, &[]).await.map(|_| ()),
            house.delete_role(ada.token(), &renamed.id).await,
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(
                (reason_of(&refused).as_str(), refused.code()),
                ("SYSTEM_ROLE", Code::FailedPrecondition)
            );
        }
    }
    let foreign = house.create_role(eve.token(), "archivist", &[]).await.unwrap();
    for refused in [
        house.get_role(ada.token(), &foreign.id).await.map(|_| ()),
        house.update_role(ada.token(), &foreign, &[]).await.map(|_| ()),
        house.delete_role(ada.token(), &foreign.id).await,
    ] {
        assert_eq!(reason(refused), "RESOURCE_NOT_FOUND");
    }
    assert_eq!(
        reason(house.update_member(&ada, &ada.user, "archivist").await),
        "RESOURCE_NOT_FOUND"
    );
}

#[tokio::test]
async fn nobody_makes_changes_or_deletes_a_role_beyond_what_they_hold() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.colleague(&ada, "admin", "admin").await;
    for beyond in ["*.*.*", "audit.*.*", "billing.*.*"] {
        let refused = house
            .create_role(admin.token(), "bold", &["designs.*.read", beyond])
            .await
            .unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), refused.code()),
            ("ESCALATION", Code::PermissionDenied)
        );
        assert_eq!(metadata(&refused, "permissions"), beyond);
    }
    let modest = house
        .create_role(admin.token(), "modest", &["designs.*.read"])
        .await
        .unwrap();
    // Neither may it hold more afterwards, nor may it have held more before.
    assert_eq!(
        reason(house.update_role(admin.token(), &modest, &["*.*.read"]).await),
        "ESCALATION"
    );
    let strong = house.create_role(ada.token(), "strong", &["*.*.read"]).await.unwrap();
    assert_eq!(
        reason(house.update_role(admin.token(), &strong, &[]).await),
        "ESCALATION"
    );
    assert_eq!(reason(house.delete_role(admin.token(), &strong.id).await), "ESCALATION");
    house
        .update_role(admin.token(), &modest, &["designs.*.*"])
        .await
        .unwrap();
    house.delete_role(admin.token(), &modest.id).await.unwrap();
    let denied = house.audited("identity.CreateRole").await;
    let denied = denied
        .iter()
        .filter(|event| (event.outcome(), event.reason.as_str()) == (Outcome::Denied, "ESCALATION"));
    assert_eq!(denied.count(), 3);
}

#[tokio::test]
async fn without_the_rule_anybody_who_writes_roles_gives_everything() {
    let test = "role::nobody_makes_changes_or_deletes_a_role_beyond_what_they_hold";
    assert!(fails_without("identity.escalation", test).await);
}

#[tokio::test]
async fn a_changed_role_is_felt_by_who_has_it() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let role = house
        .create_role(ada.token(), "scout", &["identity.member.read", "identity.role.read"])
        .await
        .unwrap();
    let grace = house.colleague(&ada, "grace", "scout").await;
    let members = async |person: &Person| {
        house
            .organizations(person.token())
            .list_members(ListMembersRequest::default())
            .await
    };
    assert_eq!(members(&grace).await.unwrap().into_inner().members.len(), 2);
    house
        .update_role(ada.token(), &role, &["identity.role.read"])
        .await
        .unwrap();
    eventually("the role's permission is gone", async || {
        members(&grace)
            .await
            .is_err_and(|status| reason_of(&status) == "PERMISSION_MISSING")
    })
    .await;
    let role = house.get_role(grace.token(), &role.id).await.unwrap();
    house
        .update_role(ada.token(), &role, &["identity.member.read"])
        .await
        .unwrap();
    eventually("the role's permission is back", async || members(&grace).await.is_ok()).await;
}

#[tokio::test]
async fn a_repeated_creation_is_answered_the_same() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let request = CreateRoleRequest {
        name: "archivist".to_owned(),
        description: String::new(),
        permissions: vec!["designs.*.read".to_owned()],
        request_id: request_id(),
    };
    let mut roles = house.roles(ada.token());
    let first = roles.create_role(request.clone()).await.unwrap().into_inner();
    assert_eq!(roles.create_role(request.clone()).await.unwrap().into_inner(), first);
    let other = CreateRoleRequest {
        name: "other".to_owned(),
        ..request
    };
    assert_eq!(reason(roles.create_role(other).await), "REQUEST_ID_REUSED");
    assert_eq!(house.count("roles").await, 6);
}
