//! Members who leave, and owners who hand over.

use api::{events::v1::event::Payload, identity::v1::*};
use futures_util::future::join;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::house::{House, Person, eventually, reason, reason_of, violations};

async fn remove(house: &House, by: &Person, user: &str) -> Result<(), Status> {
    let request = RemoveMemberRequest {
        user_id: user.to_owned(),
        request_id: String::new(),
    };
    house.organizations(by.token()).remove_member(request).await?;
    Ok(())
}

async fn transfer(house: &House, by: &Person, user: &str) -> Result<Member, Status> {
    let request = TransferOwnershipRequest {
        user_id: user.to_owned(),
        request_id: String::new(),
    };
    let answer = house.organizations(by.token()).transfer_ownership(request).await?;
    Ok(answer.into_inner().member.unwrap())
}

/// How many owners the organization has.
async fn owners(house: &House, org: &str) -> i64 {
    house
        .count(&format!(
            "organization_members where org_id = '{org}' and role_id = '00000000-0000-7000-8000-000000000001' and suspended_at is null"
        ))
        .await
}

#[tokio::test]
async fn who_is_removed_has_no_session_and_no_key_there_within_a_second() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "admin").await;
    let key = CreateApiKeyRequest {
        name: "ci".to_owned(),
        scopes: vec!["identity.member.read".to_owned()],
        ..Default::default()
    };
    let key = house
        .keys(grace.token())
        .create_api_key(key)
        .await
        .unwrap()
        .into_inner();
    let listed = ListMembersRequest::default();
    house
        .organizations(&key.secret)
        .list_members(listed.clone())
        .await
        .unwrap();
    remove(&house, &ada, &grace.user).await.unwrap();
    eventually("the session is over", async || {
        let me = house.users(grace.token()).get_me(GetMeRequest {}).await;
        me.is_err_and(|status| reason_of(&status) == "SESSION_REVOKED")
    })
    .await;
    assert!(!house.active(&grace).await);
    assert!(house.refresh(&grace.tokens.refresh_token).await.is_err());
    eventually("the key holds nothing", async || {
        house
            .organizations(&key.secret)
            .list_members(listed.clone())
            .await
            .is_err()
    })
    .await;
    let told = house.told().await;
    assert!(told.iter().any(|(org, payload)| *org == ada.org
        && matches!(payload, Payload::SessionRevoked(revoked) if revoked.session_id == grace.tokens.session_id)));
    let home = house.login(&grace.email).await;
    assert_ne!(home.organization_id, ada.org);
    let home = Person {
        tokens: home,
        ..grace.clone()
    };
    assert_eq!(reason(house.switch(&home, &ada.org).await), "RESOURCE_NOT_FOUND");
    assert_eq!(reason(remove(&house, &ada, &grace.user).await), "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn nobody_removes_who_holds_more_or_is_the_last_owner() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.colleague(&ada, "admin", "admin").await;
    let viewer = house.colleague(&ada, "viewer", "viewer").await;
    let eve = house.person("eve").await;
    let refused = remove(&house, &admin, &ada.user).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), refused.code()),
        ("ESCALATION", Code::PermissionDenied)
    );
    assert_eq!(reason(remove(&house, &viewer, &admin.user).await), "PERMISSION_MISSING");
    assert_eq!(reason(remove(&house, &ada, &ada.user).await), "LAST_OWNER");
    assert_eq!(reason(remove(&house, &ada, &eve.user).await), "RESOURCE_NOT_FOUND");
    assert_eq!(violations(&remove(&house, &ada, "x").await.unwrap_err()), ["user_id"]);
    // An owner who is kept out is none.
    let grace = house.colleague(&ada, "grace", "owner").await;
    house
        .sql(&format!(
            "update organization_members set suspended_at = now() where user_id = '{}' and org_id = '{}'",
            grace.user, ada.org
        ))
        .await;
    assert_eq!(reason(remove(&house, &ada, &ada.user).await), "LAST_OWNER");
    remove(&house, &admin, &viewer.user).await.unwrap();
}

#[tokio::test]
async fn the_last_owner_stays_also_when_two_remove_each_other_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let mut last = ada;
    for round in 0..10 {
        let other = house.colleague(&last, &format!("owner-{round}"), "owner").await;
        // Both orders.
        let (one, two) = if round % 2 == 0 {
            join(remove(&house, &last, &other.user), remove(&house, &other, &last.user)).await
        } else {
            let (two, one) = join(remove(&house, &other, &last.user), remove(&house, &last, &other.user)).await;
            (one, two)
        };
        assert_eq!(owners(&house, &last.org).await, 1, "{one:?} {two:?}");
        assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
        if two.is_ok() {
            last = other;
        }
    }
}

#[tokio::test]
async fn an_owner_hands_over_and_is_an_admin() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let admin = house.colleague(&ada, "admin", "admin").await;
    let eve = house.person("eve").await;
    assert_eq!(
        reason(transfer(&house, &admin, &grace.user).await),
        "CALLER_NOT_ALLOWED"
    );
    assert_eq!(
        reason(transfer(&house, &grace, &grace.user).await),
        "PERMISSION_MISSING"
    );
    assert_eq!(
        violations(&transfer(&house, &ada, &ada.user).await.unwrap_err()),
        ["user_id"]
    );
    assert_eq!(violations(&transfer(&house, &ada, "").await.unwrap_err()), ["user_id"]);
    assert_eq!(reason(transfer(&house, &ada, &eve.user).await), "RESOURCE_NOT_FOUND");
    assert_eq!(
        reason(transfer(&house, &ada, &Uuid::now_v7().to_string()).await),
        "RESOURCE_NOT_FOUND"
    );
    house
        .sql(&format!(
            "update organization_members set suspended_at = now() where user_id = '{}' and org_id = '{}'",
            grace.user, ada.org
        ))
        .await;
    assert_eq!(reason(transfer(&house, &ada, &grace.user).await), "RESOURCE_NOT_FOUND");
    house.sql("update organization_members set suspended_at = null").await;
    let member = transfer(&house, &ada, &grace.user).await.unwrap();
    assert_eq!(
        (member.user_id.as_str(), member.role.as_str()),
        (grace.user.as_str(), "owner")
    );
    assert_eq!(owners(&house, &ada.org).await, 1);
    eventually("the former owner is one no more", async || {
        reason(house.invite(&ada, "new@example.com", "owner").await) == "ESCALATION"
    })
    .await;
    house.invite(&ada, "new@example.com", "admin").await.unwrap();
}

#[tokio::test]
async fn two_who_are_handed_the_same_ownership_at_once_are_one_owner() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let mary = house.colleague(&ada, "mary", "viewer").await;
    let (one, other) = join(transfer(&house, &ada, &grace.user), transfer(&house, &ada, &mary.user)).await;
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} {other:?}");
    assert_eq!(owners(&house, &ada.org).await, 1);
}
