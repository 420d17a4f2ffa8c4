//! Old versions are told by newer ones, and are what they were.

use kit::failpoint::switch_off;
use tonic::Code;

use crate::world::{EVERYTHING, Http, WORK, World, id, noise, reason, state};

/// At once: the compactor looks five times a second.
const EAGER: [(&str, &str); 1] = [("BOARD3_STATE_COMPACT_AFTER_SECONDS", "0")];
const OTHER_KEY: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

/// A state that JSON libraries would not give back as it came, different in each round.
fn odd(serial: u64, round: u64) -> String {
    let seed = blake3::hash(&round.to_le_bytes());
    let of = |at: usize, some: &[&str]| some[usize::from(seed.as_bytes()[at]) % some.len()].to_owned();
    let number = of(
        0,
        &[
            "1e400",
            "123456789012345678901234567890",
            "-0.0",
            "1.10",
            "0.1e-7",
            "1E+2",
        ],
    );
    let text = of(
        1,
        &[
            "ä€𝄞",
            "\\u00e4\\ud834\\udd1e",
            "\\/ \\b\\f\\n\\r\\t\\\"",
            "e\u{301}",
            "\u{2028}",
            "",
        ],
    );
    let space = of(2, &["", " ", "\n\t", "\r\n  "]);
    let key = of(3, &["a", "b", "", "\\u0061"]);
    let tail = of(4, &["", "\n", "  \n\n"]);
    format!(
        "{space}{{\"version\":4,\"serial\":{serial},{space}\"lineage\":\"l\",\"outputs\":{{}},\"resources\":[],\"check_results\":\
         {{\"{key}\":{number},\"a\":{number},\"a\":[{number},{space}{number}],\"t\":\"{text}\",\"fixed\":\"{}\"}}{space}}}{tail}",
        noise(20_000, "the same in all")
    )
}

#[tokio::test]
async fn every_version_comes_back_byte_by_byte_whatever_is_in_it() {
    let world = World::with(&EAGER).await;
    let (mut grpc, http) = world.both(&WORK);
    let sent: Vec<String> = (1..=40).map(|serial| odd(serial, serial)).collect();
    for sent in &sent {
        assert_eq!(http.post("odd", "", sent).await.status, 200, "{sent}");
        assert!(http.get("odd").await.body == sent.as_bytes());
    }
    world.compacted().await;
    // The current one alone is whole.
    assert_eq!(
        world
            .number("select count(*) from state_versions where base_number is not null")
            .await,
        39
    );
    assert_eq!(
        world
            .number("select sum(number)::bigint from state_versions where base_number is null")
            .await,
        40
    );
    let state_id = grpc.named("odd").await.id;
    for (number, sent) in (1..).zip(&sent) {
        assert!(
            grpc.content(&state_id, number).await.unwrap() == sent.as_bytes(),
            "{number}"
        );
    }
    let most = "select sum(octet_length(sealed))::bigint from state_chunks";
    assert!(world.number(most).await < 2 * 20_000);
    let counted = "select count(*) from states s where stored_bytes = \
                   (select sum(octet_length(sealed)) from state_chunks c where c.org_id = s.org_id)";
    assert_eq!(world.number(counted).await, 1);
    // A write after that is told of as those before.
    assert_eq!(http.post("odd", "", &odd(41, 41)).await.status, 200);
    assert!(grpc.content(&state_id, 1).await.unwrap() == sent[0].as_bytes());
}

#[tokio::test]
async fn a_version_whose_chain_is_broken_is_lost_data_and_without_its_key_unavailable() {
    let world = World::with(&EAGER).await;
    let (mut grpc, http) = world.both(&WORK);
    let sent: Vec<String> = (1..=4).map(|serial| odd(serial, serial)).collect();
    for sent in &sent {
        assert_eq!(http.post("odd", "", sent).await.status, 200);
    }
    world.compacted().await;
    let state_id = grpc.named("odd").await.id;
    let wrong = world.replica(&[("TERRAFORM_STATE_ENCRYPTION_KEY", OTHER_KEY)]).await;
    let there = Http {
        door: wrong.doors[0],
        authorization: http.authorization.clone(),
    };
    let answer = there.get("odd").await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "KEY_MISSING"));
    wrong.stop().await;
    for damage in [
        "update state_chunks set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) where version_id = (select id from state_versions where number = 2)",
        "delete from state_chunks where version_id = (select id from state_versions where number = 2)",
        "update state_versions set base_number = 3 where number = 2",
        "update state_versions set base_number = 5 where number = 2",
        "update state_versions set base_number = null where number = 2",
    ] {
        world
            .admin
            .batch_execute(&format!(
                "begin; create table kept as table state_chunks; \
                 create table told as select id, number, base_number from state_versions; {damage}; commit"
            ))
            .await
            .unwrap();
        let answer = grpc.content(&state_id, 1).await;
        assert_eq!(answer.as_ref().unwrap_err().code(), Code::DataLoss, "{damage}");
        assert_eq!(reason(answer).0, "CONTENT_CORRUPT");
        assert_eq!(http.get("odd").await.body, sent[3].as_bytes());
        world
            .admin
            .batch_execute(
                "begin; update state_versions v set number = t.number, base_number = t.base_number from told t where t.id = v.id; \
                 delete from state_chunks; insert into state_chunks select * from kept; drop table kept, told; commit",
            )
            .await
            .unwrap();
        assert_eq!(grpc.content(&state_id, 1).await.unwrap(), sent[0].as_bytes());
    }
}

