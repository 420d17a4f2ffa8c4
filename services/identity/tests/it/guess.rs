//! How often anybody may guess at one account.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::house::{House, PASSWORD, login, reason_of};

/// Ten, and what has come back since, one in 6 s.
fn most_since(begun: Instant) -> usize {
    10 + (begun.elapsed().as_secs() / 6) as usize
}

/// Guesses at an account so often at once; how often the password was looked at, and what the others were told.
async fn guess(house: &House, email: &str, times: usize) -> (usize, Vec<Status>) {
    let guesses = join_all((0..times).map(|_| async { house.auth("").login(login(email, "a wrong guess")).await }));
    let refused = guesses.await.into_iter().map(Result::unwrap_err);
    let (looked_at, limited): (Vec<_>, Vec<_>) = refused.partition(|status| reason_of(status) == "LOGIN_FAILED");
    (looked_at.len(), limited)
}

#[tokio::test]
async fn guesses_at_one_account_run_out_and_others_sign_in() {
    let house = House::open_at_scale(1).await;
    let ada = house.person("ada").await;
    // The address could go on: it has 20 calls at once.
    let begun = Instant::now();
    let (looked_at, limited) = guess(&house, "ADA@example.com", 12).await;
    assert!((10..=most_since(begun)).contains(&looked_at), "{looked_at}");
    for status in &limited {
        assert_eq!(
            (reason_of(status).as_str(), status.code()),
            ("RATE_LIMITED", Code::ResourceExhausted)
        );
        let wait = status
            .get_error_details()
            .retry_info()
            .and_then(|info| info.retry_delay)
            .unwrap();
        // One guess comes back in 6 s.
        assert!(wait <= Duration::from_secs(6), "{wait:?}");
    }
    let grace = house.person("grace").await;
    assert_ne!(grace.user, ada.user);
}

#[tokio::test]
async fn whether_there_is_an_account_is_not_told_by_its_limit() {
    let house = House::open_at_scale(1).await;
    let begun = Instant::now();
    let (looked_at, limited) = guess(&house, "nobody@example.com", 12).await;
    assert!((10..=most_since(begun)).contains(&looked_at), "{looked_at}");
    for told in &limited {
        assert_eq!(
            (reason_of(told).as_str(), told.message()),
            ("RATE_LIMITED", "too many calls")
        );
        assert!(told.get_error_details().retry_info().is_some());
    }
}

#[tokio::test]
async fn who_knows_the_password_is_not_counted() {
    // 20 guesses at once for an account and 40 calls for the address, of which becoming a user takes a few.
    let house = House::open_at_scale(2).await;
    let ada = house.person("ada").await;
    for _ in 0..30 {
        house.auth("").login(login(&ada.email, PASSWORD)).await.unwrap();
    }
}
