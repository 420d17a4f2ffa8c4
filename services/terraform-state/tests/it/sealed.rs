//! What stands in the tables: nothing to read, nothing to swap, nothing to cut.

use testkit::serve;

use crate::world::{Http, WORK, World, id, noise, state};

const OTHER_KEY: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

#[tokio::test]
async fn raw_tables_hold_no_plain_text() {
    let world = World::new().await;
    let http = world.http(&WORK);
    for serial in 1..=3 {
        let sent = state(serial, "l", &format!("canary-{}", "y".repeat(1_500_000)));
        assert_eq!(http.post("prod", "", &sent).await.status, 200);
    }
    let tables = "select table_name from information_schema.tables where table_schema = 'terraform_state'";
    for row in world.admin.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let found = format!(
            "select count(*) from {table} t where t::text like '%canary%' or t::text like '%{}%' or t::text like '%yyyyyyyy%'",
            "canary".bytes().map(|byte| format!("{byte:02x}")).collect::<String>()
        );
        assert_eq!(world.number(&found).await, 0, "{table}");
    }
    // The hash is no plain digest.
    let digest = blake3::hash(state(3, "l", &format!("canary-{}", "y".repeat(1_500_000))).as_bytes());
    let found = format!(
        "select count(*) from state_versions where encode(content_hash, 'hex') = '{}'",
        digest.to_hex()
    );
    assert_eq!(world.number(&found).await, 0);
}

#[tokio::test]
async fn a_chunk_that_was_changed_swapped_or_left_out_is_500_and_never_less() {
    let world = World::uncompacted().await;
    let http = world.http(&WORK);
    let large = |serial, value: &str| state(serial, "l", &noise(3_400_000, value));
    for (name, serial, value) in [("a", 1, "1"), ("a", 2, "2"), ("b", 1, "3")] {
        assert_eq!(http.post(name, "", &large(serial, value)).await.status, 200);
    }
    let of = |name: &str, number: i32| {
        format!(
            "(select v.id from state_versions v join states s on s.org_id = v.org_id and s.id = v.state_id \
             where s.name = '{name}' and v.number = {number})"
        )
    };
    let (current, before, other) = (of("a", 2), of("a", 1), of("b", 1));
    let columns = "select string_agg(column_name, ', ') from information_schema.columns \
                   where table_name = 'state_versions' and is_generated = 'NEVER'";
    let columns: String = world.admin.query_one(columns, &[]).await.unwrap().get(0);
    let swap = |one: &str, another: &str, place: i32| {
        format!(
            "with rows as (select version_id, sealed from state_chunks where place = {place} and version_id in ({one}, {another})) \
             update state_chunks c set sealed = rows.sealed from rows where c.place = {place} \
             and c.version_id in ({one}, {another}) and rows.version_id <> c.version_id"
        )
    };
    for damage in [
        format!("update state_chunks set sealed = set_byte(sealed, 500000, get_byte(sealed, 500000) # 1) where place = 1 and version_id = {current}"),
        format!("update state_chunks set sealed = set_byte(sealed, 0, 9) where place = 0 and version_id = {current}"),
        format!("update state_chunks set sealed = ''::bytea where place = 0 and version_id = {current}"),
        swap(&current, &before, 0),
        swap(&current, &other, 1),
        format!(
            "update state_chunks c set place = 3 where place = 0 and version_id = {current}; \
             update state_chunks c set place = 0 where place = 1 and version_id = {current}; \
             update state_chunks c set place = 1 where place = 3 and version_id = {current}"
        ),
        format!("delete from state_chunks where place = 2 and version_id = {current}"),
        format!(
            "delete from state_chunks where place = 2 and version_id = {current}; \
             update state_versions set chunks = 2 where id = {current}"
        ),
        format!("update state_versions set size_bytes = size_bytes - 1 where id = {current}"),
        format!("update state_versions set content_hash = sha256('') where id = {current}"),
        format!("update state_versions set data_key = set_byte(data_key, 90, get_byte(data_key, 90) # 1) where id = {current}"),
        format!("update state_versions set data_key = (select data_key from state_versions where id = {before}) where id = {current}"),
        format!("update state_versions set serial = 1 where id = {current}"),
        "update states set latest_version = 3 where name = 'a'".to_owned(),
        // A version that stands where another stood.
        "update state_versions v set number = 9 from states s where s.id = v.state_id and s.name = 'a' and number = 2; \
         update state_versions v set number = 2 from states s where s.id = v.state_id and s.name = 'a' and number = 1"
            .to_owned(),
    ] {
        world.admin.batch_execute(&format!("begin; create table kept_chunks as table state_chunks; create table kept_versions as table state_versions; create table kept_states as table states; {damage}; commit")).await.unwrap();
        let answer = http.get("a").await;
        assert_eq!((answer.status, answer.reason().as_str()), (500, "CONTENT_CORRUPT"), "{damage}");
        world.admin.batch_execute(&format!("begin; delete from state_chunks; delete from state_versions; insert into state_versions ({columns}) select {columns} from kept_versions; insert into state_chunks select * from kept_chunks; update states set latest_version = k.latest_version from kept_states k where k.id = states.id; drop table kept_chunks, kept_versions, kept_states; commit")).await.unwrap();
        assert_eq!(http.get("a").await.status, 200, "{damage} undone");
    }
    assert_eq!(http.get("b").await.body, large(1, "3").into_bytes());
}

