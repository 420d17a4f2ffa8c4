//! API keys: made, exchanged, used as they are, cut by what their creator may do, looked at and ended.

use api::events::v1::Outcome;
use api::identity::v1::*;
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::house::{House, Person, eventually, metadata, reason, reason_of, request_id, violations};

async fn make(house: &House, credential: &str, scopes: &[&str]) -> Result<CreateApiKeyResponse, Status> {
    let request = CreateApiKeyRequest {
        name: "ci".to_owned(),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        ..Default::default()
    };
    Ok(house.keys(credential).create_api_key(request).await?.into_inner())
}

/// A request for a key with one scope that ends in so many seconds.
fn ending(scope: &str, seconds: i64) -> CreateApiKeyRequest {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    CreateApiKeyRequest {
        name: "ci".to_owned(),
        scopes: vec![scope.to_owned()],
        expires_at: Some(Timestamp {
            seconds: i64::try_from(now.as_secs()).unwrap() + seconds,
            nanos: 0,
        }),
        ..Default::default()
    }
}

async fn exchange(house: &House, key: &str) -> Result<ExchangeApiKeyResponse, Status> {
    let request = ExchangeApiKeyRequest {
        api_key: key.to_owned(),
    };
    Ok(house.auth("").exchange_api_key(request).await?.into_inner())
}

async fn held(house: &House, owner: &Person, key: &str) -> Vec<String> {
    let request = GetPermissionSetRequest {
        organization_id: owner.org.clone(),
        principal_kind: PrincipalKind::ApiKey.into(),
        principal_id: key.to_owned(),
    };
    house
        .peer()
        .get_permission_set(request)
        .await
        .unwrap()
        .into_inner()
        .permissions
}

async fn active(house: &House, key: &str) -> bool {
    let request = CheckSessionRequest {
        session_id: key.to_owned(),
        principal_kind: PrincipalKind::ApiKey.into(),
        principal_id: key.to_owned(),
        epoch: 0,
    };
    house.peer().check_session(request).await.unwrap().into_inner().active
}

#[tokio::test]
async fn a_key_works_as_it_is_and_exchanged_for_a_token() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let made = make(&house, ada.token(), &["identity.member.read", "designs.*.read"])
        .await
        .unwrap();
    let key = made.api_key.unwrap();
    assert!(made.secret.starts_with(&format!("b3_test_{}_", key.public_id)));
    assert_eq!(
        (&key.creator_id, key.name.as_str(), key.scopes.len()),
        (&ada.user, "ci", 2)
    );
    let exchanged = exchange(&house, &made.secret).await.unwrap();
    assert_eq!((&exchanged.organization_id, &exchanged.api_key_id), (&ada.org, &key.id));
    for credential in [&made.secret, &exchanged.access_token] {
        let members = house
            .organizations(credential)
            .list_members(ListMembersRequest::default())
            .await
            .unwrap();
        assert_eq!(members.into_inner().members.len(), 1);
        assert_eq!(
            reason(make(&house, credential, &["identity.member.read"]).await),
            "PERMISSION_MISSING"
        );
        assert_eq!(
            reason(house.users(credential).get_me(GetMeRequest {}).await),
            "CALLER_NOT_ALLOWED"
        );
    }
    assert!(active(&house, &key.id).await);
    let admin = house.served.database.admin().await;
    let used = admin
        .query_one("select last_used_at is not null from identity.api_keys", &[])
        .await
        .unwrap();
    assert!(used.get::<_, bool>(0));
}

