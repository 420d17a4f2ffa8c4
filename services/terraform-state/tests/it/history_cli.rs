//! What the real `terraform` makes of a rollback, and of a key that reads outputs alone.

use std::fs;

use api::terraform_state::v1::RollbackStateRequest;
use kit::failpoint;

use crate::{
    cli::{Checkout, terraform},
    world::{EVERYTHING, World, id},
};

/// A plan that was saved at the second version, and the state brought back to the first.
async fn rolled_back(world: &World, name: &str) -> Option<Checkout> {
    let token = world.token(world.org, &EVERYTHING);
    let checkout = Checkout::new(terraform()?, world.door(), name, &token).await;
    checkout.apply().await.well();
    checkout.write("two", "");
    checkout.apply().await.well();
    checkout.write("three", "");
    checkout.run(&["plan", "-input=false", "-out=saved"]).await.well();
    let mut grpc = world.grpc(&EVERYTHING);
    let request = RollbackStateRequest {
        state_id: grpc.named(name).await.id,
        version: 1,
        request_id: id(),
        ..Default::default()
    };
    grpc.states.rollback_state(request).await.unwrap();
    assert!(checkout.run(&["output", "a"]).await.well().contains("one"));
    Some(checkout)
}

#[tokio::test]
async fn a_plan_that_was_saved_before_a_rollback_is_refused() {
    let world = World::new().await;
    let Some(checkout) = rolled_back(&world, "prod").await else {
        return;
    };
    let told = checkout.run(&["apply", "-input=false", "saved"]).await.badly();
    assert!(told.contains("Saved plan is stale"), "{told}");
    // And so it is after another apply.
    checkout.write("four", "");
    checkout.apply().await.well();
    let told = checkout.run(&["apply", "-input=false", "saved"]).await.badly();
    assert!(told.contains("Saved plan is stale"), "{told}");
    assert!(checkout.run(&["output", "a"]).await.well().contains("four"));
}

#[tokio::test]
async fn under_its_old_serial_a_rollback_lets_a_stale_plan_be_applied() {
    let world = World::new().await;
    let _off = failpoint::switch_off("terraform_state.rollback_serial/verbatim");
    let Some(checkout) = rolled_back(&world, "verbatim").await else {
        return;
    };
    checkout.write("four", "");
    checkout.apply().await.well();
    checkout.run(&["apply", "-input=false", "saved"]).await.well();
    assert!(checkout.run(&["output", "a"]).await.well().contains("three"));
}

#[tokio::test]
async fn another_configuration_reads_outputs_by_a_key_that_reads_nothing_else() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let token = world.token(world.org, &EVERYTHING);
    let checkout = Checkout::new(program, world.door(), "net", &token).await;
    checkout.apply().await.well();
    let key = world.token(world.org, &["terraform_state.output.read"]);
    let door = world.door();
    let reads = |path: &str| {
        format!(
            "data \"terraform_remote_state\" \"net\" {{\n backend = \"http\"\n config = {{\n address = \"http://{door}{path}\"\n \
             username = \"anyone\"\n password = \"{key}\"\n }}\n}}\noutput \"seen\" {{ value = data.terraform_remote_state.net.outputs }}\n"
        )
    };
    let other = tempfile::tempdir().unwrap();
    let reader = Checkout { dir: other, ..checkout };
    fs::write(reader.dir.path().join("main.tf"), reads("/v1/outputs/net")).unwrap();
    reader.run(&["init", "-input=false"]).await.well();
    reader.apply().await.well();
    let seen = reader.run(&["output", "seen"]).await.well();
    assert!(seen.contains("\"a\" = \"one\""), "{seen}");
    // It is no key to the state.
    fs::write(reader.dir.path().join("main.tf"), reads("/v1/states/net")).unwrap();
    assert!(reader.apply().await.badly().contains("invalid auth"));
}
