//! The caller's own sessions: seen, and ended one by one or together.

use api::{
    events::v1::{SessionRevoked, event::Payload},
    identity::v1::{session_service_client::SessionServiceClient, *},
};
use testkit::Caller;
use tonic::Status;
use uuid::Uuid;

use crate::house::{House, Person, eventually, login, reason, reason_of, request_id, violations};

fn client(house: &House, token: &str) -> SessionServiceClient<Caller> {
    SessionServiceClient::new(house.served.with(token))
}

async fn list(house: &House, token: &str, size: i32, page: &str) -> Result<ListSessionsResponse, Status> {
    let request = ListSessionsRequest {
        page_size: size,
        page_token: page.to_owned(),
    };
    Ok(client(house, token).list_sessions(request).await?.into_inner())
}

async fn all(house: &House, token: &str) -> Vec<Session> {
    list(house, token, 0, "").await.unwrap().sessions
}

async fn revoke(house: &House, token: &str, session: &str) -> Result<RevokeSessionResponse, Status> {
    let request = RevokeSessionRequest {
        session_id: session.to_owned(),
        request_id: String::new(),
    };
    Ok(client(house, token).revoke_session(request).await?.into_inner())
}

async fn revoke_all(house: &House, token: &str, keep_current: bool) -> i32 {
    let request = RevokeAllSessionsRequest {
        keep_current,
        request_id: String::new(),
    };
    let answer = client(house, token).revoke_all_sessions(request).await;
    answer.unwrap().into_inner().revoked
}

