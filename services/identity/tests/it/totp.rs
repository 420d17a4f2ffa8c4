//! The second factor: put in force, presented once, taken away.

use std::time::{SystemTime, UNIX_EPOCH};

use api::{
    events::v1::{Outcome, SessionRevoked, event::Payload},
    identity::v1::*,
};
use futures_util::future::{join, join_all};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use tonic::Status;

use crate::house::{House, PASSWORD, Person, eventually, login, metadata, reason, reason_of, violations};

/// The code of a base32 secret, so many steps of 30 s from now: RFC 6238 written anew.
pub(crate) fn code(secret: &str, steps: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30;
    let step = i64::try_from(now).unwrap() + steps;
    let mut mac = Hmac::<Sha1>::new_from_slice(&bytes(secret)).unwrap();
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let from = usize::from(hash[19] & 15);
    let word = [hash[from] & 127, hash[from + 1], hash[from + 2], hash[from + 3]];
    format!("{:06}", u32::from_be_bytes(word) % 1_000_000)
}

/// Six digits that are no code of the minutes around.
pub(crate) fn wrong_code(secret: &str) -> String {
    let right: Vec<String> = (-3..=6).map(|steps| code(secret, steps)).collect();
    let mut guesses = (0..100).map(|guess| format!("{guess:06}"));
    guesses.find(|guess| !right.contains(guess)).unwrap()
}

fn bytes(base32: &str) -> Vec<u8> {
    let value = |c| "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(c).unwrap();
    let bits: String = base32.chars().map(|c| format!("{:05b}", value(c))).collect();
    let octets = bits.as_bytes().chunks_exact(8);
    octets
        .map(|octet| u8::from_str_radix(std::str::from_utf8(octet).unwrap(), 2).unwrap())
        .collect()
}

pub(crate) async fn enroll(house: &House, who: &Person, password: &str) -> Result<EnrollTotpResponse, Status> {
    let request = EnrollTotpRequest {
        password: password.to_owned(),
    };
    Ok(house.auth(who.token()).enroll_totp(request).await?.into_inner())
}

pub(crate) async fn confirm(house: &House, who: &Person, code: &str) -> Result<Vec<String>, Status> {
    let request = ConfirmTotpRequest { code: code.to_owned() };
    let answer = house.auth(who.token()).confirm_totp(request).await?;
    Ok(answer.into_inner().recovery_codes)
}

pub(crate) async fn disable(
    house: &House,
    who: &Person,
    password: &str,
    code: &str,
) -> Result<DisableTotpResponse, Status> {
    let request = DisableTotpRequest {
        password: password.to_owned(),
        code: code.to_owned(),
    };
    Ok(house.auth(who.token()).disable_totp(request).await?.into_inner())
}

async fn regenerate(house: &House, who: &Person, password: &str, code: &str) -> Result<Vec<String>, Status> {
    let request = RegenerateRecoveryCodesRequest {
        password: password.to_owned(),
        code: code.to_owned(),
    };
    let answer = house.auth(who.token()).regenerate_recovery_codes(request).await?;
    Ok(answer.into_inner().recovery_codes)
}

/// A second factor in force: its secret, and the recovery codes. Its code of now is not used yet.
pub(crate) async fn protect(house: &House, who: &Person) -> (String, Vec<String>) {
    let secret = enroll(house, who, PASSWORD).await.unwrap().secret;
    let codes = confirm(house, who, &code(&secret, -1)).await.unwrap();
    (secret, codes)
}

