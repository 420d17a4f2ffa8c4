//! Signing up: what is made, when, and what nobody learns by it.

use api::{events::v1::event::Payload, identity::v1::*};
use futures_util::future::{join, join_all};
use kit::failpoint::{Action, arm};
use tonic::Code;

use crate::{
    house::{House, PASSWORD, eventually, login, metadata, reason, reason_of, request_id, sign_up, violations},
    without::fails_without,
};

const PLATFORM: &str = "00000000-0000-7000-8000-000000000000";

fn verify(token: &str) -> VerifyEmailRequest {
    VerifyEmailRequest {
        token: token.to_owned(),
        ..Default::default()
    }
}

/// The token that was sent to an address.
async fn token(house: &House, email: &str) -> String {
    house.served.mail().wait(email, "Confirm").await.token().to_owned()
}

/// Users, organizations and members: what a sign-up makes in the end.
async fn made(house: &House) -> [i64; 3] {
    [
        house.count("users").await,
        house.count("organizations").await,
        house.count("organization_members").await,
    ]
}

#[tokio::test]
async fn a_proven_address_makes_a_user_an_organization_and_its_owner() {
    let house = House::open().await;
    let before = made(&house).await;
    let request = SignUpRequest {
        email: "Ada@Example.com".to_owned(),
        ..sign_up("ada")
    };
    let pending = house.auth("").sign_up(request).await.unwrap().into_inner();
    assert!(pending.expires_at.is_some());
    assert_eq!(made(&house).await, before);
    let refused = house.auth("").login(login("ada@example.com", PASSWORD)).await;
    assert_eq!(reason(refused), "LOGIN_FAILED");

    let token = token(&house, "ada@example.com").await;
    let made = house.auth("").verify_email(verify(&token)).await.unwrap().into_inner();
    assert_eq!(made.organization_slug, "ada-inc");
    let tokens = house.login("ADA@example.com").await;
    let me = house
        .users(&tokens.access_token)
        .get_me(GetMeRequest {})
        .await
        .unwrap()
        .into_inner();
    let user = me.user.unwrap();
    assert_eq!(
        (user.id, user.email.as_str(), user.username.as_str()),
        (made.user_id.clone(), "ada@example.com", "ada")
    );
    let [membership] = me.memberships.as_slice() else {
        panic!("{:?}", me.memberships)
    };
    assert_eq!(
        (&membership.organization_id, membership.role.as_str()),
        (&made.organization_id, "owner")
    );
    assert_eq!(membership.permissions, api::policy::PERMISSIONS);

    let [asked] = &house.audited("identity.SignUp").await[..] else {
        panic!("one event")
    };
    assert_eq!(asked.organization_id, PLATFORM);
    assert_eq!(asked.resource.clone().unwrap().r#type, "sign_up");
    let [event] = &house.audited("identity.VerifyEmail").await[..] else {
        panic!("one event")
    };
    let (actor, resource) = (event.actor.clone().unwrap(), event.resource.clone().unwrap());
    assert_eq!(
        (event.organization_id.clone(), actor.id),
        (made.organization_id.clone(), made.user_id.clone())
    );
    assert_eq!((resource.r#type.as_str(), resource.id), ("user", made.user_id.clone()));
    let told = house.told().await;
    let [(org, Payload::UserChanged(changed))] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        (org, &changed.user_id, changed.version),
        (&made.organization_id, &made.user_id, 1)
    );
}

#[tokio::test]
async fn what_is_taken_is_told_by_its_field_and_leaves_nothing() {
    let house = House::open().await;
    house.person("ada").await;
    let before = (house.count("sign_ups").await, house.count("outbox").await);
    let other = SignUpRequest {
        organization_slug: "other".to_owned(),
        ..sign_up("grace")
    };
    let username = SignUpRequest {
        username: "ada".to_owned(),
        ..other.clone()
    };
    let slug = SignUpRequest {
        organization_slug: "ada-inc".to_owned(),
        ..other
    };
    // The same for an address with an account and for one without.
    for email in ["ada@example.com", "grace@example.com"] {
        for (field, request) in [("username", &username), ("organization_slug", &slug)] {
            let request = SignUpRequest {
                email: email.to_owned(),
                ..request.clone()
            };
            let refused = house.auth("").sign_up(request).await.unwrap_err();
            assert_eq!(
                (reason_of(&refused).as_str(), refused.code()),
                ("RESOURCE_EXISTS", Code::AlreadyExists)
            );
            assert_eq!(metadata(&refused, "field"), field);
        }
    }
    assert_eq!((house.count("sign_ups").await, house.count("outbox").await), before);
}

#[tokio::test]
async fn a_slug_made_from_the_name_gets_an_ending_when_taken() {
    let house = House::open().await;
    house.person("ada").await;
    let request = SignUpRequest {
        organization_name: "Ada Inc".to_owned(),
        ..sign_up("grace")
    };
    let made = house.sign_up(request).await.unwrap();
    assert!(
        made.organization_slug.starts_with("ada-inc-"),
        "{}",
        made.organization_slug
    );
}

#[tokio::test]
async fn a_repeated_sign_up_has_one_effect_and_one_answer() {
    let house = House::open().await;
    let request = SignUpRequest {
        request_id: request_id(),
        ..sign_up("ada")
    };
    let twins = join_all((0..4).map(|_| {
        let (mut client, request) = (house.auth(""), request.clone());
        async move { client.sign_up(request).await.unwrap().into_inner() }
    }));
    let answers = twins.await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(
        house.auth("").sign_up(request.clone()).await.unwrap().into_inner(),
        answers[0]
    );
    assert_eq!(
        (
            house.count("sign_ups").await,
            house.count("outbound_messages").await,
            house.audited("identity.SignUp").await.len()
        ),
        (1, 1, 1)
    );
    let other = SignUpRequest {
        first_name: "Else".to_owned(),
        ..request
    };
    assert_eq!(reason(house.auth("").sign_up(other).await), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn an_address_with_an_account_is_answered_alike_and_its_owner_is_told() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    for other in ["suspended", "deleted"] {
        house.person(other).await;
        house
            .sql(&format!(
                "update users set {other}_at = now() where username = '{other}'"
            ))
            .await;
    }
    let before = made(&house).await;
    let ask = async |email: &str| {
        let request = SignUpRequest {
            email: email.to_owned(),
            ..sign_up(&format!("new-{}", email.to_lowercase().split('@').next().unwrap()))
        };
        let answer = house.auth("").sign_up(request).await.unwrap();
        // And the trailers, which are put among them.
        let mut headers: Vec<_> = answer.metadata().keys().map(|key| format!("{key:?}")).collect();
        headers.sort();
        let life = answer.into_inner().expires_at.unwrap().seconds;
        (headers, life)
    };
    let fresh = ask("nobody@example.com").await;
    for email in ["ADA@example.com", "suspended@example.com", "deleted@example.com"] {
        let known = ask(email).await;
        assert_eq!(known.0, fresh.0, "{email}");
        assert!((known.1 - fresh.1).abs() < 60, "{email}");
        let email = email.to_lowercase();
        let letter = house.served.mail().wait(&email, "already have").await;
        assert!(!letter.text.lines().any(|line| line.starts_with("b3")), "{letter:?}");
    }
    house.served.mail().wait("nobody@example.com", "Confirm").await;
    // Each left a row of its own kind: nothing in the tables tells them apart but the sealed text.
    assert_eq!((house.count("sign_ups").await, made(&house).await), (4, before));
    house.auth("").login(login(&ada.email, PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn a_token_works_once_in_time_and_for_what_it_was_made() {
    let house = House::open().await;
    let refused = async |token: &str| reason(house.auth("").verify_email(verify(token)).await);
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    let good = token(&house, "ada@example.com").await;
    let mut forged = good.clone();
    let last = if forged.pop() == Some('A') { 'Q' } else { 'A' };
    forged.push(last);
    let renamed = good.replacen("b3v_", "b3p_", 1);
    for wrong in [forged.as_str(), &renamed, "b3v_AAAA", "token"] {
        assert_eq!(refused(wrong).await, "EMAIL_TOKEN_INVALID", "{wrong}");
    }
    house.auth("").verify_email(verify(&good)).await.unwrap();
    assert_eq!(refused(&good).await, "EMAIL_TOKEN_INVALID");

    house.auth("").sign_up(sign_up("grace")).await.unwrap();
    let late = token(&house, "grace@example.com").await;
    house
        .sql("update sign_ups set expires_at = now() - interval '1 second'")
        .await;
    assert_eq!(refused(&late).await, "EMAIL_TOKEN_INVALID");
    assert_eq!(house.count("users").await, 1);

    let invalid = VerifyEmailRequest {
        username: "No".to_owned(),
        organization_slug: "-".to_owned(),
        ..Default::default()
    };
    let refused = house.auth("").verify_email(invalid).await.unwrap_err();
    assert_eq!(violations(&refused), ["organization_slug", "token", "username"]);
}

#[tokio::test]
async fn a_name_that_was_taken_meanwhile_is_replaced_and_the_token_still_works() {
    let house = House::open().await;
    let request = SignUpRequest {
        organization_slug: "engines".to_owned(),
        ..sign_up("ada")
    };
    house.auth("").sign_up(request.clone()).await.unwrap();
    let waiting = token(&house, "ada@example.com").await;
    let faster = SignUpRequest {
        email: "faster@example.com".to_owned(),
        ..request
    };
    house.sign_up(faster).await.unwrap();
    let mut again = verify(&waiting);
    for field in ["username", "organization_slug"] {
        let refused = house.auth("").verify_email(again.clone()).await.unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), metadata(&refused, "field").as_str()),
            ("RESOURCE_EXISTS", field)
        );
        match field {
            "username" => again.username = "ada-two".to_owned(),
            _ => again.organization_slug = "engines-two".to_owned(),
        }
    }
    let made = house.auth("").verify_email(again).await.unwrap().into_inner();
    assert_eq!(made.organization_slug, "engines-two");
    house.login("ada@example.com").await;
}

#[tokio::test]
async fn of_two_sign_ups_for_one_address_the_first_proven_counts() {
    let house = House::open().await;
    let mut tokens = Vec::new();
    for name in ["ada", "ada-two"] {
        let request = SignUpRequest {
            email: "ada@example.com".to_owned(),
            ..sign_up(name)
        };
        house.auth("").sign_up(request).await.unwrap();
        let sent = tokens.len() + 1;
        let letters = || house.served.mail().to("ada@example.com");
        eventually("the message arrives", async || letters().len() == sent).await;
        tokens.push(letters()[sent - 1].token().to_owned());
    }
    let answers = join_all(tokens.iter().map(|token| {
        let mut client = house.auth("");
        async move { client.verify_email(verify(token)).await }
    }));
    let (made, refused): (Vec<_>, Vec<_>) = answers.await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 1));
    assert_eq!(reason(refused.into_iter().next().unwrap()), "EMAIL_TOKEN_INVALID");
    assert_eq!((house.count("users").await, house.count("sign_ups").await), (1, 0));
}

#[tokio::test]
async fn who_proves_an_address_that_is_being_proven_waits_and_learns_nothing() {
    let house = House::open().await;
    let (email, mut tokens) = ("address-lock@example.com", Vec::new());
    for name in ["ada", "ada-two"] {
        let request = SignUpRequest {
            email: email.to_owned(),
            ..sign_up(name)
        };
        house.auth("").sign_up(request).await.unwrap();
        let sent = tokens.len() + 1;
        let letters = || house.served.mail().to(email);
        eventually("the message arrives", async || letters().len() == sent).await;
        tokens.push(letters()[sent - 1].token().to_owned());
    }
    let proving = arm(format!("identity.address_locked/{email}"), Action::Hold);
    let answers = join_all(tokens.iter().map(|token| {
        let mut client = house.auth("");
        async move { client.verify_email(verify(token)).await }
    }));
    let release = async {
        let admin = house.served.database.admin().await;
        let waits = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock' and query like '%sign_ups%'";
        eventually("the other waits, or has come as far", async || {
            proving.hits() > 1 || admin.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        proving.release();
    };
    let (answers, ()) = join(answers, release).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 1));
    assert_eq!(reason(refused.into_iter().next().unwrap()), "EMAIL_TOKEN_INVALID");
}

#[tokio::test]
async fn without_the_addresss_lock_who_is_second_learns_that_there_is_an_account() {
    let test = "sign_up::who_proves_an_address_that_is_being_proven_waits_and_learns_nothing";
    assert!(fails_without("identity.address_lock", test).await);
}

#[tokio::test]
async fn without_the_hourly_limit_an_address_is_flooded() {
    let test = "sign_up::strangers_make_us_send_three_messages_an_hour_to_an_address";
    assert!(fails_without("identity.mail_limit", test).await);
}

#[tokio::test]
async fn a_repeated_verification_with_a_request_id_is_answered_the_same() {
    let house = House::open().await;
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    let request = VerifyEmailRequest {
        request_id: request_id(),
        ..verify(&token(&house, "ada@example.com").await)
    };
    let first = house.auth("").verify_email(request.clone()).await.unwrap().into_inner();
    let again = house.auth("").verify_email(request).await.unwrap().into_inner();
    assert_eq!((first, house.count("users").await), (again, 1));
}

#[tokio::test]
async fn strangers_make_us_send_three_messages_an_hour_to_an_address() {
    let house = House::open_at_scale(1).await;
    for name in ["one", "two", "three", "four", "five"] {
        let request = SignUpRequest {
            email: "ada@example.com".to_owned(),
            ..sign_up(name)
        };
        // The answer is the same.
        assert!(
            house
                .auth("")
                .sign_up(request)
                .await
                .unwrap()
                .into_inner()
                .expires_at
                .is_some()
        );
    }
    house.auth("").sign_up(sign_up("grace")).await.unwrap();
    house.served.mail().wait("grace@example.com", "Confirm").await;
    assert_eq!(house.count("outbound_messages").await, 4);
    let waiting = async || house.served.mail().to("ada@example.com").len() == 3;
    eventually("three arrive", waiting).await;
}
