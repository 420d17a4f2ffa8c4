//! Organizations that are deleted, and restored in time.

use api::{
    events::v1::event::Payload,
    identity::v1::{get_organization_request::Key, *},
};

use crate::{
    house::{House, PASSWORD, Person, eventually, login, reason, reason_of, violations},
    organization::{create, delete, get, restore, slugs, switched},
};

#[tokio::test]
async fn a_deleted_organization_opens_to_nobody_until_its_owner_restores_it() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let second = create(&house, &ada, "Second", "second").await.unwrap();
    let there = switched(&house, &ada, &second.id).await;
    let grace = house.colleague(&there, "grace", "admin").await;
    let invitation = house.invite(&there, "eve@example.com", "viewer").await.unwrap();
    let eve = house.person("eve").await;
    let key = CreateApiKeyRequest {
        name: "ci".to_owned(),
        scopes: vec!["identity.member.read".to_owned()],
        ..Default::default()
    };
    let key = house
        .keys(there.token())
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

    let wrong = DeleteOrganizationRequest {
        etag: "v0".to_owned(),
        request_id: String::new(),
    };
    assert_eq!(
        reason(house.organizations(there.token()).delete_organization(wrong).await),
        "ETAG_MISMATCH"
    );
    let deleted = delete(&house, &there).await.unwrap();
    assert!(deleted.restorable_until.is_some());

    for who in [&there, &grace] {
        eventually("the sessions are over", async || {
            let me = house.users(who.token()).get_me(GetMeRequest {}).await;
            me.is_err_and(|status| reason_of(&status) == "SESSION_REVOKED")
        })
        .await;
        assert!(!house.active(who).await);
        assert!(house.refresh(&who.tokens.refresh_token).await.is_err());
    }
    eventually("the key holds nothing", async || {
        house
            .organizations(&key.secret)
            .list_members(listed.clone())
            .await
            .is_err()
    })
    .await;
    let exchange = ExchangeApiKeyRequest {
        api_key: key.secret.clone(),
    };
    assert_eq!(
        reason(house.auth("").exchange_api_key(exchange.clone()).await),
        "CREDENTIAL_INVALID"
    );
    let asked = CheckSessionRequest {
        session_id: key.api_key.clone().unwrap().id,
        principal_kind: PrincipalKind::ApiKey.into(),
        principal_id: key.api_key.clone().unwrap().id,
        epoch: 0,
    };
    assert!(!house.peer().check_session(asked).await.unwrap().into_inner().active);
    let question = GetPermissionSetRequest {
        organization_id: second.id.clone(),
        principal_kind: PrincipalKind::User.into(),
        principal_id: ada.user.clone(),
    };
    assert_eq!(
        house
            .peer()
            .get_permission_set(question)
            .await
            .unwrap()
            .into_inner()
            .permissions,
        Vec::<String>::new()
    );

    // Ada's last organization is gone: the login enters the other, and this one only by mistake.
    let home = Person {
        tokens: house.login(&ada.email).await,
        ..ada.clone()
    };
    assert_eq!(home.tokens.organization_id, ada.org);
    let wanted = LoginRequest {
        organization_id: second.id.clone(),
        ..login(&ada.email, PASSWORD)
    };
    assert_eq!(reason(house.auth("").login(wanted).await), "LOGIN_FAILED");
    assert_eq!(reason(house.switch(&home, &second.id).await), "RESOURCE_NOT_FOUND");
    assert_eq!(
        reason(house.accept(&eve, &invitation.token).await),
        "INVITATION_INVALID"
    );
    assert_eq!(
        reason(get(&house, &home, Key::Slug("second".to_owned())).await),
        "RESOURCE_NOT_FOUND"
    );
    assert_eq!(slugs(&house, &home, false).await, ["ada-inc"]);
    assert_eq!(slugs(&house, &home, true).await, ["ada-inc", "second"]);
    let grace = Person {
        tokens: house.login(&grace.email).await,
        ..grace
    };
    assert_eq!(slugs(&house, &grace, true).await, ["grace-inc"]);
    let me = house
        .users(home.token())
        .get_me(GetMeRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(me.memberships.len(), 1);

    assert_eq!(
        reason(create(&house, &eve, "Second", "second").await),
        "RESOURCE_EXISTS"
    );
    for who in [&grace, &eve] {
        assert_eq!(reason(restore(&house, who, &second.id).await), "RESOURCE_NOT_FOUND");
    }
    let restored = restore(&house, &home, &second.id).await.unwrap();
    assert_eq!((restored.slug.as_str(), restored.deleted_at), ("second", None));
    assert_eq!(reason(restore(&house, &home, &second.id).await), "RESOURCE_NOT_FOUND");
    house.accept(&eve, &invitation.token).await.unwrap();
    let again = switched(&house, &home, &second.id).await;
    let members = house
        .organizations(again.token())
        .list_members(listed.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(members.members.len(), 3);
    house.auth("").exchange_api_key(exchange).await.unwrap();
    eventually("the key holds what it held", async || {
        house
            .organizations(&key.secret)
            .list_members(listed.clone())
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn after_thirty_days_nobody_restores_an_organization() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    delete(&house, &ada).await.unwrap();
    let nowhere = Person {
        tokens: house.login(&ada.email).await,
        ..ada.clone()
    };
    assert_eq!(nowhere.tokens.organization_id, "");
    assert_eq!(slugs(&house, &nowhere, true).await, ["ada-inc"]);
    house
        .sql("update organizations set deleted_at = now() - interval '30 days' where deleted_at is not null")
        .await;
    assert_eq!(slugs(&house, &nowhere, true).await, Vec::<String>::new());
    assert_eq!(reason(restore(&house, &nowhere, &ada.org).await), "RESOURCE_NOT_FOUND");
    assert_eq!(
        violations(&restore(&house, &nowhere, "x").await.unwrap_err()),
        ["organization_id"]
    );
}

#[tokio::test]
async fn a_deletion_tells_every_session_and_the_permissions_next_version() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    house
        .sql(&format!(
            "update sessions set created_at = now() - interval '1 hour', rotated_at = null where id = '{}'",
            grace.tokens.session_id
        ))
        .await;
    let before = house.told().await.len();
    delete(&house, &ada).await.unwrap();
    let told: Vec<_> = house.told().await.split_off(before);
    let sessions: Vec<&str> = told
        .iter()
        .filter_map(|(_, payload)| match payload {
            Payload::SessionRevoked(revoked) => Some(revoked.session_id.as_str()),
            _ => None,
        })
        .collect();
    // Of a session that was not refreshed for an hour no access token is about.
    assert_eq!(sessions, [ada.tokens.session_id.as_str()]);
    assert!(
        told.iter()
            .any(|(org, payload)| *org == ada.org && matches!(payload, Payload::PermissionsChanged(_)))
    );
    assert!(!house.active(&grace).await);
}
