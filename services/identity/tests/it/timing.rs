//! How long a refused login takes tells nothing about the account.
//!
//! Run by hand, on a machine that does nothing else: `cargo test -p identity --test it -- --ignored --exact
//! timing::a_refused_login_takes_alike_whatever_account_there_is --nocapture`. A debug build hashes at bcrypt's lowest cost, so
//! what is measured is all that is not the hash; with `--release` the hash has its real cost, and a run takes a quarter
//! of an hour.

use std::time::{Duration, Instant};

use api::identity::v1::LoginRequest;

use crate::{
    house::{House, PASSWORD, login, sign_up},
    throttle::closed_accounts,
};

const SAMPLES: usize = 300;
const APART: Duration = Duration::from_millis(2);

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// All of [`closed_accounts`], and those that are told by other tables than that of the users.
async fn seven_states(house: &House) -> Vec<(&'static str, LoginRequest)> {
    let mut states = closed_accounts(house).await;
    let unverified = sign_up("unverified");
    let address = unverified.email.clone();
    house.auth("").sign_up(unverified).await.unwrap();
    states.push(("unverified", login(&address, PASSWORD)));
    let elsewhere = house.person("elsewhere").await;
    let other = house.person("other").await;
    states.push((
        "no member",
        LoginRequest {
            organization_id: other.org,
            ..login(&elsewhere.email, PASSWORD)
        },
    ));
    states
}

#[tokio::test]
#[ignore = "measures times: run it alone"]
async fn a_refused_login_takes_alike_whatever_account_there_is() {
    let house = House::open_at_scale(1_000_000).await;
    let states = seven_states(&house).await;
    let mut auth = house.auth("");
    let mut times = vec![Vec::new(); states.len()];
    // In turns, so that whatever the machine does meanwhile it does to all of them; the first rounds warm up.
    for round in 0..SAMPLES + 20 {
        for nth in 0..states.len() {
            // Each follows each other: none is always the one after the slowest.
            let nth = (nth * (1 + round % (states.len() - 1)) + round) % states.len();
            let begun = Instant::now();
            auth.login(states[nth].1.clone()).await.unwrap_err();
            if round >= 20 {
                times[nth].push(begun.elapsed());
            }
        }
    }
    let medians: Vec<_> = times.into_iter().map(median).collect();
    for ((state, _), median) in states.iter().zip(&medians) {
        println!("{state:>12}: {median:?}");
    }
    let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
    assert!(*most - *least <= APART, "{least:?} to {most:?}");
}