#[tokio::test]
async fn a_second_factor_is_in_force_once_a_code_was_seen() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let first = enroll(&house, &ada, PASSWORD).await.unwrap();
    assert_eq!(bytes(&first.secret).len(), 20);
    let uri = format!(
        "otpauth://totp/Board3:ada%40example.com?secret={}&issuer=Board3&algorithm=SHA1&digits=6&period=30",
        first.secret
    );
    assert_eq!(first.otpauth_uri, uri);
    // Until it is confirmed it is none.
    for answer in [
        disable(&house, &ada, PASSWORD, &code(&first.secret, 0)).await.map(drop),
        regenerate(&house, &ada, PASSWORD, &code(&first.secret, 0))
            .await
            .map(drop),
    ] {
        let status = answer.unwrap_err();
        assert_eq!(
            (reason_of(&status).as_str(), metadata(&status, "resource").as_str()),
            ("RESOURCE_NOT_FOUND", "totp")
        );
    }
    let second = enroll(&house, &ada, PASSWORD).await.unwrap();
    assert_ne!(first.secret, second.secret);
    let old = confirm(&house, &ada, &code(&first.secret, 0)).await;
    assert_eq!(reason(old), "REAUTHENTICATION_FAILED");
    let codes = confirm(&house, &ada, &code(&second.secret, 0)).await.unwrap();
    assert_eq!(codes.len(), 10);
    assert_eq!(house.count("recovery_codes").await, 10);

    let again = confirm(&house, &ada, &code(&second.secret, 1)).await.unwrap_err();
    assert_eq!(
        (reason_of(&again).as_str(), metadata(&again, "field").as_str()),
        ("RESOURCE_EXISTS", "totp")
    );
    let again = enroll(&house, &ada, PASSWORD).await.unwrap_err();
    assert_eq!(
        (reason_of(&again).as_str(), metadata(&again, "field").as_str()),
        ("RESOURCE_EXISTS", "totp")
    );
    for (action, times) in [("identity.EnrollTotp", 2), ("identity.ConfirmTotp", 1)] {
        let done = house.audited(action).await.into_iter();
        let done: Vec<_> = done.filter(|event| event.outcome() == Outcome::Success).collect();
        assert_eq!(done.len(), times, "{action}");
        let about = done[0].resource.clone().unwrap();
        assert_eq!((about.r#type.as_str(), &about.id), ("user", &ada.user));
        assert_eq!(done[0].organization_id, ada.org);
    }
}

#[tokio::test]
async fn other_sessions_end_with_every_change_of_the_factor_and_this_one_goes_on() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    let invitation = house.invite(&grace, &ada.email, "viewer").await.unwrap();
    house.accept(&ada, &invitation.token).await.unwrap();
    let elsewhere = async |org: &str| Person {
        org: org.to_owned(),
        tokens: house.switch(&ada, org).await.unwrap(),
        ..ada.clone()
    };
    let gone = async |person: &Person| {
        assert!(!house.active(person).await);
        eventually("the access token is refused", async || {
            let answer = house.users(person.token()).get_me(GetMeRequest {}).await;
            answer.is_err_and(|status| reason_of(&status) == "SESSION_REVOKED")
        })
        .await;
        let session_id = person.tokens.session_id.clone();
        let told = (
            person.org.clone(),
            Payload::SessionRevoked(SessionRevoked { session_id }),
        );
        assert!(house.told().await.contains(&told));
        let refreshed = house.refresh(&person.tokens.refresh_token).await;
        assert_eq!(reason(refreshed), "REFRESH_TOKEN_INVALID");
    };

    let others = [elsewhere(&ada.org).await, elsewhere(&grace.org).await];
    let (secret, _) = protect(&house, &ada).await;
    for other in &others {
        gone(other).await;
    }
    house.served.mail().wait(&ada.email, "second factor is on").await;

    let others = [elsewhere(&ada.org).await, elsewhere(&grace.org).await];
    disable(&house, &ada, PASSWORD, &code(&secret, 0)).await.unwrap();
    for other in &others {
        gone(other).await;
    }
    house.served.mail().wait(&ada.email, "second factor is off").await;
    assert_eq!(
        (house.count("second_factors").await, house.count("recovery_codes").await),
        (0, 0)
    );

    assert!(house.active(&ada).await && house.active(&grace).await);
    house.refresh(&ada.tokens.refresh_token).await.unwrap();
}

#[tokio::test]
async fn a_code_works_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let (secret, first) = protect(&house, &ada).await;
    let now = code(&secret, 0);
    let codes = regenerate(&house, &ada, PASSWORD, &now).await.unwrap();
    assert!(codes.iter().all(|code| !first.contains(code)));
    assert_eq!(house.count("recovery_codes").await, 10);
    let again = regenerate(&house, &ada, PASSWORD, &now).await;
    assert_eq!(reason(again), "REAUTHENTICATION_FAILED");
    // Nor does one from before it.
    let before = regenerate(&house, &ada, PASSWORD, &code(&secret, -1)).await;
    assert_eq!(reason(before), "REAUTHENTICATION_FAILED");
    disable(&house, &ada, PASSWORD, &code(&secret, 1)).await.unwrap();
}

