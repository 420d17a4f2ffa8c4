//! Signing up, signing in, and what peers ask.

use api::{events::v1::Outcome, identity::v1::*};
use prost::Message;
use tonic::Code;
use uuid::Uuid;

use crate::house::{House, PASSWORD, login, reason, reason_of, sign_up, violations};

const PLATFORM: &str = "00000000-0000-7000-8000-000000000000";

#[tokio::test]
async fn every_violation_of_a_sign_up_is_told_at_once() {
    let house = House::open().await;
    let refused = house.auth("").sign_up(SignUpRequest::default()).await.unwrap_err();
    let all = [
        "email",
        "first_name",
        "last_name",
        "organization_name",
        "password",
        "username",
    ];
    assert_eq!(
        (refused.code(), violations(&refused)),
        (Code::InvalidArgument, all.map(str::to_owned).to_vec())
    );
    let common = SignUpRequest {
        password: "Password123".to_owned(),
        ..sign_up("ada")
    };
    assert_eq!(
        violations(&house.auth("").sign_up(common).await.unwrap_err()),
        ["password"]
    );
    let refused = house
        .auth("")
        .login(LoginRequest {
            organization_id: "x".to_owned(),
            device: "x".repeat(201),
            ..LoginRequest::default()
        })
        .await;
    assert_eq!(
        violations(&refused.unwrap_err()),
        ["device", "email", "organization_id", "password"]
    );
}

#[tokio::test]
async fn a_failed_login_is_the_same_whether_or_not_there_is_an_account() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let stranger = house.person("stranger").await;
    let secret = "not the password 7f3a";
    let elsewhere = LoginRequest {
        organization_id: stranger.org.clone(),
        ..login(&ada.email, PASSWORD)
    };
    let attempts = [
        login(&ada.email, secret),
        login("nobody@example.com", secret),
        elsewhere,
    ];
    for attempt in attempts {
        let refused = house.auth("").login(attempt).await.unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), refused.code()),
            ("LOGIN_FAILED", Code::Unauthenticated)
        );
        assert_eq!(
            refused.message(),
            "e-mail and password do not match an account that can sign in"
        );
    }
    let failures: Vec<_> = house
        .audited("identity.Login")
        .await
        .into_iter()
        .filter(|event| event.outcome() == Outcome::Failure)
        .collect();
    let places: Vec<_> = failures
        .iter()
        .map(|event| (event.organization_id.as_str(), event.reason.as_str()))
        .collect();
    let failed = "LOGIN_FAILED";
    assert_eq!(
        places,
        [
            (ada.org.as_str(), failed),
            (PLATFORM, failed),
            (ada.org.as_str(), failed)
        ]
    );
    for event in house.events().await {
        let bytes = event.encode_to_vec();
        for canary in [secret, PASSWORD] {
            assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
        }
    }
    assert_eq!(house.count("sessions").await, 2);
}

#[tokio::test]
async fn a_login_enters_the_organization_given_else_the_last_used_else_the_oldest() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.person("grace").await;
    let invitation = house.invite(&ada, &grace.email, "viewer").await.unwrap();
    house.accept(&grace, &invitation.token).await.unwrap();
    assert_eq!(house.login(&grace.email).await.organization_id, grace.org);
    let given = LoginRequest {
        organization_id: ada.org.clone(),
        ..login(&grace.email, PASSWORD)
    };
    let entered = house.auth("").login(given).await.unwrap().into_inner().tokens.unwrap();
    assert_eq!(entered.organization_id, ada.org);
    assert_eq!(house.login(&grace.email).await.organization_id, ada.org);
    house.sql("update users set last_org_id = null").await;
    assert_eq!(house.login(&grace.email).await.organization_id, grace.org);
}

#[tokio::test]
async fn a_user_without_an_organization_can_still_sign_in() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house.sql("delete from organization_members").await;
    let tokens = house.login(&ada.email).await;
    assert_eq!(tokens.organization_id, "");
    let me = house
        .users(&tokens.access_token)
        .get_me(GetMeRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(me.memberships.is_empty());
    let listed = house
        .organizations(&tokens.access_token)
        .list_members(ListMembersRequest::default())
        .await;
    assert_eq!(reason(listed), "ORGANIZATION_REQUIRED");
    assert!(house.refresh(&tokens.refresh_token).await.is_ok());
    house.auth(&tokens.access_token).logout(LogoutRequest {}).await.unwrap();
}

#[tokio::test]
async fn peers_get_the_keys_that_tokens_verify_against() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let answer = house.peer().get_signing_keys(GetSigningKeysRequest {}).await.unwrap();
    let pinned = house.served.running.kit.config.root_key.clone();
    let set = pinned.verify_keys("test", &answer.into_inner().key_set).unwrap();
    let [key] = set.keys.as_slice() else {
        panic!("one key: {set:?}")
    };
    let claims = key.verify_access("test", ada.token()).unwrap();
    assert_eq!(
        (claims.epoch, claims.permission_version, claims.session.to_string()),
        (1, 1, ada.tokens.session_id.clone())
    );
    assert_eq!(claims.org.unwrap().to_string(), ada.org);
    for credential in ["", ada.token()] {
        let refused = house.auth(credential).get_signing_keys(GetSigningKeysRequest {}).await;
        assert_eq!(
            reason(refused),
            if credential.is_empty() {
                "CREDENTIAL_INVALID"
            } else {
                "CALLER_NOT_ALLOWED"
            }
        );
    }
}

#[tokio::test]
async fn a_principal_that_is_not_there_may_do_nothing() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    let ask = async |org: &str, kind: i32, id: &str| {
        let request = GetPermissionSetRequest {
            organization_id: org.to_owned(),
            principal_kind: kind,
            principal_id: id.to_owned(),
        };
        house
            .peer()
            .get_permission_set(request)
            .await
            .map(tonic::Response::into_inner)
    };
    let (user, key) = (PrincipalKind::User.into(), PrincipalKind::ApiKey.into());
    assert_eq!(
        ask(&ada.org, user, &ada.user).await.unwrap().permissions,
        api::policy::PERMISSIONS
    );
    let nowhere = Uuid::now_v7().to_string();
    for (org, kind, id) in [
        (&ada.org, user, &grace.user),
        (&ada.org, key, &nowhere),
        (&nowhere, user, &ada.user),
    ] {
        assert!(ask(org, kind, id).await.unwrap().permissions.is_empty());
    }
    let refused = ask("x", 7, "").await.unwrap_err();
    assert_eq!(
        violations(&refused),
        ["organization_id", "principal_id", "principal_kind"]
    );
}
