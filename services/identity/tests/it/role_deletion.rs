//! Roles that somebody has, or is being given, are not deleted.

use api::identity::v1::*;
use kit::failpoint::{Action, arm};
use tonic::Code;

use crate::{
    house::{House, eventually, metadata, reason, reason_of},
    without::fails_without,
};

#[tokio::test]
async fn a_role_that_somebody_has_is_not_deleted() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let role = house
        .create_role(ada.token(), "archivist", &["designs.*.read"])
        .await
        .unwrap();
    let grace = house.colleague(&ada, "grace", "viewer").await;
    house.update_member(&ada, &grace.user, "archivist").await.unwrap();
    house.invite(&ada, "mary@example.com", "archivist").await.unwrap();
    let account = house.service_account(ada.token(), "ci", "archivist").await.unwrap();
    let refused = house.delete_role(ada.token(), &role.id).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), refused.code()),
        ("ROLE_IN_USE", Code::FailedPrecondition)
    );
    let counts = ["members", "service_accounts", "invitations"].map(|kind| metadata(&refused, kind));
    assert_eq!(counts, ["1", "1", "1"]);

    house.update_member(&ada, &grace.user, "viewer").await.unwrap();
    house.sql("update invitations set expires_at = now()").await;
    let refused = house.delete_role(ada.token(), &role.id).await.unwrap_err();
    let counts = ["members", "service_accounts", "invitations"].map(|kind| metadata(&refused, kind));
    assert_eq!(counts, ["0", "1", "0"]);
    // A service account that is disabled for good holds nothing; it goes on without its role.
    house.disable(ada.token(), &account.id).await.unwrap();
    house.delete_role(ada.token(), &role.id).await.unwrap();
    let accounts = house.service_accounts(ada.token()).await;
    assert_eq!(
        accounts
            .iter()
            .map(|account| (account.role.as_str(), account.disabled))
            .collect::<Vec<_>>(),
        [("", true)]
    );
}

#[tokio::test]
async fn a_role_that_is_being_given_is_not_deleted() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let role = house
        .create_role(ada.token(), "archivist", &["designs.*.read"])
        .await
        .unwrap();
    // Somebody gives the role, and stops where it is found; then somebody deletes it.
    let point = arm(format!("identity.role_found/{}", ada.org), Action::Hold);
    let (mut organizations, mut roles) = (house.organizations(ada.token()), house.roles(ada.token()));
    let request = UpdateMemberRequest {
        user_id: grace.user.clone(),
        role: "archivist".to_owned(),
        request_id: String::new(),
    };
    let giving = tokio::spawn(async move { organizations.update_member(request).await });
    point.held(1).await;
    let request = DeleteRoleRequest {
        role_id: role.id.clone(),
        ..Default::default()
    };
    let deleting = tokio::spawn(async move { roles.delete_role(request).await });
    let admin = house.served.database.admin().await;
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the deletion to wait or to have an answer", async || {
        deleting.is_finished() || admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    point.release();
    assert_eq!(
        giving.await.unwrap().unwrap().into_inner().member.unwrap().role,
        "archivist"
    );
    assert_eq!(reason(deleting.await.unwrap()), "ROLE_IN_USE");
}

#[tokio::test]
async fn without_the_organizations_lock_a_role_is_deleted_under_the_hands_that_give_it() {
    let test = "role_deletion::a_role_that_is_being_given_is_not_deleted";
    assert!(fails_without("identity.organization_lock", test).await);
}