#[tokio::test]
async fn a_code_presented_twice_at_once_works_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let (secret, _) = protect(&house, &ada).await;
    // Both have arrived at the factor before either goes on: one waits to look at it, or both to change it.
    let admin = house.served.database.admin().await;
    admin
        .batch_execute("begin; select from identity.second_factors for update")
        .await
        .unwrap();
    let now = code(&secret, 0);
    let both = join(
        regenerate(&house, &ada, PASSWORD, &now),
        regenerate(&house, &ada, PASSWORD, &now),
    );
    let watch = house.served.database.admin().await;
    let released = async {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("both wait", async || {
            watch.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) >= 2
        })
        .await;
        admin.batch_execute("commit").await.unwrap();
    };
    let ((one, other), ()) = join(both, released).await;
    match (one, other) {
        (Ok(_), Err(status)) | (Err(status), Ok(_)) => {
            assert_eq!(reason_of(&status), "REAUTHENTICATION_FAILED");
        }
        both => panic!("{both:?}"),
    }
}

#[tokio::test]
async fn a_recovery_code_takes_the_factor_away_and_makes_no_new_codes() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let (secret, codes) = protect(&house, &ada).await;
    let new = regenerate(&house, &ada, PASSWORD, &codes[0]).await;
    assert_eq!(reason(new), "REAUTHENTICATION_FAILED");
    let codes = regenerate(&house, &ada, PASSWORD, &code(&secret, 0)).await.unwrap();
    // However it is typed.
    let typed = codes[3].to_uppercase().replace('-', " ");
    disable(&house, &ada, PASSWORD, &typed).await.unwrap();

    // A new factor has new codes; the old ones are void.
    let (_, new) = protect(&house, &ada).await;
    for old in &codes {
        let refused = disable(&house, &ada, PASSWORD, old).await;
        assert_eq!(reason(refused), "REAUTHENTICATION_FAILED");
    }
    disable(&house, &ada, PASSWORD, &new[9]).await.unwrap();
}

#[tokio::test]
async fn a_login_asks_for_a_code_and_takes_each_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let (secret, codes) = protect(&house, &ada).await;
    let sign_in = async |code: &str| {
        let request = LoginRequest {
            second_factor_code: code.to_owned(),
            ..login(&ada.email, PASSWORD)
        };
        house.auth("").login(request).await.map(drop)
    };
    assert_eq!(reason(sign_in("").await), "SECOND_FACTOR_REQUIRED");
    assert_eq!(reason(sign_in(&wrong_code(&secret)).await), "LOGIN_FAILED");
    for code in [&code(&secret, 0), &codes[0]] {
        sign_in(code).await.unwrap();
        assert_eq!(reason(sign_in(code).await), "LOGIN_FAILED");
    }
    let (one, other) = join(sign_in(&codes[1]), sign_in(&codes[1])).await;
    assert!(one.is_ok() != other.is_ok(), "{one:?}, {other:?}");
}

#[tokio::test]
async fn codes_of_another_user_are_wrong() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    protect(&house, &ada).await;
    let (secret, codes) = protect(&house, &grace).await;
    for foreign in [code(&secret, 0), codes[0].clone()] {
        let refused = disable(&house, &ada, PASSWORD, &foreign).await;
        assert_eq!(reason(refused), "REAUTHENTICATION_FAILED");
    }
}

