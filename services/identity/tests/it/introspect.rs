//! What tokens and keys stand for, for their organization.

use api::identity::v1::*;
use tonic::Status;

use crate::house::{House, Person, reason, violations};

async fn look(house: &House, by: &str, token: &str) -> Result<IntrospectTokenResponse, Status> {
    let request = IntrospectTokenRequest {
        token: token.to_owned(),
    };
    Ok(house.auth(by).introspect_token(request).await?.into_inner())
}

/// Of a token that is not valid nothing is told but that.
async fn tells_nothing(house: &House, by: &Person, token: &str) -> bool {
    look(house, by.token(), token).await.unwrap() == IntrospectTokenResponse::default()
}

async fn make_key(house: &House, by: &Person, scopes: &[&str]) -> (String, String) {
    let request = CreateApiKeyRequest {
        name: "ci".to_owned(),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        ..Default::default()
    };
    let made = house
        .keys(by.token())
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    (made.api_key.unwrap().id, made.secret)
}

#[tokio::test]
async fn an_access_token_stands_for_its_user_until_it_does_not() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let found = look(&house, ada.token(), grace.token()).await.unwrap();
    assert!(found.active);
    assert_eq!(
        (
            &found.organization_id,
            found.principal_kind(),
            &found.principal_id,
            &found.session_id
        ),
        (&ada.org, PrincipalKind::User, &grace.user, &grace.tokens.session_id)
    );
    let end = grace.tokens.access_token_expires_at.unwrap();
    assert!((end.seconds - found.expires_at.unwrap().seconds).abs() <= 1);
    assert!(found.permissions.is_sorted() && found.permissions.contains(&"designs.design.read".to_owned()));
    assert!(!found.permissions.contains(&"designs.design.write".to_owned()));

    for (over, again) in [
        (
            "update users set suspended_at = now() where id = $",
            "update users set suspended_at = null",
        ),
        ("update users set epoch = 2 where id = $", "update users set epoch = 1"),
        (
            "update sessions set revoked_at = now() where user_id = $",
            "update sessions set revoked_at = null",
        ),
        (
            "update organization_members set suspended_at = now() where user_id = $",
            "update organization_members set suspended_at = null",
        ),
    ] {
        house.sql(&over.replace('$', &format!("'{}'", grace.user))).await;
        assert!(tells_nothing(&house, &ada, grace.token()).await, "{over}");
        house.sql(again).await;
        assert!(
            look(&house, ada.token(), grace.token()).await.unwrap().active,
            "{again}"
        );
    }
}

#[tokio::test]
async fn a_refresh_token_is_looked_at_without_ending_its_session() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let first = ada.tokens.refresh_token.clone();
    let found = look(&house, ada.token(), &first).await.unwrap();
    assert!(found.active);
    assert_eq!(
        (
            &found.organization_id,
            found.principal_kind(),
            &found.principal_id,
            &found.session_id
        ),
        (&ada.org, PrincipalKind::User, &ada.user, &ada.tokens.session_id)
    );
    // It ends when it is not continued for seven days.
    assert!(found.expires_at.unwrap().seconds < ada.tokens.session_expires_at.unwrap().seconds);
    assert_eq!(found.permissions, api::policy::PERMISSIONS);

    let second = house.refresh(&first).await.unwrap().refresh_token;
    assert!(
        look(&house, ada.token(), &first).await.unwrap().active,
        "it is answered for 10 s"
    );
    house
        .sql("update sessions set rotated_at = rotated_at - interval '11 seconds'")
        .await;
    assert!(tells_nothing(&house, &ada, &first).await);
    assert!(look(&house, ada.token(), &second).await.unwrap().active);
    house.refresh(&second).await.unwrap();
    house
        .sql("update sessions set idle_expires_at = now() - interval '1 second'")
        .await;
    assert!(tells_nothing(&house, &ada, &second).await);
}

#[tokio::test]
async fn an_api_key_stands_for_what_it_may_do_now() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let (id, secret) = make_key(&house, &ada, &["designs.*.read", "identity.member.read"]).await;
    let found = look(&house, ada.token(), &secret).await.unwrap();
    assert!(found.active);
    assert_eq!(
        (
            &found.organization_id,
            found.principal_kind(),
            &found.principal_id,
            &found.session_id
        ),
        (&ada.org, PrincipalKind::ApiKey, &id, &id)
    );
    assert!(found.permissions.is_sorted() && found.permissions.contains(&"designs.design.read".to_owned()));
    assert!(!found.permissions.contains(&"designs.design.write".to_owned()));
    let request = ExchangeApiKeyRequest {
        api_key: secret.clone(),
    };
    let token = house
        .auth("")
        .exchange_api_key(request)
        .await
        .unwrap()
        .into_inner()
        .access_token;
    let same = look(&house, ada.token(), &token).await.unwrap();
    assert_eq!((same.active, &same.principal_id, &same.session_id), (true, &id, &id));
    assert_eq!(same.permissions, found.permissions);

    for column in ["revoked_at", "expires_at"] {
        let (id, secret) = make_key(&house, &ada, &["designs.*.read"]).await;
        assert!(look(&house, ada.token(), &secret).await.unwrap().active);
        house
            .sql(&format!(
                "update api_keys set {column} = now() - interval '1 second' where id = '{id}'"
            ))
            .await;
        assert!(tells_nothing(&house, &ada, &secret).await, "{column}");
    }
}

#[tokio::test]
async fn what_is_of_another_organization_or_none_of_ours_is_answered_alike() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let (_, key) = make_key(&house, &eve, &["designs.*.read"]).await;
    let genuine = ada.token().to_owned();
    let mut forged = genuine.clone().into_bytes();
    forged[40] ^= 1;
    let mut other_key = key.clone();
    other_key.pop();
    for nothing in [
        eve.token(),
        &eve.tokens.refresh_token,
        &key,
        &other_key,
        std::str::from_utf8(&forged).unwrap(),
        &genuine[..genuine.len() - 1],
        &ada.tokens.refresh_token[1..],
        "b3r_",
        "b3j_nonsense",
        "v4.public.nonsense.nonsense",
        "nonsense",
        &"x".repeat(2_048),
    ] {
        assert!(tells_nothing(&house, &ada, nothing).await, "{nothing}");
    }
    assert!(look(&house, ada.token(), &genuine).await.unwrap().active);
    for wrong in [String::new(), "x".repeat(2_049)] {
        let refused = look(&house, ada.token(), &wrong).await.unwrap_err();
        assert_eq!(violations(&refused), ["token"]);
    }
}

#[tokio::test]
async fn only_who_may_looks_at_tokens() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let refused = look(&house, grace.token(), ada.token()).await;
    assert_eq!(reason(refused), "PERMISSION_MISSING");
    let (_, key) = make_key(&house, &ada, &["identity.token.read"]).await;
    assert!(look(&house, &key, grace.token()).await.unwrap().active);
}
