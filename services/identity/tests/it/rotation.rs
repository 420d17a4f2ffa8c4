//! Successors of API keys: the old key works on for the overlap, and nobody gets a secret that they could not have made.

use std::time::{Duration, SystemTime};

use api::identity::v1::*;
use kit::failpoint::{self, Action, arm};
use prost_types::Timestamp;
use tonic::Status;

use crate::house::{House, eventually, metadata, reason, reason_of, request_id, violations};
use crate::without::fails_without;

const DAY: i64 = 24 * 3600;

impl House {
    pub(crate) async fn rotate(
        &self,
        credential: &str,
        key: &str,
        overlap: Option<i64>,
    ) -> Result<RotateApiKeyResponse, Status> {
        let request = RotateApiKeyRequest {
            api_key_id: key.to_owned(),
            overlap: overlap.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            request_id: String::new(),
        };
        Ok(self.keys(credential).rotate_api_key(request).await?.into_inner())
    }
}

fn seconds(time: Option<Timestamp>) -> i64 {
    time.unwrap().seconds
}

/// Whether a time is so far ahead, give or take two minutes.
fn is_ahead(time: Option<Timestamp>, ahead: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let wanted = i64::try_from(now.as_secs()).unwrap() + ahead;
    (seconds(time) - wanted).abs() < 120
}

#[tokio::test]
async fn a_rotated_key_works_on_for_the_overlap_and_its_successor_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let old = house.key(ada.token(), &["identity.member.read"]).await.unwrap();
    let key = old.api_key.unwrap();
    let new = house.rotate(ada.token(), &key.id, None).await.unwrap();
    assert!(is_ahead(new.old_expires_at, DAY), "{:?}", new.old_expires_at);
    let successor = new.api_key.unwrap();
    assert!(new.secret.starts_with(&successor.prefix) && successor.public_id != key.public_id);
    assert_eq!(
        (&successor.name, &successor.scopes, &successor.creator_id),
        (&key.name, &key.scopes, &key.creator_id)
    );
    let life = |key: &ApiKey| seconds(key.expires_at) - seconds(key.created_at);
    assert!((life(&successor) - life(&key)).abs() <= 1);
    for secret in [&old.secret, &new.secret] {
        house.lists_members(secret).await.unwrap();
    }
    let shown = house.get_key(ada.token(), &key.id).await.unwrap();
    assert_eq!(shown.expires_at, new.old_expires_at);
    house
        .sql(&format!(
            "update api_keys set expires_at = now() where id = '{}'",
            key.id
        ))
        .await;
    let exchange = ExchangeApiKeyRequest { api_key: old.secret };
    assert_eq!(
        reason(house.auth("").exchange_api_key(exchange).await),
        "CREDENTIAL_INVALID"
    );
    house.lists_members(&new.secret).await.unwrap();
    let [event] = &house.audited("identity.RotateApiKey").await[..] else {
        panic!("one event")
    };
    assert_eq!(event.resource.clone().unwrap().id, successor.id);
}

#[tokio::test]
async fn without_an_overlap_the_old_key_ends_everywhere() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let old = house.key(ada.token(), &["identity.member.read"]).await.unwrap();
    house.lists_members(&old.secret).await.unwrap();
    let key = old.api_key.unwrap().id;
    let new = house.rotate(ada.token(), &key, Some(0)).await.unwrap();
    assert!(is_ahead(new.old_expires_at, 0));
    assert_eq!(house.ended().await, std::slice::from_ref(&key));
    eventually("the old key is over", async || {
        house.lists_members(&old.secret).await.is_err()
    })
    .await;
    house.lists_members(&new.secret).await.unwrap();
    assert_eq!(
        reason(house.rotate(ada.token(), &key, None).await),
        "RESOURCE_NOT_FOUND"
    );
}

#[tokio::test]
async fn no_overlap_lengthens_a_life() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let soon = SystemTime::now() + Duration::from_secs(3600);
    let request = CreateApiKeyRequest {
        name: "short".to_owned(),
        scopes: vec!["identity.member.read".to_owned()],
        expires_at: Some(soon.into()),
        ..Default::default()
    };
    let made = house
        .keys(ada.token())
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let key = made.api_key.unwrap();
    let new = house.rotate(ada.token(), &key.id, Some(7 * DAY)).await.unwrap();
    assert_eq!(new.old_expires_at, key.expires_at);
    assert!(is_ahead(new.api_key.unwrap().expires_at, 3600));
    for overlap in [-1, 299, 7 * DAY + 1, i64::MAX] {
        let refused = house.rotate(ada.token(), &key.id, Some(overlap)).await.unwrap_err();
        assert_eq!(violations(&refused), ["overlap"], "{overlap}");
    }
    let refused = house.rotate(ada.token(), "x", Some(-1)).await.unwrap_err();
    assert_eq!(violations(&refused), ["api_key_id", "overlap"]);
}

