//! Members who are kept out of their organization.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use api::{events::v1::event::Payload, identity::v1::*};
use futures_util::future::join;
use kit::failpoint::{Action, arm};
use tonic::Status;

use crate::house::{House, PASSWORD, Person, eventually, metadata, reason, reason_of, request_id, violations};

pub(crate) async fn suspend(house: &House, by: &Person, user: &str) -> Result<(), Status> {
    let request = SuspendUserRequest {
        user_id: user.to_owned(),
        reason: "left a door open".to_owned(),
        request_id: String::new(),
    };
    house.users(by.token()).suspend_user(request).await.map(|_| ())
}

pub(crate) async fn reactivate(house: &House, by: &Person, user: &str) -> Result<(), Status> {
    let request = ReactivateUserRequest {
        user_id: user.to_owned(),
        request_id: String::new(),
    };
    house.users(by.token()).reactivate_user(request).await.map(|_| ())
}

/// Signs in to an organization.
pub(crate) async fn enter(house: &House, email: &str, org: &str) -> Result<SessionTokens, Status> {
    let request = LoginRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        organization_id: org.to_owned(),
        ..Default::default()
    };
    Ok(house.auth("").login(request).await?.into_inner().tokens.unwrap())
}

pub(crate) async fn key(house: &House, by: &Person) -> String {
    let request = CreateApiKeyRequest {
        name: "a key".to_owned(),
        scopes: vec!["identity.member.read".to_owned()],
        ..Default::default()
    };
    let made = house.keys(by.token()).create_api_key(request).await.unwrap();
    made.into_inner().secret
}

/// What becomes of a call with this credential: the reason, empty for success.
pub(crate) async fn answer(house: &House, credential: &str) -> String {
    let request = ListMembersRequest::default();
    match house.organizations(credential).list_members(request).await {
        Ok(_) => String::new(),
        Err(status) => reason_of(&status),
    }
}

async fn held(house: &House, who: &Person) -> Vec<String> {
    let request = GetPermissionSetRequest {
        organization_id: who.org.clone(),
        principal_kind: PrincipalKind::User.into(),
        principal_id: who.user.clone(),
    };
    let answer = house.peer().get_permission_set(request).await.unwrap();
    answer.into_inner().permissions
}

#[tokio::test]
async fn a_suspended_member_is_out_with_every_credential_until_let_in_again() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "admin").await;
    let key = key(&house, &grace).await;
    let at_home = house.login(&grace.email).await;
    assert_eq!(at_home.organization_id, grace.org, "the organization used last");
    for credential in [grace.token(), &key] {
        assert_eq!(answer(&house, credential).await, "");
    }

    suspend(&house, &ada, &grace.user).await.unwrap();
    assert!(!house.active(&grace).await);
    assert_eq!(held(&house, &grace).await, Vec::<String>::new());
    eventually("the access token is void", async || {
        answer(&house, grace.token()).await == "SESSION_REVOKED"
    })
    .await;
    eventually("the key opens nothing", async || {
        answer(&house, &key).await == "PERMISSION_MISSING"
    })
    .await;
    for refresh in [&grace.tokens.refresh_token, &at_home.refresh_token] {
        assert_eq!(reason(house.refresh(refresh).await), "REFRESH_TOKEN_INVALID");
    }
    assert_eq!(reason(enter(&house, &grace.email, &ada.org).await), "LOGIN_FAILED");
    // Of itself a login enters where the member is not kept out.
    let elsewhere = house.login(&grace.email).await;
    assert!(!elsewhere.organization_id.is_empty() && elsewhere.organization_id != ada.org);
    let there = Person {
        tokens: elsewhere,
        ..grace.clone()
    };
    assert_eq!(reason(house.switch(&there, &ada.org).await), "RESOURCE_NOT_FOUND");
    let me = house.users(there.token()).get_me(GetMeRequest {}).await.unwrap();
    let memberships = me.into_inner().memberships;
    assert!(memberships.iter().all(|one| one.organization_id != ada.org));

    let seen = async || {
        let request = GetUserRequest {
            user_id: grace.user.clone(),
        };
        let answer = house.users(ada.token()).get_user(request).await.unwrap();
        let user = answer.into_inner().user.unwrap();
        (user.suspended, user.suspended_reason)
    };
    assert_eq!(seen().await, (true, "left a door open".to_owned()));
    let told = house.told().await;
    let revoked = |session: &str| {
        told.iter().any(|(org, payload)| {
            *org == ada.org && matches!(payload, Payload::SessionRevoked(one) if one.session_id == session)
        })
    };
    assert!(revoked(&grace.tokens.session_id));
    let [event] = &house.audited("identity.SuspendUser").await[..] else {
        panic!("one event")
    };
    assert_eq!(
        (&event.organization_id, event.resource.clone().unwrap().id),
        (&ada.org, grace.user.clone())
    );

    reactivate(&house, &ada, &grace.user).await.unwrap();
    assert_eq!(seen().await, (false, String::new()));
    eventually("the key opens again", async || answer(&house, &key).await.is_empty()).await;
    let again = enter(&house, &grace.email, &ada.org).await.unwrap();
    assert_eq!(answer(&house, &again.access_token).await, "");
    // Sessions that ended stay so.
    assert_eq!(answer(&house, grace.token()).await, "SESSION_REVOKED");
}