#[tokio::test]
async fn a_wrong_expired_or_foreign_key_is_refused_alike() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let made = make(&house, ada.token(), &["identity.member.read"]).await.unwrap();
    let key = made.api_key.unwrap();
    // The same public id with another secret, and another environment: both have a right checksum.
    let swapped = loop {
        let other = kit::crypto::ApiKey::generate("test");
        if let Some(text) = with_public_id(&other, &key.public_id) {
            break text;
        }
    };
    let foreign = kit::crypto::ApiKey::generate("prod");
    let unknown = kit::crypto::ApiKey::generate("test");
    for text in ["nonsense", "b3_test_", &swapped, foreign.expose(), unknown.expose()] {
        let refused = exchange(&house, text).await.unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), refused.code()),
            ("CREDENTIAL_INVALID", Code::Unauthenticated)
        );
        assert_eq!(refused.message(), "the credential is not valid");
    }
    // Of these, only the swapped one is a guess at a key that there is.
    let refusals = house.audited("identity.ExchangeApiKey").await;
    let [refusal] = refusals.as_slice() else {
        panic!("{refusals:?}");
    };
    assert_eq!(
        (&refusal.organization_id, refusal.outcome()),
        (&ada.org, Outcome::Failure)
    );
    assert_eq!(
        (refusal.reason.as_str(), &refusal.resource.as_ref().unwrap().id),
        ("CREDENTIAL_INVALID", &key.id)
    );
    for text in [String::new(), "x".repeat(513)] {
        assert_eq!(violations(&exchange(&house, &text).await.unwrap_err()), ["api_key"]);
    }
    for end in ["expires_at", "revoked_at"] {
        let made = make(&house, ada.token(), &["identity.member.read"]).await.unwrap();
        let id = made.api_key.unwrap().id;
        assert!(!held(&house, &ada, &id).await.is_empty());
        house
            .sql(&format!("update api_keys set {end} = now() where id = '{id}'"))
            .await;
        assert_eq!(reason(exchange(&house, &made.secret).await), "CREDENTIAL_INVALID");
        let refusal = house.audited("identity.ExchangeApiKey").await.pop().unwrap();
        assert_eq!(refusal.actor.unwrap().id, id);
        assert!(held(&house, &ada, &id).await.is_empty() && !active(&house, &id).await);
    }
}

/// The text of a key with another's public id and a checksum that is right for it.
fn with_public_id(key: &kit::crypto::ApiKey, public_id: &str) -> Option<String> {
    let stem = key.expose().replace(key.public_id(), public_id);
    let body = &stem[..stem.len() - 6];
    let mut rest = crc32fast::hash(body.as_bytes());
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut checksum = [0_u8; 6];
    for digit in checksum.iter_mut().rev() {
        *digit = digits[(rest % 62) as usize];
        rest /= 62;
    }
    let text = format!("{body}{}", std::str::from_utf8(&checksum).ok()?);
    kit::crypto::ApiKey::parse(&text).ok().map(|_| text)
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_nowhere() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let request = CreateApiKeyRequest {
        name: "once".to_owned(),
        scopes: vec!["designs.*.*".to_owned()],
        request_id: request_id(),
        ..Default::default()
    };
    let mut client = house.keys(ada.token());
    let made = client.create_api_key(request.clone()).await.unwrap().into_inner();
    let refused = client.create_api_key(request.clone()).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), refused.code()),
        ("SECRET_ALREADY_SHOWN", Code::AlreadyExists)
    );
    assert_eq!(metadata(&refused, "resource_id"), made.api_key.unwrap().id);
    let other = CreateApiKeyRequest {
        name: "twice".to_owned(),
        ..request
    };
    assert_eq!(reason(client.create_api_key(other).await), "REQUEST_ID_REUSED");
    assert_eq!(house.count("api_keys").await, 1);
    let secret = &made.secret[made.secret.len() - 49..made.secret.len() - 6];
    let admin = house.served.database.admin().await;
    for table in ["api_keys", "requests", "outbox"] {
        let rows = admin
            .query(&format!("select t::text from identity.{table} t"), &[])
            .await
            .unwrap();
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!rows.is_empty());
        assert!(
            rows.iter()
                .all(|row| !row.get::<_, &str>(0).contains(secret) && !row.get::<_, &str>(0).contains(&hex))
        );
    }
}

#[tokio::test]
async fn nobody_mints_a_key_beyond_their_own_permissions_and_live_permissions_cut_it() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "admin").await;
    // An admin holds everything that is known today, but not what will be; nor do grants that mean nothing yet pass.
    for beyond in ["*.*.*", "audit.*.*", "billing.*.*"] {
        let refused = make(&house, grace.token(), &["designs.*.read", beyond])
            .await
            .unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), metadata(&refused, "permissions").as_str()),
            ("ESCALATION", beyond)
        );
    }
    assert!(make(&house, ada.token(), &["billing.*.*"]).await.is_ok());
    assert!(make(&house, grace.token(), &["designs.castle.*"]).await.is_ok());
    let made = make(&house, grace.token(), &["designs.*.*", "identity.*.*"])
        .await
        .unwrap();
    let key = made.api_key.unwrap();
    assert!(
        held(&house, &ada, &key.id)
            .await
            .contains(&"designs.design.write".to_owned())
    );
    house.update_member(&ada, &grace.user, "viewer").await.unwrap();
    let now = held(&house, &ada, &key.id).await;
    assert!(
        !now.contains(&"designs.design.write".to_owned()) && now.contains(&"designs.design.read".to_owned()),
        "{now:?}"
    );
    eventually("the key has lost what its creator lost", async || {
        let request = InviteMemberRequest {
            email: "x@example.com".to_owned(),
            role: "viewer".to_owned(),
            request_id: String::new(),
        };
        house.organizations(&made.secret).invite_member(request).await.is_err()
    })
    .await;
    house
        .sql(&format!(
            "delete from organization_members where user_id = '{}'",
            grace.user
        ))
        .await;
    assert!(held(&house, &ada, &key.id).await.is_empty());
}