#[tokio::test]
async fn under_another_key_states_are_503_and_under_a_retired_one_200() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let sent = state(1, "l", "x");
    assert_eq!(http.post("prod", "", &sent).await.status, 200);
    let at = |door| Http {
        door,
        authorization: http.authorization.clone(),
    };
    let key: String = "06".repeat(32);
    let wrong = world.replica(&[("TERRAFORM_STATE_ENCRYPTION_KEY", OTHER_KEY)]).await;
    let answer = at(wrong.doors[0]).get("prod").await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "KEY_MISSING"));
    assert!(answer.header("retry-after").is_some());
    // Whether this is a repeat cannot be told without the key.
    let answer = at(wrong.doors[0]).post("prod", "", &sent).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "KEY_MISSING"));
    wrong.stop().await;
    let rotated = [
        ("TERRAFORM_STATE_ENCRYPTION_KEY", OTHER_KEY),
        ("TERRAFORM_STATE_ENCRYPTION_KEYS_RETIRED", key.as_str()),
    ];
    let rotated = world.replica(&rotated).await;
    let there = at(rotated.doors[0]);
    assert_eq!(there.get("prod").await.body, sent.as_bytes());
    assert_eq!(there.post("prod", "", &sent).await.status, 200);
    assert_eq!(there.post("prod", "", &state(2, "l", "y")).await.status, 200);
    assert_eq!(there.get("prod").await.body, state(2, "l", "y").into_bytes());
    // The old server does not have the new key.
    assert_eq!(http.get("prod").await.status, 503);
    rotated.stop().await;
}

#[tokio::test]
async fn a_state_is_never_404_because_the_database_is_in_trouble() {
    let world = World::new().await;
    let http = world.http(&WORK);
    assert_eq!(http.post("prod", "", &state(1, "l", "x")).await.status, 200);
    world
        .admin
        .batch_execute("alter table state_chunks rename to elsewhere")
        .await
        .unwrap();
    assert_eq!(http.get("prod").await.status, 500);
    world
        .admin
        .batch_execute("alter table elsewhere rename to state_chunks; alter table states rename to elsewhere")
        .await
        .unwrap();
    for method in ["GET", "UNLOCK"] {
        let body = crate::world::lock_info(&id(), "x");
        assert_eq!(http.ask(method, "/v1/states/prod", body.as_bytes()).await.status, 500);
    }
    world
        .admin
        .batch_execute("alter table elsewhere rename to states")
        .await
        .unwrap();
    assert_eq!(http.get("prod").await.status, 200);
}

#[tokio::test]
async fn the_app_role_cannot_change_what_was_written() {
    let served = serve(terraform_state::SERVICE).await;
    let app = served
        .database
        .client(terraform_state::SERVICE.slice, testkit::Role::App)
        .await;
    for statement in [
        "update state_versions set serial = 1",
        "delete from state_versions",
        "update state_chunks set place = 1",
        "delete from state_chunks",
        "delete from states",
        "delete from designs",
        "update designs set deleted = true",
    ] {
        let denied = app.batch_execute(statement).await.unwrap_err();
        assert_eq!(denied.code().map(|code| code.code()), Some("42501"), "{statement}");
    }
}
