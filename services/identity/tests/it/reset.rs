//! Setting a new password by e-mail.

use api::{events::v1::event::Payload, identity::v1::*};
use futures_util::future::join_all;
use tonic::Code;

use crate::house::{House, PASSWORD, Person, eventually, login, reason, request_id, violations};

pub(crate) const NEW: &str = "a wholly other phrase";

async fn ask(house: &House, email: &str) -> tonic::Response<RequestPasswordResetResponse> {
    let request = RequestPasswordResetRequest {
        email: email.to_owned(),
    };
    house.auth("").request_password_reset(request).await.unwrap()
}

pub(crate) fn reset(token: &str, password: &str) -> ResetPasswordRequest {
    ResetPasswordRequest {
        token: token.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    }
}

/// The token that somebody who asks is sent.
pub(crate) async fn token(house: &House, person: &Person) -> String {
    let subject = "Set a new password";
    let letters = || {
        let letters = house.served.mail().to(&person.email).into_iter();
        letters
            .filter(|letter| letter.subject.contains(subject))
            .collect::<Vec<_>>()
    };
    let before = letters().len();
    ask(house, &person.email).await;
    eventually("the message arrives", async || letters().len() > before).await;
    letters().last().unwrap().token().to_owned()
}

#[tokio::test]
async fn a_new_password_takes_the_place_of_the_old_one_and_ends_every_session() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let elsewhere = house.login(&grace.email).await;
    let asked = token(&house, &grace).await;
    house.auth("").reset_password(reset(&asked, NEW)).await.unwrap();

    let refused = house.auth("").login(login(&grace.email, PASSWORD)).await;
    assert_eq!(reason(refused), "LOGIN_FAILED");
    house.auth("").login(login(&grace.email, NEW)).await.unwrap();
    assert!(!house.active(&grace).await);
    for old in [&grace.tokens, &elsewhere] {
        assert_eq!(reason(house.refresh(&old.refresh_token).await), "REFRESH_TOKEN_INVALID");
        eventually("the token is void", async || {
            let me = house.users(&old.access_token).get_me(GetMeRequest {}).await;
            me.is_err()
        })
        .await;
    }
    // Nobody else's session ends.
    assert!(house.active(&ada).await);
    house.served.mail().wait(&grace.email, "password was changed").await;

    let told = house.told().await;
    let epochs: Vec<_> = told
        .iter()
        .filter_map(|(_, payload)| match payload {
            Payload::UserEpochChanged(changed) => Some((changed.user_id.as_str(), changed.epoch)),
            _ => None,
        })
        .collect();
    assert_eq!(epochs, [(grace.user.as_str(), 2)]);
    let ended = told
        .iter()
        .filter(|(_, payload)| matches!(payload, Payload::SessionRevoked(_)))
        .count();
    // Her own after signing up, the one that she switched to, and the other login's.
    assert_eq!(ended, 3);
    let [event] = &house.audited("identity.ResetPassword").await[..] else {
        panic!("one event")
    };
    let (actor, about) = (event.actor.clone().unwrap(), event.resource.clone().unwrap());
    assert_eq!((actor.id, about.id), (grace.user.clone(), grace.user.clone()));
    assert_eq!(about.r#type, "user");
}

#[tokio::test]
async fn a_token_works_once_in_time_and_for_a_password_alone() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let refused = async |token: &str| reason(house.auth("").reset_password(reset(token, NEW)).await);
    let (first, second) = (token(&house, &ada).await, token(&house, &ada).await);
    let mut forged = first.clone();
    let last = if forged.pop() == Some('A') { 'Q' } else { 'A' };
    forged.push(last);
    for wrong in [forged.as_str(), &first.replacen("b3p_", "b3v_", 1), "b3p_AAAA", "token"] {
        assert_eq!(refused(wrong).await, "EMAIL_TOKEN_INVALID", "{wrong}");
    }
    house.auth("").reset_password(reset(&first, NEW)).await.unwrap();
    // Neither it nor what was asked for before works afterwards.
    for spent in [&first, &second] {
        assert_eq!(refused(spent).await, "EMAIL_TOKEN_INVALID");
    }
    let late = token(&house, &ada).await;
    house
        .sql("update password_resets set expires_at = now() - interval '1 second'")
        .await;
    assert_eq!(refused(&late).await, "EMAIL_TOKEN_INVALID");
    let kept_out = token(&house, &ada).await;
    house.sql("update users set suspended_at = now()").await;
    assert_eq!(refused(&kept_out).await, "EMAIL_TOKEN_INVALID");
}

#[tokio::test]
async fn of_two_resets_at_once_one_counts() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let tokens = [token(&house, &ada).await, token(&house, &ada).await];
    let answers = join_all(tokens.iter().map(|token| {
        let mut client = house.auth("");
        async move { client.reset_password(reset(token, NEW)).await }
    }));
    let (done, refused): (Vec<_>, Vec<_>) = answers.await.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (1, 1));
    assert_eq!(reason(refused.into_iter().next().unwrap()), "EMAIL_TOKEN_INVALID");
}

#[tokio::test]
async fn a_repeat_with_a_request_id_is_answered_the_same_and_bad_passwords_are_told() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let asked = token(&house, &ada).await;
    for bad in ["short", "password123", "ADA@example.com"] {
        let refused = house.auth("").reset_password(reset(&asked, bad)).await.unwrap_err();
        assert_eq!(
            (refused.code(), violations(&refused)),
            (Code::InvalidArgument, vec!["password".to_owned()]),
            "{bad}"
        );
    }
    let refused = house.auth("").reset_password(reset("", "")).await.unwrap_err();
    assert_eq!(violations(&refused), ["password", "token"]);
    let request = ResetPasswordRequest {
        request_id: request_id(),
        ..reset(&asked, NEW)
    };
    for _ in 0..2 {
        house.auth("").reset_password(request.clone()).await.unwrap();
    }
    assert_eq!(house.audited("identity.ResetPassword").await.len(), 1);
}

#[tokio::test]
async fn asking_is_answered_and_written_alike_whatever_becomes_of_it() {
    let house = House::open().await;
    for name in ["ada", "suspended", "deleted"] {
        house.person(name).await;
    }
    for state in ["suspended", "deleted"] {
        let set = format!("update users set {state}_at = now() where username = '{state}'");
        house.sql(&set).await;
    }
    let mut answers = Vec::new();
    let before = house.count("outbound_messages").await;
    for name in ["ada", "nobody", "suspended", "deleted"] {
        let answer = ask(&house, &format!("{name}@example.com")).await;
        // And the trailers, which are put among them.
        let mut headers: Vec<_> = answer.metadata().keys().map(|key| format!("{key:?}")).collect();
        headers.sort();
        answers.push((headers, answer.into_inner()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(
        (
            house.count("password_resets").await,
            house.count("outbound_messages").await
        ),
        (4, before + 4)
    );
    house.served.mail().wait("ada@example.com", "Set a new password").await;
    eventually("all have left the table", async || {
        let admin = house.served.database.admin().await;
        let query = "select count(content) from identity.outbound_messages";
        admin.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let letters = house.served.mail().all();
    let sent: Vec<_> = letters
        .iter()
        .filter(|letter| letter.subject.contains("Set a new password"))
        .map(|letter| letter.to.as_str())
        .collect();
    assert_eq!(sent, ["ada@example.com"]);
}