#[tokio::test]
async fn a_key_makes_keys_of_its_creator_within_its_own_scopes() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let parent = make(&house, ada.token(), &["identity.api_key.write", "designs.*.read"])
        .await
        .unwrap();
    let refused = make(&house, &parent.secret, &["designs.*.*"]).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), refused.code()),
        ("ESCALATION", Code::PermissionDenied)
    );
    assert!(metadata(&refused, "permissions").contains("designs.design.write"));
    let child = make(&house, &parent.secret, &["designs.*.read"])
        .await
        .unwrap()
        .api_key
        .unwrap();
    assert_eq!(child.creator_id, ada.user);
    for beyond in ["billing.*.*", "designs.castle.write", "*.*.read"] {
        let refused = make(&house, &parent.secret, &[beyond]).await;
        assert_eq!(reason(refused), "ESCALATION", "{beyond}");
    }
    assert!(make(&house, &parent.secret, &["designs.castle.read"]).await.is_ok());
}

#[tokio::test]
async fn no_key_outlives_the_key_that_made_it() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let parent = house
        .keys(ada.token())
        .create_api_key(ending("identity.api_key.write", 600))
        .await
        .unwrap()
        .into_inner();
    let end = parent.api_key.unwrap().expires_at;
    let mut keys = house.keys(&parent.secret);
    let later = keys
        .create_api_key(ending("identity.api_key.write", 700))
        .await
        .unwrap_err();
    assert_eq!(violations(&later), ["expires_at"]);
    let unsaid = CreateApiKeyRequest {
        expires_at: None,
        ..ending("identity.api_key.write", 0)
    };
    let child = keys.create_api_key(unsaid).await.unwrap().into_inner();
    assert_eq!(child.api_key.unwrap().expires_at, end);
    let sooner = ending("identity.api_key.write", 300);
    let grandchild = house.keys(&child.secret).create_api_key(sooner.clone()).await.unwrap();
    assert_eq!(grandchild.into_inner().api_key.unwrap().expires_at, sooner.expires_at);
}

#[tokio::test]
async fn a_repeat_is_told_that_its_secret_was_shown_also_when_the_end_has_come_near() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    // Made when its end was a minute ahead; by now it is not.
    let request = CreateApiKeyRequest {
        request_id: request_id(),
        ..ending("identity.member.read", 66)
    };
    let mut client = house.keys(ada.token());
    let made = client.create_api_key(request.clone()).await.unwrap().into_inner();
    eventually("the end is less than a minute ahead", async || {
        let fresh = CreateApiKeyRequest {
            request_id: String::new(),
            ..request.clone()
        };
        let refused = client.create_api_key(fresh).await;
        refused.is_err_and(|status| violations(&status) == ["expires_at"])
    })
    .await;
    let repeated = client.create_api_key(request).await.unwrap_err();
    assert_eq!(reason_of(&repeated), "SECRET_ALREADY_SHOWN");
    assert_eq!(metadata(&repeated, "resource_id"), made.api_key.unwrap().id);
}

#[tokio::test]
async fn every_violation_of_a_key_is_told_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
    let request = CreateApiKeyRequest {
        name: String::new(),
        scopes: vec![
            "designs.*.read".to_owned(),
            "designs.*".to_owned(),
            "Designs.x.y".to_owned(),
        ],
        expires_at: Some(soon.into()),
        ..Default::default()
    };
    let refused = house.keys(ada.token()).create_api_key(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["expires_at", "name", "scopes[1]", "scopes[2]"]);
    let refused = house
        .keys(ada.token())
        .create_api_key(CreateApiKeyRequest::default())
        .await
        .unwrap_err();
    assert_eq!(violations(&refused), ["name", "scopes"]);
    for seconds in [-1, 10, 367 * 24 * 3600, i64::MAX / 2] {
        let refused = house
            .keys(ada.token())
            .create_api_key(ending("designs.*.read", seconds))
            .await;
        assert_eq!(violations(&refused.unwrap_err()), ["expires_at"], "{seconds}");
    }
    assert_eq!(house.count("api_keys").await, 0);
}