#[tokio::test]
async fn a_suspension_that_changes_nothing_is_told_to_nobody() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    reactivate(&house, &ada, &grace.user).await.unwrap();
    let before = house.told().await.len();
    let request = SuspendUserRequest {
        user_id: grace.user.clone(),
        reason: String::new(),
        request_id: request_id(),
    };
    let mut users = house.users(ada.token());
    users.suspend_user(request.clone()).await.unwrap();
    let once = house.told().await.len();
    assert!(once > before);
    users.suspend_user(request).await.unwrap();
    suspend(&house, &ada, &grace.user).await.unwrap();
    assert_eq!(house.told().await.len(), once);
}

#[tokio::test]
async fn nobody_keeps_out_who_holds_more_or_is_not_there() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let admin = house.colleague(&ada, "admin", "admin").await;
    let viewer = house.colleague(&ada, "viewer", "viewer").await;
    house.colleague(&ada, "second", "owner").await;
    let refused = suspend(&house, &admin, &ada.user).await.unwrap_err();
    assert_eq!(reason_of(&refused), "ESCALATION");
    assert!(!metadata(&refused, "permissions").is_empty());
    assert_eq!(
        reason(suspend(&house, &viewer, &admin.user).await),
        "PERMISSION_MISSING"
    );
    for outsider in [&eve.user, &ada.org] {
        assert_eq!(reason(suspend(&house, &ada, outsider).await), "RESOURCE_NOT_FOUND");
        assert_eq!(reason(reactivate(&house, &ada, outsider).await), "RESOURCE_NOT_FOUND");
    }
    suspend(&house, &admin, &viewer.user).await.unwrap();
    let request = SuspendUserRequest {
        user_id: "x".to_owned(),
        reason: "y".repeat(501),
        request_id: String::new(),
    };
    let refused = house.users(ada.token()).suspend_user(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["reason", "user_id"]);
}

#[tokio::test]
async fn an_admin_does_not_let_in_again_who_holds_more() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.colleague(&ada, "admin", "admin").await;
    let second = house.colleague(&ada, "second", "owner").await;
    suspend(&house, &ada, &second.user).await.unwrap();
    assert_eq!(reason(reactivate(&house, &admin, &second.user).await), "ESCALATION");
}

#[tokio::test]
async fn the_last_owner_is_not_kept_out_also_not_by_two_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    assert_eq!(reason(suspend(&house, &ada, &ada.user).await), "LAST_OWNER");
    let grace = house.colleague(&ada, "grace", "owner").await;
    for _ in 0..10 {
        let anew = async |who: &Person| Person {
            tokens: enter(&house, &who.email, &ada.org).await.unwrap(),
            ..who.clone()
        };
        let (ada, grace) = (anew(&ada).await, anew(&grace).await);
        let (one, other) = join(suspend(&house, &ada, &grace.user), suspend(&house, &grace, &ada.user)).await;
        let (out, left, refused) = match (one, other) {
            (Ok(()), Err(status)) => (&grace, &ada, reason_of(&status)),
            (Err(status), Ok(())) => (&ada, &grace, reason_of(&status)),
            both => panic!("{both:?}"),
        };
        assert!(
            ["PERMISSION_MISSING", "SESSION_REVOKED"].contains(&refused.as_str()),
            "{refused}"
        );
        assert_eq!(reason(suspend(&house, left, &left.user).await), "LAST_OWNER");
        reactivate(&house, left, &out.user).await.unwrap();
    }
}

#[tokio::test]
async fn who_signs_in_while_being_suspended_has_no_session_afterwards() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let entering = arm(format!("identity.entering/{}", grace.user), Action::Hold);
    let login = async {
        // Let in or refused, it is over when both have ended.
        let _ = enter(&house, &grace.email, &ada.org).await;
    };
    let suspension = async {
        entering.held(1).await;
        let ended = AtomicU32::new(0);
        let suspended = async {
            suspend(&house, &ada, &grace.user).await.unwrap();
            ended.store(1, Ordering::SeqCst);
        };
        let release = async {
            // Either it waits for the login, or it is through.
            let admin = house.served.database.admin().await;
            let waits = "select 1 from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock' and query like '%organizations%'";
            while ended.load(Ordering::SeqCst) == 0 && admin.query(waits, &[]).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            entering.release();
        };
        join(suspended, release).await;
    };
    join(login, suspension).await;
    let standing = format!(
        "sessions where revoked_at is null and user_id = '{}' and org_id = '{}'",
        grace.user, ada.org
    );
    assert_eq!(house.count(&standing).await, 0);
}
