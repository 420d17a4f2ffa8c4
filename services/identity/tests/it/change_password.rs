//! Another password, with the present one in hand.

use api::{
    events::v1::{Outcome, UserEpochChanged, event::Payload},
    identity::v1::*,
};
use futures_util::future::join;
use kit::failpoint::{Action, arm};
use tonic::Status;

use crate::{
    house::{House, PASSWORD, Person, eventually, login, reason, reason_of, request_id, violations},
    without::fails_without,
};

const NEXT: &str = "another horse, another battery";

fn change(present: &str, new: &str) -> ChangePasswordRequest {
    ChangePasswordRequest {
        current_password: present.to_owned(),
        new_password: new.to_owned(),
        request_id: String::new(),
    }
}

async fn ask(house: &House, token: &str, request: ChangePasswordRequest) -> Result<SessionTokens, Status> {
    let answer = house.auth(token).change_password(request).await?;
    Ok(answer.into_inner().tokens.unwrap())
}

async fn signs_in(house: &House, person: &Person, password: &str) -> bool {
    match house.auth("").login(login(&person.email, password)).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(reason_of(&status), "LOGIN_FAILED");
            false
        }
    }
}

#[tokio::test]
async fn every_session_ends_and_a_new_one_opens() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    let invitation = house.invite(&grace, &ada.email, "viewer").await.unwrap();
    house.accept(&ada, &invitation.token).await.unwrap();
    let there = house.switch(&ada, &grace.org).await.unwrap();
    let other = house.login(&ada.email).await;

    let opened = ask(&house, ada.token(), change(PASSWORD, NEXT)).await.unwrap();
    assert_eq!(opened.organization_id, ada.org);
    for ended in [&ada.tokens, &there, &other] {
        assert_ne!(ended.session_id, opened.session_id);
        assert_eq!(
            reason(house.refresh(&ended.refresh_token).await),
            "REFRESH_TOKEN_INVALID"
        );
        eventually("the access token is refused", async || {
            let answer = house.users(&ended.access_token).get_me(GetMeRequest {}).await;
            answer.is_err_and(|status| reason_of(&status) == "SESSION_REVOKED")
        })
        .await;
    }
    house.users(&opened.access_token).get_me(GetMeRequest {}).await.unwrap();
    house.refresh(&opened.refresh_token).await.unwrap();
    assert!(!signs_in(&house, &ada, PASSWORD).await);
    assert!(signs_in(&house, &ada, NEXT).await);
    assert!(house.active(&grace).await);

    let told = Payload::UserEpochChanged(UserEpochChanged {
        user_id: ada.user.clone(),
        epoch: 2,
    });
    assert!(house.told().await.contains(&(ada.org.clone(), told)));
    house.served.mail().wait(&ada.email, "password was changed").await;
    let [event] = &house.audited("identity.ChangePassword").await[..] else {
        panic!("one event")
    };
    let about = event.resource.clone().unwrap();
    assert_eq!((about.r#type.as_str(), &about.id), ("user", &ada.user));
    assert_eq!(event.organization_id, ada.org);
}

#[tokio::test]
async fn a_repeat_has_no_second_effect_and_shows_no_tokens() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let request = ChangePasswordRequest {
        request_id: request_id(),
        ..change(PASSWORD, NEXT)
    };
    let opened = ask(&house, ada.token(), request.clone()).await.unwrap();
    let again = ask(&house, &opened.access_token, request.clone()).await;
    assert_eq!(reason(again), "SECRET_ALREADY_SHOWN");
    let other = ChangePasswordRequest {
        new_password: "quite another battery".to_owned(),
        ..request
    };
    assert_eq!(
        reason(ask(&house, &opened.access_token, other).await),
        "REQUEST_ID_REUSED"
    );
    house.refresh(&opened.refresh_token).await.unwrap();
    assert!(signs_in(&house, &ada, NEXT).await);
}

#[tokio::test]
async fn a_wrong_password_changes_nothing_and_is_counted() {
    let house = House::open_at_scale(1).await;
    let ada = house.person("ada").await;
    let guesses = (0..12).map(|_| ask(&house, ada.token(), change("a wrong guess", NEXT)));
    let refused = futures_util::future::join_all(guesses).await;
    let refused = refused.into_iter().map(|answer| reason(answer.map(drop)));
    let (looked_at, limited): (Vec<_>, Vec<_>) = refused.partition(|reason| reason == "REAUTHENTICATION_FAILED");
    // One comes back every 6 s.
    assert!((10..=12).contains(&looked_at.len()), "{looked_at:?}");
    assert!(limited.iter().all(|reason| reason == "RATE_LIMITED"), "{limited:?}");
    assert!(house.active(&ada).await);
    let failures = house.audited("identity.ChangePassword").await;
    assert_eq!(failures.len(), looked_at.len());
    assert!(failures.iter().all(|event| event.outcome() == Outcome::Denied));
    assert!(signs_in(&house, &ada, PASSWORD).await);
}

#[tokio::test]
async fn the_new_password_keeps_to_the_rules_and_is_another() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    for (present, new, wrong) in [
        ("", "", &["current_password", "new_password"][..]),
        (PASSWORD, "short", &["new_password"]),
        (PASSWORD, "password123", &["new_password"]),
        (PASSWORD, "Ada@Example.com", &["new_password"]),
        (PASSWORD, PASSWORD, &["new_password"]),
        (
            &"x".repeat(257),
            &"x".repeat(257),
            &["current_password", "new_password"],
        ),
    ] {
        let refused = ask(&house, ada.token(), change(present, new)).await.unwrap_err();
        assert_eq!(violations(&refused), wrong, "{new}");
    }
    assert!(house.active(&ada).await);
    assert!(house.audited("identity.ChangePassword").await.is_empty());
}

#[tokio::test]
async fn of_two_changes_whose_password_was_right_one_wins() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let proven = arm(format!("identity.password_proven/{}", ada.user), Action::Hold);
    let both = join(
        ask(&house, ada.token(), change(PASSWORD, NEXT)),
        ask(&house, ada.token(), change(PASSWORD, "quite another battery")),
    );
    let release = async {
        proven.held(2).await;
        proven.release();
    };
    match join(both, release).await.0 {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => assert_eq!(reason_of(&refused), "REAUTHENTICATION_FAILED"),
        both => panic!("{both:?}"),
    }
}

#[tokio::test]
async fn without_the_epoch_a_second_change_overwrites_the_first() {
    let test = "change_password::of_two_changes_whose_password_was_right_one_wins";
    assert!(fails_without("identity.password_epoch", test).await);
}

#[tokio::test]
async fn of_two_changes_at_once_one_wins() {
    let house = House::open().await;
    for name in ["ada", "grace", "edith"] {
        let person = house.person(name).await;
        let (one, other) = join(
            ask(&house, person.token(), change(PASSWORD, NEXT)),
            ask(&house, person.token(), change(PASSWORD, "quite another battery")),
        )
        .await;
        let refused = match (one, other) {
            (Ok(tokens), Err(status)) | (Err(status), Ok(tokens)) => {
                house.refresh(&tokens.refresh_token).await.unwrap();
                reason_of(&status)
            }
            both => panic!("{both:?}"),
        };
        assert!(
            ["REAUTHENTICATION_FAILED", "SESSION_REVOKED"].contains(&refused.as_str()),
            "{refused}"
        );
    }
}