#[tokio::test]
async fn who_rotates_a_key_could_have_made_it() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.colleague(&ada, "admin", "admin").await;
    let account = house.service_account(ada.token(), "ci", "owner").await.unwrap();
    // Of a service account: whoever holds its scopes.
    let strong = house.key_of(ada.token(), &account.id, &["*.*.*"]).await.unwrap();
    let modest = house
        .key_of(ada.token(), &account.id, &["designs.*.read"])
        .await
        .unwrap();
    let refused = house.rotate(admin.token(), &strong.api_key.unwrap().id, None).await;
    assert_eq!(reason(refused), "ESCALATION");
    let modest = modest.api_key.unwrap();
    let successor = house
        .rotate(admin.token(), &modest.id, None)
        .await
        .unwrap()
        .api_key
        .unwrap();
    assert_eq!(
        (&successor.service_account_id, &successor.creator_id),
        (&account.id, &ada.user)
    );
    // Of a person: that person, and the person's keys.
    let own = house
        .key(ada.token(), &["designs.*.read"])
        .await
        .unwrap()
        .api_key
        .unwrap();
    assert_eq!(reason(house.rotate(admin.token(), &own.id, None).await), "ESCALATION");
    let robot = house
        .key_of(ada.token(), &account.id, &["designs.*.read", "identity.api_key.write"])
        .await
        .unwrap();
    assert_eq!(reason(house.rotate(&robot.secret, &own.id, None).await), "ESCALATION");
    let hers = house
        .key(ada.token(), &["designs.*.read", "identity.api_key.write"])
        .await
        .unwrap();
    house.rotate(&hers.secret, &own.id, None).await.unwrap();
    let wider = house.key(ada.token(), &["designs.*.*"]).await.unwrap().api_key.unwrap();
    assert_eq!(reason(house.rotate(&hers.secret, &wider.id, None).await), "ESCALATION");
}

#[tokio::test]
async fn without_the_rule_anybody_rotates_keys_beyond_their_own() {
    let test = "rotation::who_rotates_a_key_could_have_made_it";
    assert!(fails_without("identity.escalation", test).await);
}

#[tokio::test]
async fn a_key_that_rotates_keys_is_not_outlived_by_their_successors() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let soon = SystemTime::now() + Duration::from_secs(3600);
    let request = CreateApiKeyRequest {
        name: "short".to_owned(),
        scopes: vec!["identity.api_key.write".to_owned()],
        expires_at: Some(soon.into()),
        ..Default::default()
    };
    let short = house
        .keys(ada.token())
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let long = house
        .key(ada.token(), &["identity.api_key.write"])
        .await
        .unwrap()
        .api_key
        .unwrap();
    let successor = house.rotate(&short.secret, &long.id, None).await.unwrap();
    assert_eq!(successor.api_key.unwrap().expires_at, short.api_key.unwrap().expires_at);
}

#[tokio::test]
async fn a_repeated_rotation_is_told_that_its_secret_was_shown() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let key = house
        .key(ada.token(), &["designs.*.read"])
        .await
        .unwrap()
        .api_key
        .unwrap();
    let request = RotateApiKeyRequest {
        api_key_id: key.id,
        overlap: None,
        request_id: request_id(),
    };
    let mut keys = house.keys(ada.token());
    let new = keys.rotate_api_key(request.clone()).await.unwrap().into_inner();
    let refused = keys.rotate_api_key(request).await.unwrap_err();
    assert_eq!(reason_of(&refused), "SECRET_ALREADY_SHOWN");
    assert_eq!(metadata(&refused, "resource_id"), new.api_key.unwrap().id);
    assert_eq!(house.count("api_keys").await, 2);
}

#[tokio::test]
async fn keys_that_have_ended_or_are_others_are_not_rotated() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let foreign = house.key(eve.token(), &["designs.*.read"]).await.unwrap();
    let foreign = foreign.api_key.unwrap().id;
    let revoked = house.key(ada.token(), &["designs.*.read"]).await.unwrap();
    let revoked = revoked.api_key.unwrap().id;
    house.revoke_key(ada.token(), &revoked).await.unwrap();
    for key in [foreign, revoked] {
        let refused = house.rotate(ada.token(), &key, None).await.unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), metadata(&refused, "resource").as_str()),
            ("RESOURCE_NOT_FOUND", "api_key")
        );
    }
}

/// Somebody rotates a key and stops where it was found standing; somebody else revokes it.
/// Answers whether it was revoked before the other went on, so that a revoked key got a successor.
async fn overtaken(house: &House, org: &str, credential: &str) -> bool {
    let key = house.key(credential, &["designs.*.read"]).await.unwrap();
    let id = key.api_key.unwrap().id;
    let point = arm(format!("identity.key_found/{org}"), Action::Hold);
    let (mut rotating, mut revoking) = (house.keys(credential), house.keys(credential));
    let request = RotateApiKeyRequest {
        api_key_id: id.clone(),
        ..Default::default()
    };
    let rotating = tokio::spawn(async move { rotating.rotate_api_key(request).await });
    point.held(1).await;
    let request = RevokeApiKeyRequest {
        api_key_id: id.clone(),
        request_id: String::new(),
    };
    let revoking = tokio::spawn(async move { revoking.revoke_api_key(request).await });
    let admin = house.served.database.admin().await;
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the revocation to wait or to have an answer", async || {
        revoking.is_finished() || admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    let overtaken = revoking.is_finished();
    point.release();
    rotating.await.unwrap().unwrap();
    revoking.await.unwrap().unwrap();
    assert!(house.get_key(credential, &id).await.unwrap().revoked_at.is_some());
    overtaken
}

#[tokio::test]
async fn a_key_that_is_revoked_meanwhile_gets_no_successor_afterwards() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    assert!(!overtaken(&house, &ada.org, ada.token()).await);
    let _without = failpoint::switch_off(format!("identity.key_lock/{}", ada.org));
    assert!(overtaken(&house, &ada.org, ada.token()).await);
}
