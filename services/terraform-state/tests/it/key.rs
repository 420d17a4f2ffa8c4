//! The keys that states are sealed with.

use api::terraform_state::v1::{
    GetKeyStatusRequest, KeyRotation, RotateKeysRequest, key_service_client::KeyServiceClient,
};
use kit::ids::OrgId;
use terraform_state::offline::Problem;
use testkit::{Caller, Role};
use tonic::Status;

use crate::world::{WORK, World, noise, state};

pub(crate) const NEW_KEY: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
const KEYS: [&str; 1] = ["terraform_state.key.*"];

/// The ring after a change: a new primary key, and the old one retired.
pub(crate) fn changed() -> [(&'static str, String); 2] {
    [
        ("TERRAFORM_STATE_ENCRYPTION_KEY", NEW_KEY.to_owned()),
        ("TERRAFORM_STATE_ENCRYPTION_KEYS_RETIRED", "06".repeat(32)),
    ]
}

pub(crate) async fn rotate(keys: &mut KeyServiceClient<Caller>) -> Result<Vec<KeyRotation>, Status> {
    let mut stream = keys.rotate_keys(RotateKeysRequest::default()).await?.into_inner();
    let mut told = Vec::new();
    while let Some(answer) = stream.message().await? {
        told.push(answer.rotation.unwrap());
    }
    Ok(told)
}

/// Id, whether it is the primary one and held, and how many versions it seals.
async fn status(keys: &mut KeyServiceClient<Caller>) -> Vec<(bool, bool, i64)> {
    let status = keys.get_key_status(GetKeyStatusRequest {}).await.unwrap().into_inner();
    status
        .keys
        .into_iter()
        .map(|key| (key.primary, key.held, key.versions))
        .collect()
}

#[tokio::test]
async fn a_rotation_seals_every_version_by_the_new_key_and_the_old_one_can_go() {
    let world = World::uncompacted().await;
    let http = world.http(&WORK);
    let sent = |serial| state(serial, "l", &noise(500, &serial.to_string()));
    for serial in 1..=5 {
        assert_eq!(http.post("prod", "", &sent(serial)).await.status, 200);
    }
    let mut before = KeyServiceClient::new(world.served.caller(world.org, &KEYS));
    assert_eq!(status(&mut before).await, [(true, true, 5)]);
    // One version of another organization.
    let other = OrgId::new();
    let theirs = world.http_as(&world.token(other, &WORK));
    assert_eq!(theirs.post("prod", "", &sent(1)).await.status, 200);
    let bodies = "select sum(hashtext(body_id::text))::bigint from state_versions";
    let untouched = world.number(bodies).await;
    let replica = world
        .replica(&changed().each_ref().map(|(name, value)| (*name, value.as_str())))
        .await;
    let at = |org| {
        let token = world.token(org, &KEYS);
        KeyServiceClient::new(Caller::new(
            tonic::transport::Endpoint::from_shared(format!("http://{}", replica.grpc))
                .unwrap()
                .connect_lazy(),
            testkit::serve::Bearer::new(&token),
        ))
    };
    let mut keys = at(world.org);
    assert_eq!(status(&mut keys).await, [(true, true, 0), (false, true, 5)]);
    let told = rotate(&mut keys).await.unwrap();
    let last = told.last().unwrap();
    assert_eq!(
        (last.total_versions, last.done_versions, last.failed_versions),
        (5, 5, 0)
    );
    assert!(last.finished_at.is_some());
    assert_eq!(status(&mut keys).await, [(true, true, 5), (false, true, 0)]);
    // The platform's rotation is everybody's.
    let mut platform = at(OrgId::PLATFORM);
    assert_eq!(status(&mut platform).await, [(true, true, 5), (false, true, 1)]);
    assert_eq!(rotate(&mut platform).await.unwrap().last().unwrap().done_versions, 1);
    assert_eq!(world.number(bodies).await, untouched);
    replica.stop().await;
    // Without the old key, everything is read, and a repeat is known as one.
    let alone = world.replica(&[("TERRAFORM_STATE_ENCRYPTION_KEY", NEW_KEY)]).await;
    let there = crate::world::Http {
        door: alone.doors[0],
        authorization: http.authorization.clone(),
    };
    assert_eq!(there.get("prod").await.body, sent(5).into_bytes());
    assert_eq!(there.post("prod", "", &sent(5)).await.status, 200);
    assert_eq!(world.number("select count(*) from state_versions").await, 6);
    alone.stop().await;
    // The old server sees versions under a key that it does not hold.
    assert_eq!(status(&mut before).await, [(true, true, 0), (false, false, 5)]);
}

#[tokio::test]
async fn a_version_that_cannot_be_opened_is_counted_and_keeps_no_other_from_its_key() {
    let world = World::uncompacted().await;
    let http = world.http(&WORK);
    for serial in 1..=3 {
        assert_eq!(http.post("prod", "", &state(serial, "l", "x")).await.status, 200);
    }
    let damage =
        "update state_versions set data_key = set_byte(data_key, 90, get_byte(data_key, 90) # 1) where number = 2";
    world.admin.batch_execute(damage).await.unwrap();
    let replica = world
        .replica(&changed().each_ref().map(|(name, value)| (*name, value.as_str())))
        .await;
    let token = world.token(world.org, &KEYS);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", replica.grpc)).unwrap();
    let mut keys = KeyServiceClient::new(Caller::new(channel.connect_lazy(), testkit::serve::Bearer::new(&token)));
    let last = rotate(&mut keys).await.unwrap().pop().unwrap();
    assert_eq!(
        (last.total_versions, last.done_versions, last.failed_versions),
        (3, 2, 1)
    );
    replica.stop().await;
}

/// Reads a state as `board3 state decrypt` does, while the service is down: what is written, or what is told instead.
async fn decrypted(world: &World, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let org = world.org.to_string();
    let arguments = [&["decrypt", "--organization", &org], arguments].concat();
    let key = |name: &str| (name == "TERRAFORM_STATE_ENCRYPTION_KEY").then(|| "06".repeat(32));
    let mut out = Vec::new();
    match terraform_state::offline::run(arguments.iter().map(Into::into), key, &mut out).await {
        Ok(()) => Ok(out),
        Err(Problem::Met(problem)) => {
            assert_eq!(out, b"", "{problem}");
            Err(problem)
        }
        Err(Problem::Asked(problem)) => panic!("{problem}"),
    }
}

#[tokio::test]
async fn a_state_is_decrypted_while_the_service_is_down() {
    let world = World::with(&[("BOARD3_STATE_COMPACT_AFTER_SECONDS", "0")]).await;
    let http = world.http(&WORK);
    let sent = |serial| state(serial, "l", &noise(5000, "same").replace('a', &serial.to_string()));
    for serial in 1..=3 {
        assert_eq!(http.post("team/prod", "", &sent(serial)).await.status, 200);
    }
    world.compacted().await;
    assert_eq!(
        world
            .number("select count(*) from state_versions where base_number is not null")
            .await,
        2
    );
    let url = world.served.database.url(terraform_state::SERVICE.slice, Role::App);
    let of = async |more: &[&str]| {
        let arguments = [&["--state", "team/prod", "--database", &url], more].concat();
        decrypted(&world, &arguments).await
    };
    assert_eq!(of(&[]).await, Ok(sent(3).into_bytes()));
    assert_eq!(of(&["--version", "1"]).await, Ok(sent(1).into_bytes()));
    let told = of(&["--version", "9"]).await.unwrap_err();
    assert!(told.contains("there is no version 9"), "{told}");
    // From a dump alone, as pg_dump writes it.
    let mut dump = String::new();
    for table in ["state_chunks", "state_versions", "states"] {
        let columns = format!(
            "select string_agg(column_name, ', ' order by ordinal_position) from information_schema.columns \
             where table_schema = 'terraform_state' and table_name = '{table}' and is_generated = 'NEVER'"
        );
        let columns: String = world.admin.query_one(&columns, &[]).await.unwrap().get(0);
        dump.push_str(&format!("COPY terraform_state.{table} ({columns}) FROM stdin;\n"));
        let rows = world
            .admin
            .simple_query(&format!("select {columns} from {table}"))
            .await
            .unwrap();
        for row in rows {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = row {
                let cells: Vec<String> = (0..row.len())
                    .map(|at| row.get(at).map_or("\\N".to_owned(), |cell| cell.replace('\\', "\\\\")))
                    .collect();
                dump.push_str(&format!("{}\n", cells.join("\t")));
            }
        }
        dump.push_str("\\.\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("dump.sql"), folder.path().join("state"));
    std::fs::write(&path, dump).unwrap();
    let (path, out) = (path.to_str().unwrap(), out.to_str().unwrap());
    let from_dump = ["--state", "team/prod", "--version", "2", "--dump", path, "--out", out];
    assert_eq!(decrypted(&world, &from_dump).await, Ok(Vec::new()));
    assert_eq!(std::fs::read(out).unwrap(), sent(2).into_bytes());
    // What is there is not written over.
    assert!(decrypted(&world, &from_dump).await.is_err());
    assert_eq!(std::fs::read(out).unwrap(), sent(2).into_bytes());
    // A damaged content is none.
    let damage = "update state_chunks set sealed = set_byte(sealed, 60, get_byte(sealed, 60) # 1)";
    world.admin.batch_execute(damage).await.unwrap();
    let told = of(&[]).await.unwrap_err();
    assert!(told.contains("corrupt"), "{told}");
}
