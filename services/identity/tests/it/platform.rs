//! The platform's organization: who is in it, and what it does to accounts.

use api::identity::v1::*;
use tonic::Status;

use crate::{
    house::{House, Person, eventually, reason, sign_up},
    suspension::{answer, enter, key, reactivate, suspend},
};

const PLATFORM: &str = "00000000-0000-7000-8000-000000000000";
const ADMINS: &str = "BOARD3_PLATFORM_ADMINS";

async fn open() -> House {
    House {
        served: testkit::serve_with(identity::SERVICE, &[(ADMINS, "Root@example.com")]).await,
    }
}

/// Somebody with a session in the platform's organization.
async fn at_platform(house: &House, person: &Person) -> Result<Person, Status> {
    Ok(Person {
        tokens: enter(house, &person.email, PLATFORM).await?,
        ..person.clone()
    })
}

#[tokio::test]
async fn whoever_proves_an_address_of_the_list_owns_the_platform() {
    let house = open().await;
    let (root, eve) = (house.person("root").await, house.person("eve").await);
    let platform = at_platform(&house, &root).await.unwrap();
    assert_eq!(platform.tokens.organization_id, PLATFORM);
    assert_eq!(answer(&house, platform.token()).await, "");
    let members = house
        .organizations(platform.token())
        .list_members(ListMembersRequest::default())
        .await;
    let members = members.unwrap().into_inner().members;
    let members: Vec<_> = members
        .iter()
        .map(|one| (one.user_id.as_str(), one.role.as_str()))
        .collect();
    assert_eq!(members, [(root.user.as_str(), "owner")]);
    let refreshed = house.refresh(&platform.tokens.refresh_token).await.unwrap();
    assert_eq!(refreshed.organization_id, PLATFORM);
    let switched = house.switch(&root, PLATFORM).await.unwrap();
    assert_eq!(switched.organization_id, PLATFORM);
    assert_eq!(house.audited("identity.AdmitPlatformMember").await.len(), 1);

    assert_eq!(reason(at_platform(&house, &eve).await.map(|_| ())), "LOGIN_FAILED");
    assert_eq!(reason(house.switch(&eve, PLATFORM).await), "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn a_token_without_an_organization_is_none_of_the_platform() {
    let house = open().await;
    house.person("root").await;
    let loner = house.person("loner").await;
    let lonely = format!("delete from organization_members where user_id = '{}'", loner.user);
    house.sql(&lonely).await;
    let tokens = house.login(&loner.email).await;
    for tokens in [tokens.clone(), house.refresh(&tokens.refresh_token).await.unwrap()] {
        assert_eq!(tokens.organization_id, "");
        assert_eq!(answer(&house, &tokens.access_token).await, "ORGANIZATION_REQUIRED");
        assert!(house.users(&tokens.access_token).get_me(GetMeRequest {}).await.is_ok());
    }
}

#[tokio::test]
async fn the_list_is_what_counts_at_each_start() {
    let house = open().await;
    let (root, eve) = (house.person("root").await, house.person("eve").await);
    let platform = at_platform(&house, &root).await.unwrap();
    assert_eq!(answer(&house, platform.token()).await, "");

    let mut env = house.served.env.clone();
    env.retain(|(name, _)| name != ADMINS);
    env.push((ADMINS.to_owned(), "eve@example.com,nobody@example.com".to_owned()));
    let _replica = kit::service::start(identity::SERVICE, kit::config::Env::of(env))
        .await
        .ok()
        .unwrap();
    eventually("the session in the platform has ended", async || {
        answer(&house, platform.token()).await == "SESSION_REVOKED"
    })
    .await;
    assert_eq!(
        reason(house.refresh(&platform.tokens.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
    assert_eq!(reason(at_platform(&house, &root).await.map(|_| ())), "LOGIN_FAILED");
    assert_eq!(
        answer(&house, root.token()).await,
        "",
        "their own organization stays theirs"
    );
    let eve = at_platform(&house, &eve).await.unwrap();
    assert_eq!(answer(&house, eve.token()).await, "");
    assert_eq!(house.audited("identity.DismissPlatformMember").await.len(), 1);
    assert_eq!(house.audited("identity.AdmitPlatformMember").await.len(), 2);
}

#[tokio::test]
async fn the_platform_suspends_an_account_everywhere() {
    let house = open().await;
    let (root, ada) = (house.person("root").await, house.person("ada").await);
    let root = at_platform(&house, &root).await.unwrap();
    let grace = house.colleague(&ada, "grace", "admin").await;
    let at_home = Person {
        tokens: house.login(&grace.email).await,
        ..grace.clone()
    };
    let key = key(&house, &grace).await;
    assert_eq!(answer(&house, &key).await, "");

    suspend(&house, &root, &grace.user).await.unwrap();
    for session in [&grace, &at_home] {
        assert!(!house.active(session).await);
        eventually("the access token is void", async || {
            answer(&house, session.token()).await == "SESSION_REVOKED"
        })
        .await;
        assert_eq!(
            reason(house.refresh(&session.tokens.refresh_token).await),
            "REFRESH_TOKEN_INVALID"
        );
    }
    eventually("the key opens nothing", async || {
        answer(&house, &key).await == "PERMISSION_MISSING"
    })
    .await;
    for org in ["", ada.org.as_str()] {
        assert_eq!(reason(enter(&house, &grace.email, org).await), "LOGIN_FAILED");
    }
    let request = GetUserRequest {
        user_id: grace.user.clone(),
    };
    let seen = house.users(ada.token()).get_user(request).await.unwrap().into_inner();
    assert!(seen.user.unwrap().suspended);
    let told = house.told().await;
    let epochs = told.iter().filter(|(_, payload)| {
        matches!(payload, api::events::v1::event::Payload::UserEpochChanged(one) if one.user_id == grace.user && one.epoch == 2)
    });
    assert_eq!(epochs.count(), 2, "one for each organization");

    reactivate(&house, &root, &grace.user).await.unwrap();
    eventually("the key opens again", async || answer(&house, &key).await.is_empty()).await;
    let again = enter(&house, &grace.email, &ada.org).await.unwrap();
    assert_eq!(answer(&house, &again.access_token).await, "");
    assert_eq!(answer(&house, grace.token()).await, "SESSION_REVOKED");
}

#[tokio::test]
async fn the_platform_does_not_suspend_its_last_owner_or_nobody() {
    let house = open().await;
    let root = house.person("root").await;
    let root = at_platform(&house, &root).await.unwrap();
    assert_eq!(reason(suspend(&house, &root, &root.user).await), "LAST_OWNER");
    assert_eq!(reason(suspend(&house, &root, PLATFORM).await), "RESOURCE_NOT_FOUND");
    assert_eq!(reason(reactivate(&house, &root, PLATFORM).await), "RESOURCE_NOT_FOUND");
    // The owner of an organization suspends its members and no accounts.
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    assert_eq!(reason(suspend(&house, &ada, &eve.user).await), "RESOURCE_NOT_FOUND");
    assert!(house.sign_up(sign_up("late")).await.is_ok());
}
