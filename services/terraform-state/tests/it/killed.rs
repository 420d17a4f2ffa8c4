//! The compactor and the rotation, killed at every step: nothing is lost, and the next one goes on.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    key::changed,
    world::{Grpc, WORK, World, noise, state},
};

/// Another process of the service on the same database.
struct Process(Child);

impl Process {
    fn start(world: &World, more: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_board3-terraform-state"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(world.served.env.iter().map(|(name, value)| (name, value)))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Process(command.spawn().unwrap())
    }

    /// Waits until it was killed.
    async fn killed(mut self) {
        use std::os::unix::process::ExitStatusExt;
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert_eq!(status.signal(), Some(9), "{status}");
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(90), "nothing has killed it");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sent(serial: u64) -> String {
    state(
        serial,
        "l",
        &noise(3000, "same").replace('a', &noise(20, &serial.to_string())),
    )
}

async fn all_are_there(grpc: &mut Grpc, state_id: &str, versions: u64) {
    for serial in 1..=versions {
        let content = grpc.content(state_id, serial as i64).await.unwrap();
        assert!(content == sent(serial).as_bytes(), "{serial}");
    }
}

#[tokio::test]
async fn a_compactor_that_is_killed_at_any_step_loses_nothing() {
    let world = World::uncompacted().await;
    let (mut grpc, http) = world.both(&WORK);
    for serial in 1..=8 {
        assert_eq!(http.post("prod", "", &sent(serial)).await.status, 200);
    }
    let state_id = grpc.named("prod").await.id;
    world
        .admin
        .batch_execute("update compactions set due_at = now()")
        .await
        .unwrap();
    let eager = ("BOARD3_STATE_COMPACT_AFTER_SECONDS", "0");
    for point in ["claimed", "packed", "updated", "swapped", "committed"] {
        let armed = format!("terraform_state.compact_{point}=kill");
        Process::start(&world, &[eager, ("BOARD3_FAILPOINT", &armed)])
            .killed()
            .await;
        all_are_there(&mut grpc, &state_id, 8).await;
    }
    // The one after a commit has moved it on.
    let told = "select count(*) from state_versions where base_number is not null";
    assert_eq!(world.number(told).await, 1);
    let _whole = Process::start(&world, &[eager]);
    world.until("select count(*) from compactions", 0).await;
    assert_eq!(world.number(told).await, 7);
    all_are_there(&mut grpc, &state_id, 8).await;
}

#[tokio::test]
async fn a_rotation_that_is_killed_at_any_step_goes_on() {
    let world = World::uncompacted().await;
    let (mut grpc, http) = world.both(&WORK);
    for serial in 1..=3 {
        assert_eq!(http.post("prod", "", &sent(serial)).await.status, 200);
    }
    let state_id = grpc.named("prod").await.id;
    let id = kit::crypto::KeyRing::parse(crate::key::NEW_KEY, "")
        .unwrap()
        .current_id();
    let ask = format!(
        "insert into key_rotations (org_id, id, key_id, total) values ('{}', gen_random_uuid(), '\\x{id}', 3)",
        world.org
    );
    world.admin.batch_execute(&ask).await.unwrap();
    let keys = changed();
    let keys: Vec<(&str, &str)> = keys.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let old = "select count(*) from state_versions where substring(data_key from 2 for 4) <> (select key_id from key_rotations)";
    for (point, left) in [("claimed", 3), ("sealed", 3), ("committed", 0)] {
        let armed = format!("terraform_state.rotation_{point}=kill");
        Process::start(&world, &[&keys[..], &[("BOARD3_FAILPOINT", &armed)]].concat())
            .killed()
            .await;
        assert_eq!(world.number(old).await, left, "{point}");
    }
    let _whole = Process::start(&world, &keys);
    world
        .until(
            "select count(*) from key_rotations where finished_at is not null and done = 3 and failed = 0",
            1,
        )
        .await;
    let both = world.replica(&keys).await;
    let there = crate::world::Http {
        door: both.doors[0],
        authorization: http.authorization.clone(),
    };
    assert_eq!(there.get("prod").await.body, sent(3).into_bytes());
    both.stop().await;
    // Its old versions are there too, for who has the new key.
    assert_eq!(crate::world::reason(grpc.content(&state_id, 1).await).0, "KEY_MISSING");
}
