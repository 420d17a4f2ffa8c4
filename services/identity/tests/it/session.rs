//! Refresh tokens, logging out, and switching organizations.

use api::{
    events::v1::{Outcome, SessionRevoked, event::Payload},
    identity::v1::*,
};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::house::{House, Person, eventually, reason, violations};

/// Lets ten seconds pass for all sessions.
const LATER: &str = "update sessions set rotated_at = rotated_at - interval '11 seconds'";

async fn refused_everywhere(house: &House, person: &Person) {
    eventually("the access token is refused", async || {
        let answer = house.users(person.token()).get_me(GetMeRequest {}).await;
        answer.is_err_and(|status| crate::house::reason_of(&status) == "SESSION_REVOKED")
    })
    .await;
}

#[tokio::test]
async fn fifty_refreshes_at_once_get_one_successor_and_nobody_is_logged_out() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let all = join_all((0..50).map(|_| house.refresh(&ada.tokens.refresh_token))).await;
    let mut successors: Vec<_> = all.into_iter().map(|answer| answer.unwrap().refresh_token).collect();
    successors.sort();
    successors.dedup();
    assert_eq!(successors.len(), 1);
    assert!(house.active(&ada).await);
    let next = house.refresh(&successors[0]).await.unwrap();
    assert_eq!(next.session_id, ada.tokens.session_id);
    assert_ne!(next.refresh_token, successors[0]);
    let user = house
        .users(&next.access_token)
        .get_me(GetMeRequest {})
        .await
        .unwrap()
        .into_inner()
        .user
        .unwrap();
    assert_eq!(user.id, ada.user);
}