async fn refused(house: &House, tokens: &SessionTokens) {
    assert_eq!(
        reason(house.refresh(&tokens.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
    eventually("the access token is refused", async || {
        let answer = house.users(&tokens.access_token).get_me(GetMeRequest {}).await;
        answer.is_err_and(|status| reason_of(&status) == "SESSION_REVOKED")
    })
    .await;
    let redis = &house.served.running.kit.redis;
    let key = redis.key([format!("session:{}", tokens.session_id)]);
    assert_eq!(redis.get(&key).await.unwrap(), None);
}

fn moment(time: Option<prost_types::Timestamp>) -> (i64, i32) {
    let time = time.unwrap();
    (time.seconds, time.nanos)
}

fn told(org: &str, tokens: &SessionTokens) -> (String, Payload) {
    let session_id = tokens.session_id.clone();
    (org.to_owned(), Payload::SessionRevoked(SessionRevoked { session_id }))
}

/// Ada with a session in her own organization, and two more tokens: in another's organization, and of a login.
async fn at_home_and_abroad(house: &House) -> (Person, Person, SessionTokens, SessionTokens) {
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    let invitation = house.invite(&grace, &ada.email, "viewer").await.unwrap();
    house.accept(&ada, &invitation.token).await.unwrap();
    let abroad = house.switch(&ada, &grace.org).await.unwrap();
    let request = LoginRequest {
        device: "firefox on linux".to_owned(),
        organization_id: ada.org.clone(),
        ..login(&ada.email, crate::house::PASSWORD)
    };
    let third = house
        .auth("")
        .login(request)
        .await
        .unwrap()
        .into_inner()
        .tokens
        .unwrap();
    (ada, grace, abroad, third)
}

#[tokio::test]
async fn sessions_of_all_organizations_are_listed_newest_first() {
    let house = House::open().await;
    let (ada, grace, abroad, third) = at_home_and_abroad(&house).await;
    let sessions = all(&house, ada.token()).await;
    let seen: Vec<_> = sessions
        .iter()
        .map(|one| {
            (
                one.id.as_str(),
                one.organization_id.as_str(),
                one.device.as_str(),
                one.current,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (third.session_id.as_str(), ada.org.as_str(), "firefox on linux", false),
            (&abroad.session_id, &grace.org, "test", false),
            (&ada.tokens.session_id, &ada.org, "test", true),
        ]
    );
    for session in &sessions {
        assert!(session.address.parse::<std::net::IpAddr>().is_ok(), "{session:?}");
        assert!(moment(session.last_seen_at) >= moment(session.created_at));
        assert!(moment(session.expires_at) > moment(session.last_seen_at));
    }
    assert_eq!(all(&house, grace.token()).await.len(), 1);

    // Those that are over are not.
    house.auth(&third.access_token).logout(LogoutRequest {}).await.unwrap();
    let expire =
        |id: &str, limit: &str| format!("update sessions set {limit} = now() - interval '1 second' where id = '{id}'");
    house.sql(&expire(&abroad.session_id, "idle_expires_at")).await;
    let ids: Vec<_> = all(&house, ada.token()).await.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, std::slice::from_ref(&ada.tokens.session_id));
    house.sql(&expire(&ada.tokens.session_id, "expires_at")).await;
    assert!(all(&house, ada.token()).await.is_empty());
}

#[tokio::test]
async fn a_refresh_notes_when_and_from_where() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house
        .sql("update sessions set address = '', last_seen_at = last_seen_at - interval '1 hour', created_at = created_at - interval '1 hour'")
        .await;
    let [before] = &all(&house, ada.token()).await[..] else {
        panic!("one session")
    };
    assert_eq!(before.address, "");
    house.refresh(&ada.tokens.refresh_token).await.unwrap();
    let [after] = &all(&house, ada.token()).await[..] else {
        panic!("one session")
    };
    assert!(after.address.parse::<std::net::IpAddr>().is_ok(), "{after:?}");
    assert!(moment(after.last_seen_at) > moment(before.last_seen_at));
    assert_eq!(after.created_at, before.created_at);
}

#[tokio::test]
async fn a_list_continues_where_it_stopped_and_for_its_owner_alone() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    for _ in 0..4 {
        house.switch(&ada, &ada.org).await.unwrap();
    }
    let whole: Vec<_> = all(&house, ada.token()).await.into_iter().map(|one| one.id).collect();
    assert_eq!(whole.len(), 5);
    let (mut paged, mut page) = (Vec::new(), String::new());
    loop {
        let answer = list(&house, ada.token(), 2, &page).await.unwrap();
        assert!(answer.sessions.len() <= 2);
        paged.extend(answer.sessions.into_iter().map(|one| one.id));
        page = answer.next_page_token;
        if page.is_empty() {
            break;
        }
        assert_eq!(
            reason(list(&house, grace.token(), 2, &page).await),
            "PAGE_TOKEN_INVALID"
        );
    }
    assert_eq!(paged, whole);
    assert_eq!(
        reason(list(&house, ada.token(), 0, "nonsense").await),
        "PAGE_TOKEN_INVALID"
    );
    let negative = list(&house, ada.token(), -1, "").await.unwrap_err();
    assert_eq!(violations(&negative), ["page_size"]);
}

#[tokio::test]
async fn a_session_in_another_organization_is_ended_there() {
    let house = House::open().await;
    let (ada, grace, abroad, third) = at_home_and_abroad(&house).await;
    revoke(&house, ada.token(), &abroad.session_id).await.unwrap();
    refused(&house, &abroad).await;
    assert!(house.told().await.contains(&told(&grace.org, &abroad)));
    let [event] = &house.audited("identity.RevokeSession").await[..] else {
        panic!("one event")
    };
    let about = event.resource.clone().unwrap();
    assert_eq!(
        (&event.organization_id, about.r#type.as_str(), &about.id),
        (&grace.org, "session", &abroad.session_id)
    );
    // One that has ended stays so, and is told of once.
    revoke(&house, ada.token(), &abroad.session_id).await.unwrap();
    let times = house
        .told()
        .await
        .iter()
        .filter(|one| **one == told(&grace.org, &abroad))
        .count();
    assert_eq!(times, 1);
    assert!(house.active(&ada).await && house.active(&grace).await);
    house.refresh(&third.refresh_token).await.unwrap();
    // One's own, too.
    revoke(&house, ada.token(), &ada.tokens.session_id).await.unwrap();
    refused(&house, &ada.tokens).await;
}

#[tokio::test]
async fn nobody_ends_the_session_of_somebody_else() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "owner").await;
    for (who, session) in [(&ada, &grace), (&grace, &ada)] {
        let foreign = revoke(&house, who.token(), &session.tokens.session_id).await;
        assert_eq!(reason(foreign), "RESOURCE_NOT_FOUND");
        assert!(house.active(session).await);
    }
    let unknown = revoke(&house, ada.token(), &Uuid::now_v7().to_string()).await;
    assert_eq!(reason(unknown), "RESOURCE_NOT_FOUND");
    for wrong in ["", "nonsense"] {
        let refused = revoke(&house, ada.token(), wrong).await.unwrap_err();
        assert_eq!(violations(&refused), ["session_id"]);
    }
}

