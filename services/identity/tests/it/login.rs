//! Signing in to an account with a second factor, and what is answered and counted on the way.

use std::time::Instant;

use api::identity::v1::LoginRequest;

use crate::{
    house::{House, PASSWORD, login, reason, reason_of},
    throttle::{from, most_since, refused_as, try_login},
    totp::{code, protect, wrong_code},
};

fn with_code(email: &str, password: &str, code: &str) -> LoginRequest {
    LoginRequest {
        second_factor_code: code.to_owned(),
        ..login(email, password)
    }
}

#[tokio::test]
async fn a_code_is_asked_for_after_the_password_and_works_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let (secret, recovery) = protect(&house, &ada).await;
    let before = house.audited("identity.Login").await.len();
    let mut auth = house.auth("");
    let mut sign_in = async |password: &str, code: &str| auth.login(with_code(&ada.email, password, code)).await;
    // The account's own code, also where a step of 30 s ends meanwhile.
    let right = code(&secret, 1);
    assert_eq!(reason(sign_in(PASSWORD, "").await), "SECOND_FACTOR_REQUIRED");
    assert_eq!(reason(sign_in("a wrong guess", "").await), "LOGIN_FAILED");
    // With a wrong password no code is looked at, let alone spent.
    assert_eq!(reason(sign_in("a wrong guess", &right).await), "LOGIN_FAILED");
    assert_eq!(reason(sign_in("a wrong guess", &recovery[0]).await), "LOGIN_FAILED");
    assert_eq!(reason(sign_in(PASSWORD, &wrong_code(&secret)).await), "LOGIN_FAILED");
    let opened = sign_in(PASSWORD, &right).await.unwrap().into_inner();
    assert_eq!(opened.tokens.unwrap().organization_id, ada.org);
    assert_eq!(reason(sign_in(PASSWORD, &right).await), "LOGIN_FAILED");
    assert!(sign_in(PASSWORD, &recovery[0]).await.is_ok());
    assert_eq!(reason(sign_in(PASSWORD, &recovery[0]).await), "LOGIN_FAILED");
    let audited = house.audited("identity.Login").await.split_off(before);
    let reasons: Vec<_> = audited.iter().map(|event| event.reason.as_str()).collect();
    let mut expected = vec!["SECOND_FACTOR_REQUIRED"];
    expected.extend(["LOGIN_FAILED"; 4]);
    expected.extend(["", "LOGIN_FAILED", "", "LOGIN_FAILED"]);
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn a_missing_code_is_no_guess_and_a_wrong_one_is() {
    let house = House::open_at_scale(1).await;
    let server = &house.served.running;
    let ada = house.person("ada").await;
    let (secret, _) = protect(&house, &ada).await;
    for _ in 0..15 {
        let asked = try_login(from(server, 1, 1), login(&ada.email, PASSWORD)).await;
        assert_eq!(reason_of(&asked.unwrap_err()), "SECOND_FACTOR_REQUIRED");
    }
    let wrong = with_code(&ada.email, PASSWORD, &wrong_code(&secret));
    let begun = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..15 {
        answers.push(try_login(from(server, 1, 2), wrong.clone()).await);
    }
    let looked_at = refused_as(&answers, "LOGIN_FAILED");
    assert!((10..=most_since(begun)).contains(&looked_at), "{looked_at}");
    assert_eq!(refused_as(&answers, "RATE_LIMITED"), 15 - looked_at);
}
