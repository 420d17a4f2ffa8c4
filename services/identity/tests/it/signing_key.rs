//! Signing keys: made once, sealed, replaced in time, dropped at once, and never a reason to refuse anybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::{
    events::v1::event::Payload,
    identity::v1::{auth_service_client::AuthServiceClient, signing_key_service_client::SigningKeyServiceClient, *},
};
use kit::{
    auth::token::{self, AccessClaims},
    crypto::KeyRing,
    failpoint,
    ids::{OrgId, Principal, UserId},
};
use secrecy::ExposeSecret;
use tonic::Status;
use uuid::Uuid;

use crate::{
    house::{House, reason, request_id, violations},
    installation::{
        Installation, at_designs, at_identity, eventually, exchange, fetched_for_the_unknown, kid, replica,
    },
    without::fails_without,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_find_no_key_make_one_and_its_seed_lies_sealed() {
    let house = Installation::open().await;
    house.sql("delete from signing_keys").await;
    let others = [
        replica(&house.identity).await,
        replica(&house.identity).await,
        replica(&house.identity).await,
    ];
    eventually("there is a key", async || house.count("signing_keys").await > 0).await;
    // Each of them has looked since.
    for grpc in others.iter().map(|other| other.grpc) {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{grpc}")).unwrap();
        let replica = AuthServiceClient::new(channel.connect_lazy());
        eventually("the replica signs", async || {
            let request = ExchangeApiKeyRequest {
                api_key: house.platform.clone(),
            };
            replica.clone().exchange_api_key(request).await.is_ok()
        })
        .await;
    }
    assert_eq!(house.count("signing_keys").await, 1);

    let row = house
        .admin
        .query_one("select kid, seed, public_key from signing_keys", &[])
        .await
        .unwrap();
    let (kid, sealed, public_key): (String, Vec<u8>, String) = (row.get(0), row.get(1), row.get(2));
    let ring = KeyRing::parse(&house.env("ENCRYPTION_KEY"), "").unwrap();
    let seed = ring.open(&sealed, kid.as_bytes()).unwrap();
    let key = token::SigningKey::from_seed(seed.expose_secret().try_into().unwrap());
    assert_eq!((key.key_id(), key.public_key()), (kid.as_str(), public_key));
    assert!(ring.open(&sealed, b"k4.pid.of-another").is_err());
    for other in others {
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_told_of_then_signs_then_is_believed_and_then_is_gone() {
    let house = Installation::open().await;
    let (first_version, first) = house.set().await;
    let request = RotateSigningKeyRequest {
        request_id: request_id(),
    };
    let made = house
        .keys()
        .rotate_signing_key(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = house.keys().rotate_signing_key(request).await.unwrap().into_inner();
    assert_eq!(made, again, "a repeat makes no other key");
    let made = made.key.unwrap();
    assert_eq!(made.state(), SigningKeyState::Pending);
    let (version, both) = house.set().await;
    assert_eq!(both, [first[0].clone(), made.key_id.clone()]);
    assert!(version > first_version);
    let token = house.token(&house.platform).await;
    assert_eq!(kid(&token), first[0], "nothing is signed with it yet");

    let due = format!(
        "update signing_keys set activates_at = now() where kid = '{}'",
        made.key_id
    );
    house.sql(&due).await;
    eventually("the new key signs", async || {
        kid(&house.token(&house.platform).await) == made.key_id
    })
    .await;
    let states: Vec<_> = house.list().await.iter().map(SigningKey::state).collect();
    assert_eq!(states, [SigningKeyState::Active, SigningKeyState::Retired]);
    assert_eq!(house.count("signing_keys where seed is null").await, 1);
    assert_eq!(house.set().await.1, both);
    at_identity(&house.identity, &token).await.unwrap();

    house
        .sql("update signing_keys set retired_at = retired_at - interval '331 seconds' where state = 'retired'")
        .await;
    eventually("the old key is dropped", async || {
        house.set().await.1 == [made.key_id.clone()]
    })
    .await;
    assert!(house.set().await.0 > version);
    let told: Vec<_> = house
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event.payload {
            Some(Payload::SigningKeysChanged(changed)) => Some(changed.version),
            _ => None,
        })
        .collect();
    assert_eq!(told, [version, house.set().await.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_thirty_days_is_replaced_by_itself_and_the_trail_says_so() {
    let house = Installation::open().await;
    house
        .sql("update signing_keys set activates_at = activates_at - interval '30 days'")
        .await;
    eventually("there is another key", async || house.set().await.1.len() == 2).await;
    let states: Vec<_> = house.list().await.iter().map(SigningKey::state).collect();
    assert_eq!(states, [SigningKeyState::Pending, SigningKeyState::Active]);
    let trail = house.events().await;
    let replaced = trail.iter().find(|event| event.action == "identity.RotateSigningKey");
    let resource = replaced.unwrap().resource.clone().unwrap();
    assert_eq!(
        (resource.r#type.as_str(), resource.id),
        ("signing_key", house.list().await[0].key_id.clone())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_platforms_organization_looks_at_keys_and_changes_them() {
    let house = Installation::open().await;
    let elsewhere = house.api_key(OrgId::new()).await;
    let mut keys = SigningKeyServiceClient::new(house.identity.with(&elsewhere));
    let active = house.list().await[0].key_id.clone();
    let revoke = |key_id: &str| RevokeSigningKeyRequest {
        key_id: key_id.to_owned(),
        request_id: String::new(),
    };
    assert_eq!(
        reason(keys.list_signing_keys(ListSigningKeysRequest::default()).await),
        "CALLER_NOT_ALLOWED"
    );
    assert_eq!(
        reason(keys.rotate_signing_key(RotateSigningKeyRequest::default()).await),
        "CALLER_NOT_ALLOWED"
    );
    assert_eq!(
        reason(keys.revoke_signing_key(revoke(&active)).await),
        "CALLER_NOT_ALLOWED"
    );
    assert_eq!(house.count("signing_keys where state = 'active'").await, 1);
    assert_eq!(house.count("signing_keys").await, 1);

    let mut keys = house.keys();
    let negative = ListSigningKeysRequest {
        page_size: -1,
        ..Default::default()
    };
    let refused = keys.list_signing_keys(negative).await.unwrap_err();
    assert_eq!(violations(&refused), ["page_size"]);
    let unreal = ListSigningKeysRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(keys.list_signing_keys(unreal).await), "PAGE_TOKEN_INVALID");
    for wrong in ["", "x", "k4.pid.x", &active.replace("k4.pid", "k4.sid")] {
        let refused = keys.revoke_signing_key(revoke(wrong)).await.unwrap_err();
        assert_eq!(violations(&refused), ["key_id"], "{wrong}");
    }
    let stranger = token::SigningKey::from_seed(&[42; 32]);
    let unknown = keys.revoke_signing_key(revoke(stranger.key_id())).await;
    assert_eq!(reason(unknown), "RESOURCE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_listed_newest_first_in_pages() {
    let house = Installation::open().await;
    for _ in 0..4 {
        house.rotate().await;
    }
    let all = house.list().await;
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by(|a, b| {
        let made = |key: &SigningKey| key.created_at.map(|at| (at.seconds, at.nanos));
        made(a) >= made(b)
    }));
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSigningKeysRequest {
            page_size: 2,
            page_token,
        };
        let page = house.keys().list_signing_keys(request).await.unwrap().into_inner();
        assert!(page.keys.len() <= 2);
        seen.extend(page.keys);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_keys_tokens_are_void_everywhere_soon_and_everybody_goes_on_with_another() {
    let house = Installation::open().await;
    let designs = house.designs().await;
    let other = replica(&house.identity).await;
    let api_key = house.api_key(OrgId::new()).await;
    let token = house.token(&api_key).await;
    for _ in 0..2 {
        // Remembered from here on, in both places; the API key's exchange too.
        for credential in [&token, &api_key] {
            at_designs(&designs, credential).await.unwrap();
            at_identity(&house.identity, credential).await.unwrap();
        }
    }
    let (version, _) = house.set().await;
    let revoked = house.revoke(&kid(&token)).await;
    assert_eq!(revoked.state(), SigningKeyState::Revoked);
    eventually("designs refuses the token", async || {
        at_designs(&designs, &token).await.is_err()
    })
    .await;
    eventually("identity refuses the token", async || {
        at_identity(&house.identity, &token).await.is_err()
    })
    .await;
    assert_eq!(reason(at_designs(&designs, &token).await), "CREDENTIAL_INVALID");
    let (later, set) = house.set().await;
    assert!(later > version && set.len() == 1 && set[0] != revoked.key_id);

    // Who holds more than the token gets another; whoever signs it, it is one of the new key.
    let fresh = house.token(&api_key).await;
    assert_eq!(kid(&fresh), set[0]);
    eventually("a fresh token and the API key itself open designs", async || {
        at_designs(&designs, &fresh).await.is_ok() && at_designs(&designs, &api_key).await.is_ok()
    })
    .await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", other.grpc)).unwrap();
    let replicas = AuthServiceClient::new(channel.connect_lazy());
    eventually("the other replica signs with the new key", async || {
        let request = ExchangeApiKeyRequest {
            api_key: api_key.clone(),
        };
        let answer = replicas.clone().exchange_api_key(request).await;
        answer.is_ok_and(|answer| kid(&answer.into_inner().access_token) == set[0])
    })
    .await;

    // It was revoked; that it is again changes nothing.
    assert_eq!(house.revoke(&revoked.key_id).await, revoked);
    assert_eq!(house.set().await, (later, set));
    other.stop().await;
}

#[tokio::test]
async fn without_the_look_at_the_key_remembered_tokens_outlive_it() {
    let test = "signing_key::a_revoked_keys_tokens_are_void_everywhere_soon_and_everybody_goes_on_with_another";
    assert!(fails_without("keys.believed", test).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_by_its_refresh_token_when_its_tokens_key_is_revoked() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let house = Installation::of(house.served, "test").await;
    house.revoke(&kid(ada.token())).await;
    eventually("the token is refused", async || {
        at_identity(&house.identity, ada.token()).await.is_err()
    })
    .await;
    let request = RefreshTokenRequest {
        refresh_token: ada.tokens.refresh_token.clone(),
    };
    let mut anybody = AuthServiceClient::new(house.identity.channel());
    let refreshed = anybody.refresh_token(request).await.unwrap();
    let tokens = refreshed.into_inner().tokens.unwrap();
    assert_eq!(tokens.session_id, ada.tokens.session_id);
    eventually("the session's next token is believed", async || {
        at_identity(&house.identity, &tokens.access_token).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_signs_nothing_before_verifiers_had_time_to_learn_of_it() {
    // An environment of its own: its verifiers are stopped here, and no other test's.
    let house = Installation::open_with("lead", &[]).await;
    let designs = house.designs().await;
    let api_key = house.api_key(OrgId::new()).await;
    let old = house.token(&api_key).await;
    at_designs(&designs, &old).await.unwrap();

    let verifiers = failpoint::arm("keys.refresh/lead", failpoint::Action::Hold);
    let made = house.rotate().await;
    // Both gates were told, and know the new key only when they have fetched it.
    verifiers.held(2).await;
    // A stranger's token has identity look at its keys.
    let claims = AccessClaims {
        principal: Principal::User(UserId::new()),
        org: None,
        session: Uuid::now_v7(),
        epoch: 1,
        permission_version: 1,
        expires_at: std::time::SystemTime::now() + Duration::from_secs(60),
    };
    let stranger = token::SigningKey::from_seed(&[42; 32]).sign_access("lead", &claims);
    assert_eq!(
        reason(at_identity(&house.identity, &stranger).await),
        "CREDENTIAL_INVALID"
    );
    let token = house.token(&api_key).await;
    at_designs(&designs, &token).await.unwrap();
    assert_eq!(kid(&token), kid(&old));
    assert_eq!(fetched_for_the_unknown(&designs), 0.0);

    verifiers.release();
    let version = house.admin.query_one("select version from signing_key_set", &[]).await;
    let version: i64 = version.unwrap().get(0);
    eventually("designs has learnt of the key", async || {
        let page = designs.running.kit.metrics.render();
        page.lines()
            .any(|line| line.contains("key_set_version") && line.ends_with(&format!(" {version}")))
    })
    .await;
    let due = format!(
        "update signing_keys set activates_at = now() where kid = '{}'",
        made.key_id
    );
    house.sql(&due).await;
    eventually("the new key signs", async || {
        let token = house.token(&api_key).await;
        at_designs(&designs, &token).await.unwrap();
        kid(&token) == made.key_id
    })
    .await;
    assert_eq!(fetched_for_the_unknown(&designs), 0.0);
}

#[tokio::test]
async fn without_the_lead_verifiers_meet_keys_that_they_do_not_know() {
    let test = "signing_key::a_key_signs_nothing_before_verifiers_had_time_to_learn_of_it";
    assert!(fails_without("identity.publish_lead", test).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_are_rotated_each_second_under_load_and_no_request_fails() {
    let house = Installation::open_with("test", &[("BOARD3_SIGNING_KEY_LEAD_SECONDS", "6")]).await;
    let designs = Arc::new(house.designs().await);
    let house = Arc::new(house);
    let ended = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..3 {
        let api_key = house.api_key(OrgId::new()).await;
        let (house, designs, ended) = (house.clone(), designs.clone(), ended.clone());
        callers.push(tokio::spawn(async move {
            let (mut calls, mut signed_by, mut tokens) = (0, Vec::new(), Vec::new());
            while !ended.load(Ordering::SeqCst) {
                let token = exchange(&house.identity, &api_key).await?;
                if signed_by.last() != Some(&kid(&token)) {
                    signed_by.push(kid(&token));
                    tokens.push(token.clone());
                }
                // Also with a token of every key so far, and with the API key itself.
                for credential in tokens.iter().chain([&token, &api_key]) {
                    at_designs(&designs, credential).await?;
                    at_identity(&house.identity, credential).await?;
                    calls += 2;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, Status>((calls, signed_by.len()))
        }));
    }
    let mut last = String::new();
    for _ in 0..10 {
        last = house.rotate().await.key_id;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    eventually("the last key signs", async || {
        kid(&house.token(&house.platform).await) == last
    })
    .await;
    ended.store(true, Ordering::SeqCst);
    for caller in callers {
        let (calls, keys) = caller.await.unwrap().expect("no request fails");
        assert!(calls > 20 && keys > 2, "{calls} calls with {keys} keys");
    }
    assert_eq!(house.set().await.1.len(), 11);
}