#[tokio::test]
async fn a_token_repeated_after_ten_seconds_ends_the_session() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let next = house.refresh(&ada.tokens.refresh_token).await.unwrap();
    house.sql(LATER).await;
    assert_eq!(
        reason(house.refresh(&ada.tokens.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
    assert_eq!(
        reason(house.refresh(&next.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
    assert!(!house.active(&ada).await);
    let session_id = ada.tokens.session_id.clone();
    let told = house.told().await;
    assert!(told.contains(&(
        ada.org.clone(),
        Payload::SessionRevoked(SessionRevoked {
            session_id: session_id.clone()
        })
    )));
    let [event] = &house.audited("identity.RefreshToken").await[..] else {
        panic!("one event")
    };
    assert_eq!(
        (event.outcome(), event.reason.as_str()),
        (Outcome::Failure, "REFRESH_TOKEN_INVALID")
    );
    assert_eq!(event.resource.clone().unwrap().id, session_id);
    refused_everywhere(&house, &ada).await;
}

#[tokio::test]
async fn a_session_that_ends_by_theft_and_its_audit_event_are_one_transaction() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house.refresh(&ada.tokens.refresh_token).await.unwrap();
    house.sql(LATER).await;
    // Notes which transaction ends a session and which ones write to the outbox.
    house
        .sql(
            "create table noted (what text, xact text);
             create function note() returns trigger language plpgsql security definer as
               $$ begin insert into identity.noted values (tg_table_name, pg_current_xact_id()::text); return null; end $$;
             create trigger note after update of revoked_at on sessions for each row execute function note();
             create trigger note after insert on outbox for each row execute function note();",
        )
        .await;
    assert!(house.refresh(&ada.tokens.refresh_token).await.is_err());
    let admin = house.served.database.admin().await;
    let noted = "select what, count(*), min(xact) from identity.noted group by what order by what";
    let noted = admin.query(noted, &[]).await.unwrap();
    let count = |row: usize| noted[row].get::<_, i64>(1);
    let (outbox, sessions) = (0, 1);
    // The revocation for peers, and the failure for the trail.
    assert_eq!((count(outbox), count(sessions)), (2, 1));
    let all = admin
        .query_one("select count(distinct xact) from identity.noted", &[])
        .await;
    assert_eq!(all.unwrap().get::<_, i64>(0), 1);
    assert_eq!(house.audited("identity.RefreshToken").await.len(), 1);
}

#[tokio::test]
async fn a_token_whose_successor_was_used_ends_the_session_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let second = house.refresh(&ada.tokens.refresh_token).await.unwrap();
    let third = house.refresh(&second.refresh_token).await.unwrap();
    assert_eq!(
        reason(house.refresh(&ada.tokens.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
    assert_eq!(
        reason(house.refresh(&third.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
}

#[tokio::test]
async fn another_session_of_the_user_outlives_one_that_was_ended() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let other = house.login(&ada.email).await;
    house.refresh(&ada.tokens.refresh_token).await.unwrap();
    house.sql(LATER).await;
    assert!(house.refresh(&ada.tokens.refresh_token).await.is_err());
    assert!(house.refresh(&other.refresh_token).await.is_ok());
}

#[tokio::test]
async fn a_made_up_token_is_refused_and_ends_nothing() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let genuine = ada.tokens.refresh_token.clone();
    let mut changed = genuine.clone().into_bytes();
    changed[60] ^= 1;
    let wrong = [
        "b3r_",
        "nonsense",
        &genuine[..genuine.len() - 4],
        std::str::from_utf8(&changed).unwrap(),
    ];
    for token in wrong {
        assert_eq!(reason(house.refresh(token).await), "REFRESH_TOKEN_INVALID", "{token}");
    }
    for token in [String::new(), "x".repeat(513)] {
        assert_eq!(violations(&house.refresh(&token).await.unwrap_err()), ["refresh_token"]);
    }
    assert!(house.refresh(&genuine).await.is_ok());
}

#[tokio::test]
async fn sessions_end_by_age_and_by_idleness() {
    let house = House::open().await;
    for limit in ["expires_at", "idle_expires_at"] {
        let person = house.person(&limit.replace('_', "-")).await;
        let id = &person.tokens.session_id;
        house
            .sql(&format!(
                "update sessions set {limit} = now() - interval '1 second' where id = '{id}'"
            ))
            .await;
        assert_eq!(
            reason(house.refresh(&person.tokens.refresh_token).await),
            "REFRESH_TOKEN_INVALID"
        );
        assert!(!house.active(&person).await);
    }
}

#[tokio::test]
async fn an_old_epoch_or_another_user_is_no_active_session() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    assert!(house.active(&ada).await);
    let swapped = Person {
        user: grace.user.clone(),
        ..ada.clone()
    };
    assert!(!house.active(&swapped).await);
    house.sql("update users set epoch = 2").await;
    assert!(!house.active(&ada).await);
}

#[tokio::test]
async fn logging_out_ends_the_session_everywhere_and_in_redis() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let redis = &house.served.running.kit.redis;
    let key = redis.key([format!("session:{}", ada.tokens.session_id)]);
    let live: serde_json::Value = serde_json::from_slice(&redis.get(&key).await.unwrap().unwrap()).unwrap();
    assert_eq!(
        (live["user"].as_str().unwrap(), live["device"].as_str().unwrap()),
        (ada.user.as_str(), "test")
    );
    house.auth(ada.token()).logout(LogoutRequest {}).await.unwrap();
    assert_eq!(redis.get(&key).await.unwrap(), None);
    assert!(!house.active(&ada).await);
    assert_eq!(
        reason(house.refresh(&ada.tokens.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
    refused_everywhere(&house, &ada).await;
    assert_eq!(house.audited("identity.Logout").await.len(), 1);
}

#[tokio::test]
async fn switching_opens_another_session_that_ends_no_later() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    assert_eq!(reason(house.switch(&grace, &ada.org).await), "RESOURCE_NOT_FOUND");
    assert_eq!(
        reason(house.switch(&grace, &Uuid::now_v7().to_string()).await),
        "RESOURCE_NOT_FOUND"
    );
    assert_eq!(
        violations(&house.switch(&grace, "").await.unwrap_err()),
        ["organization_id"]
    );
    let invitation = house.invite(&ada, &grace.email, "viewer").await.unwrap();
    house.accept(&grace, &invitation.token).await.unwrap();
    let there = house.switch(&grace, &ada.org).await.unwrap();
    assert_eq!(there.organization_id, ada.org);
    assert_ne!(there.session_id, grace.tokens.session_id);
    assert_eq!(there.session_expires_at, grace.tokens.session_expires_at);
    assert!(house.active(&grace).await);
    assert!(house.refresh(&grace.tokens.refresh_token).await.is_ok());
    let me = house
        .users(&there.access_token)
        .get_me(GetMeRequest {})
        .await
        .unwrap()
        .into_inner();
    let current: Vec<_> = me
        .memberships
        .iter()
        .map(|one| (one.organization_id.as_str(), one.current))
        .collect();
    assert_eq!(current, [(grace.org.as_str(), false), (ada.org.as_str(), true)]);
}