#[tokio::test]
async fn what_does_not_come_back_takes_no_content_s_place() {
    let world = World::uncompacted().await;
    let (mut grpc, http) = world.both(&WORK);
    for serial in 1..=2 {
        assert_eq!(http.post("odd", "", &odd(serial, serial)).await.status, 200);
    }
    let state_id = grpc.named("odd").await.id;
    let _unsound = switch_off(format!("terraform_state.packing_sound/{state_id}"));
    let body = "select count(*) from state_versions where base_number is not null";
    // Refused, and put off.
    let eager = world.replica(&EAGER).await;
    world.compacted().await;
    assert_eq!(world.number(body).await, 0);
    assert_eq!(grpc.content(&state_id, 1).await.unwrap(), odd(1, 1).as_bytes());
    // Without the look at what was packed, the version is lost.
    let _unverified = switch_off(format!("terraform_state.compact_verified/{state_id}"));
    world.compacted().await;
    world.until(body, 1).await;
    assert_eq!(reason(grpc.content(&state_id, 1).await).0, "CONTENT_CORRUPT");
    eager.stop().await;
}

#[tokio::test]
async fn what_was_written_on_the_way_goes_when_its_lock_is_given_back() {
    let world = World::with(&EAGER).await;
    let (mut grpc, http) = world.both(&WORK);
    assert_eq!(http.post("prod", "", &state(1, "l", "before")).await.status, 200);
    let lock = id();
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    for serial in 2..=5 {
        assert_eq!(
            http.post("prod", &lock, &state(serial, "l", &noise(100, &serial.to_string())))
                .await
                .status,
            200
        );
    }
    let kinds = async || {
        let kinds = "select string_agg(number || ' ' || kind, ', ' order by number) from state_versions";
        world.admin.query_one(kinds, &[]).await.unwrap().get::<_, String>(0)
    };
    let on_the_way = "1 normal, 2 intermediate, 3 intermediate, 4 intermediate, 5 normal";
    assert_eq!(kinds().await, on_the_way);
    world
        .until(
            "select count(*) from state_versions where weighed_number is not null",
            4,
        )
        .await;
    assert_eq!(kinds().await, on_the_way);
    assert_eq!(http.unlock("prod", &lock).await.status, 200);
    world.compacted().await;
    world.until("select count(*) from state_versions", 2).await;
    world.compacted().await;
    assert_eq!(kinds().await, "1 normal, 5 normal");
    let state_id = grpc.named("prod").await.id;
    assert_eq!(
        grpc.content(&state_id, 1).await.unwrap(),
        state(1, "l", "before").as_bytes()
    );
    assert_eq!(reason(grpc.content(&state_id, 3).await).0, "RESOURCE_NOT_FOUND");
    // Another lock's writes are another apply.
    let lock = id();
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    assert_eq!(http.post("prod", &lock, &state(6, "l", "next")).await.status, 200);
    assert_eq!(http.unlock("prod", &lock).await.status, 200);
    assert_eq!(kinds().await, "1 normal, 5 normal, 6 normal");
}

#[tokio::test]
async fn a_forced_version_stays_what_it_is() {
    let world = World::uncompacted().await;
    let force = world.http(&EVERYTHING);
    let lock = id();
    assert_eq!(force.post("prod", "", &state(7, "l", "x")).await.status, 200);
    assert_eq!(force.lock_for("prod", &lock, "state-push").await.status, 200);
    assert_eq!(force.post("prod", &lock, &state(1, "l", "y")).await.status, 200);
    assert_eq!(force.post("prod", &lock, &state(2, "l", "z")).await.status, 200);
    let kinds = "select string_agg(kind::text, ' ' order by number) from state_versions";
    let kinds: String = world.admin.query_one(kinds, &[]).await.unwrap().get(0);
    assert_eq!(kinds, "normal forced normal");
}
