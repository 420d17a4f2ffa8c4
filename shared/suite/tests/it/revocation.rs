//! What was taken from a caller is gone in every service within a second, and identity's absence takes nothing.

use std::time::{Duration, Instant};

use api::identity::v1::{LogoutRequest, UpdateMemberRequest};
use tonic::{Code, Status};

use crate::{
    house::House,
    story::{Person, blank, reason, request_id},
};

const A_SECOND: Duration = Duration::from_secs(1);

/// Repeats a call until it fails with this reason; answers how long that took, at most 10 s.
async fn until_refused<T>(expected: &str, mut call: impl AsyncFnMut() -> Result<T, Status>) -> Duration {
    let began = Instant::now();
    loop {
        match call().await {
            Err(status) if reason(&status) == expected => return began.elapsed(),
            Err(status) => panic!("{expected} was expected, not {status:?}"),
            Ok(_) => assert!(began.elapsed() < Duration::from_secs(10), "not refused: {expected}"),
        }
    }
}

async fn give_role(house: &House, owner: &Person, member: &Person, role: &str) {
    let request = UpdateMemberRequest {
        user_id: member.user.clone(),
        role: role.to_owned(),
        request_id: request_id(),
    };
    owner
        .organizations(house)
        .update_member(request)
        .await
        .expect("UpdateMember");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_left_is_refused_by_designs_within_a_second() {
    let house = House::shared().await;
    let ada = house.sign_up("ada").await;
    let design = house.design(&ada, "hers").await;
    let other = house.login(&ada.email, &ada.password).await;
    house.read_design(&other, &design.id).await.expect("both sessions read");

    ada.auth(house).logout(LogoutRequest {}).await.expect("Logout");
    let took = until_refused("SESSION_REVOKED", async || house.read_design(&ada, &design.id).await).await;
    println!("designs refuses a left session after {took:?}");
    assert!(took < A_SECOND);
    house
        .read_design(&other, &design.id)
        .await
        .expect("the other session stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_role_is_what_designs_judges_by_within_a_second() {
    let house = House::shared().await;
    let ada = house.sign_up("ada").await;
    let bob = house.member(&ada, "bob", "editor").await;
    let design = house.design(&bob, "his").await;

    give_role(house, &ada, &bob, "viewer").await;
    let create = async || bob.designs(house).create_design(blank("too much")).await;
    let took = until_refused("PERMISSION_MISSING", create).await;
    println!("designs refuses what a role no longer allows after {took:?}");
    assert!(took < A_SECOND);
    house.read_design(&bob, &design.id).await.expect("a viewer reads");

    give_role(house, &ada, &bob, "editor").await;
    let began = Instant::now();
    while let Err(status) = create().await {
        assert_eq!(reason(&status), "PERMISSION_MISSING");
        assert!(began.elapsed() < A_SECOND, "the role is not given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_notice_that_identity_is_away_for_thirty_seconds() {
    let house = House::open().await;
    let ada = house.sign_up("ada").await;
    let bob = house.member(&ada, "bob", "viewer").await;
    // Known to identity, and never seen by designs.
    let carl = house.member(&ada, "carl", "viewer").await;
    let key = house.api_key(&ada, &["designs.*.read"]).await;
    let design = house.design(&ada, "hers").await;
    let by_key = Person {
        access: key.secret,
        ..ada.clone()
    };
    for person in [&ada, &bob, &by_key] {
        house.read_design(person, &design.id).await.expect("verified");
    }

    house.pause("identity").await;
    let away = Instant::now();
    let (mut reads, mut slowest) = (0, Duration::ZERO);
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    while away.elapsed() < Duration::from_secs(31) {
        for person in [&ada, &bob, &by_key] {
            let began = Instant::now();
            let read = house.read_design(person, &design.id).await;
            assert!(
                read.is_ok(),
                "{:.1} s after identity went: {read:?}",
                away.elapsed().as_secs_f64()
            );
            slowest = slowest.max(began.elapsed());
            reads += 1;
        }
        pace.tick().await;
        // Writes of designs are not sensitive: they go on too.
        house.design(&ada, "meanwhile").await;
    }
    println!("{reads} reads in 31 s without identity, the slowest {slowest:?}");
    assert!(slowest < A_SECOND);

    // Who was not verified before cannot be now, and nobody takes that for a refusal.
    let unknown = house
        .read_design(&carl, &design.id)
        .await
        .expect_err("carl's permissions are not known here");
    assert_eq!(
        (unknown.code(), reason(&unknown).as_str()),
        (Code::Unavailable, "DEPENDENCY_UNAVAILABLE")
    );
    let page = house.metrics("designs").await;
    let lag = crate::house::figure(&page, "board3_revocation_lag_seconds", &[]);
    assert!(lag > 30.0, "designs does not know that its feed is {lag} s behind");

    house.resume("identity").await;
    let began = Instant::now();
    while let Err(status) = house.read_design(&carl, &design.id).await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "identity is back, and designs does not notice"
        );
    }

    // The same when it dies, and what is revoked right after its return counts.
    house.kill("identity").await;
    house.read_design(&bob, &design.id).await.expect("verified");
    house.start("identity", &[]).await;
    house.wait_ready_of("identity").await;
    bob.auth(&house).logout(LogoutRequest {}).await.expect("Logout");
    let took = until_refused("SESSION_REVOKED", async || house.read_design(&bob, &design.id).await).await;
    println!("after identity's return, designs refuses a left session after {took:?}");
    assert!(took < 5 * A_SECOND);
}

#[tokio::test(flavor = "multi_thread")]
async fn sensitive_calls_go_on_while_redis_is_away_and_identity_answers() {
    let house = House::open().await;
    let ada = house.sign_up("ada").await;
    house.redis().process().stop().await.unwrap();
    let began = Instant::now();
    let mut made = 0;
    // Beyond 2 s identity asks its own log for what the channel no longer tells.
    while began.elapsed() < Duration::from_secs(5) {
        house.api_key(&ada, &["designs.*.read"]).await;
        made += 1;
    }
    ada.auth(&house).logout(LogoutRequest {}).await.expect("Logout");
    let took = until_refused("SESSION_REVOKED", async || {
        ada.users(&house).get_me(api::identity::v1::GetMeRequest {}).await
    })
    .await;
    println!("without Redis, {made} keys were made in 5 s; a left session is refused by identity after {took:?}");
    assert!(took < 5 * A_SECOND);
}