#[tokio::test]
async fn all_sessions_end_everywhere_and_the_calling_one_if_it_is_not_kept() {
    let house = House::open().await;
    let (ada, grace, abroad, third) = at_home_and_abroad(&house).await;
    assert_eq!(revoke_all(&house, ada.token(), true).await, 2);
    for (org, ended) in [(&grace.org, &abroad), (&ada.org, &third)] {
        refused(&house, ended).await;
        assert!(house.told().await.contains(&told(org, ended)));
    }
    assert!(house.active(&ada).await);
    let listed = all(&house, ada.token()).await;
    assert_eq!(
        listed.iter().map(|one| &one.id).collect::<Vec<_>>(),
        [&ada.tokens.session_id]
    );
    assert_eq!(revoke_all(&house, ada.token(), true).await, 0);

    let last = house.login(&ada.email).await;
    assert_eq!(revoke_all(&house, ada.token(), false).await, 2);
    refused(&house, &ada.tokens).await;
    refused(&house, &last).await;
    assert!(house.active(&grace).await);
    let events = house.audited("identity.RevokeAllSessions").await;
    assert_eq!(events.len(), 3);
    for event in events {
        let about = event.resource.clone().unwrap();
        assert_eq!(
            (&event.organization_id, about.r#type.as_str(), &about.id),
            (&ada.org, "user", &ada.user)
        );
    }
}

#[tokio::test]
async fn a_repeat_is_answered_as_before_and_ends_nothing_new() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house.login(&ada.email).await;
    let request = RevokeAllSessionsRequest {
        keep_current: true,
        request_id: request_id(),
    };
    let ask = async || {
        let answer = client(&house, ada.token()).revoke_all_sessions(request.clone()).await;
        answer.unwrap().into_inner().revoked
    };
    assert_eq!(ask().await, 1);
    let later = house.login(&ada.email).await;
    assert_eq!(ask().await, 1);
    house.refresh(&later.refresh_token).await.unwrap();
    let other = RevokeAllSessionsRequest {
        keep_current: false,
        ..request.clone()
    };
    let reused = client(&house, ada.token()).revoke_all_sessions(other).await;
    assert_eq!(reason(reused.map(drop)), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn so_many_sessions_end_as_an_attacker_can_open() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    // More than one statement can name, most of them without a living token.
    house
        .sql(&format!(
            "insert into sessions (org_id, id, user_id, device, token_hash, last_seen_at, idle_expires_at, expires_at)
             select '{}', gen_random_uuid(), '{}', '', sha256('x'), now() - interval '1 hour', now() + interval '1 day', now() + interval '2 days'
             from generate_series(1, 25000)",
            ada.org, ada.user
        ))
        .await;
    assert_eq!(revoke_all(&house, ada.token(), true).await, 25_000);
    assert_eq!(all(&house, ada.token()).await.len(), 1);
}

#[tokio::test]
async fn a_users_sessions_are_found_by_their_index() {
    let house = House::open().await;
    let admin = house.served.database.admin().await;
    admin
        .batch_execute("set role board3_identity_owner; set search_path = identity; set enable_seqscan = off; set enable_sort = off")
        .await
        .unwrap();
    let nobody = "00000000-0000-7000-8000-000000000000";
    for query in [
        format!(
            "select id from sessions where user_id = '{nobody}' and revoked_at is null
             and (created_at, id) < (now(), '{nobody}') order by created_at desc, id desc limit 51"
        ),
        format!("select distinct org_id from sessions where user_id = '{nobody}' and revoked_at is null"),
    ] {
        let plan = admin.query(&format!("explain {query}"), &[]).await.unwrap();
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan.join("\n").contains("sessions_standing_idx"), "{plan:#?}");
    }
}