#[tokio::test]
async fn wrong_codes_and_passwords_are_counted_and_audited() {
    // Ten at once for an account.
    let house = House::open_at_scale(1).await;
    let ada = house.person("ada").await;
    let (secret, _) = protect(&house, &ada).await;
    let wrong = wrong_code(&secret);
    let guesses = join_all((0..14).map(|nth| {
        let (house, ada, wrong) = (&house, &ada, &wrong);
        async move {
            match nth % 3 {
                0 => disable(house, ada, "a wrong guess", wrong).await.map(drop),
                1 => disable(house, ada, PASSWORD, wrong).await.map(drop),
                _ => enroll(house, ada, "a wrong guess").await.map(drop),
            }
        }
    }));
    let refused = guesses.await.into_iter().map(Result::unwrap_err);
    let (looked_at, limited): (Vec<_>, Vec<_>) =
        refused.partition(|status| reason_of(status) == "REAUTHENTICATION_FAILED");
    // One comes back every 6 s.
    assert!((10..=12).contains(&looked_at.len()), "{looked_at:?}");
    assert!(
        limited.iter().all(|status| reason_of(status) == "RATE_LIMITED"),
        "{limited:?}"
    );
    // Which part of the proof was wrong is not told.
    let mut texts: Vec<_> = looked_at.iter().map(Status::message).collect();
    texts.dedup();
    assert_eq!(texts.len(), 1);

    let mut failures = house.audited("identity.DisableTotp").await;
    failures.extend(house.audited("identity.EnrollTotp").await);
    failures.retain(|event| event.outcome() == Outcome::Denied);
    assert_eq!(failures.len(), looked_at.len());
    for failure in failures {
        assert_eq!(failure.actor.clone().unwrap().id, ada.user);
        assert_eq!(
            (failure.reason.as_str(), &failure.organization_id),
            ("REAUTHENTICATION_FAILED", &ada.org)
        );
    }
    // A stolen session locks nobody out.
    let grace = house.person("grace").await;
    protect(&house, &grace).await;
}

#[tokio::test]
async fn a_right_proof_is_not_counted() {
    let house = House::open_at_scale(2).await;
    let ada = house.person("ada").await;
    for _ in 0..30 {
        enroll(&house, &ada, PASSWORD).await.unwrap();
    }
}

#[tokio::test]
async fn proofs_that_are_none_are_refused_with_everything_that_is_wrong() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let refused = enroll(&house, &ada, "").await.unwrap_err();
    assert_eq!(violations(&refused), ["password"]);
    for code in ["", "12345", "1234567", "abcdef", "１２３４５６"] {
        let refused = confirm(&house, &ada, code).await.unwrap_err();
        assert_eq!(violations(&refused), ["code"], "{code}");
    }
    let long = "x".repeat(300);
    for refused in [
        disable(&house, &ada, &long, &long).await.map(drop).unwrap_err(),
        regenerate(&house, &ada, "", "").await.map(drop).unwrap_err(),
    ] {
        assert_eq!(violations(&refused), ["code", "password"]);
    }
    let none = confirm(&house, &ada, "123456").await.unwrap_err();
    assert_eq!(
        (reason_of(&none).as_str(), metadata(&none, "resource").as_str()),
        ("RESOURCE_NOT_FOUND", "totp")
    );
    assert_eq!(house.count("second_factors").await, 0);
}

#[tokio::test]
async fn secrets_and_recovery_codes_are_in_no_table_and_no_event() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let (secret, codes) = protect(&house, &ada).await;
    let more = regenerate(&house, &ada, PASSWORD, &code(&secret, 0)).await.unwrap();
    disable(&house, &ada, "a wrong guess", &more[0]).await.unwrap_err();

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut needles = vec![
        secret.clone(),
        hex(secret.as_bytes()),
        hex(&bytes(&secret)),
        PASSWORD.to_owned(),
    ];
    for code in codes.iter().chain(&more) {
        let plain = code.replace('-', "");
        needles.extend([
            code.clone(),
            hex(code.as_bytes()),
            plain.to_uppercase(),
            hex(plain.to_uppercase().as_bytes()),
        ]);
        needles.push(plain);
    }
    let admin = house.served.database.admin().await;
    let tables =
        "select c.relname::text from pg_class c where c.relnamespace = 'identity'::regnamespace and c.relkind = 'r'";
    let mut rows = 0;
    for table in admin.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        // Byte strings come as hex.
        for row in admin
            .query(&format!("select t::text from identity.{table} t"), &[])
            .await
            .unwrap()
        {
            let row: String = row.get(0);
            rows += 1;
            assert!(!needles.iter().any(|needle| row.contains(needle)), "{table}");
        }
    }
    assert!(rows > 20, "{rows}");
}
