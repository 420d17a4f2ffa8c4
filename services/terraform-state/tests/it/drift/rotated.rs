//! What drift holds sealed, and what findings are known by, follow the keys.

use api::terraform_state::v1::{GetKeyStatusRequest, KeyRotation, key_service_client::KeyServiceClient};
use kit::{
    ids::{Principal, UserId},
    service::Running,
};
use testkit::{Caller, serve::Bearer};
use tonic::transport::Endpoint;
use uuid::Uuid;

use super::{World, line, row, view::NORMAL};
use crate::{
    key::{NEW_KEY, changed, rotate},
    world::replica,
};

impl World {
    /// The same, at a server with this environment.
    async fn at(mut self, env: &[(&str, String)]) -> (World, Running) {
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let running = replica(&self.served, &env).await;
        let endpoint = Endpoint::from_shared(format!("http://{}", running.grpc)).unwrap();
        let principal = Principal::User(UserId::new());
        self.served.office.grant(self.org, principal, &["terraform_state.*.*"]);
        let token = self.served.office.token(self.org, principal, Uuid::now_v7(), 1);
        self.caller = Caller::new(endpoint.connect_lazy(), Bearer::new(&token));
        (self, running)
    }

    /// What is read of a state's drift.
    async fn read(&self, state: &str) -> (Vec<String>, Vec<String>) {
        let (logs, rows) = (self.logs(state).await, self.view(state).await);
        (logs.iter().map(line).collect(), rows.iter().map(row).collect())
    }

    /// How many values of drift each key of the ring seals, the primary one first.
    async fn sealed(&self) -> Vec<i64> {
        let mut keys = KeyServiceClient::new(self.caller.clone());
        let status = keys.get_key_status(GetKeyStatusRequest {}).await.unwrap().into_inner();
        status.keys.iter().map(|key| key.drift_values).collect()
    }

    async fn rotated(&self) -> KeyRotation {
        let mut keys = KeyServiceClient::new(self.caller.clone());
        rotate(&mut keys).await.unwrap().pop().unwrap()
    }
}

#[tokio::test]
async fn values_and_fingerprints_follow_a_rotation_and_the_old_key_can_go() {
    let world = World::new().await;
    let state = world.state("prod").await;
    assert!(world.detect(&state, NORMAL).await.unwrap().new_drift_logs > 0);
    let read = world.read(&state).await;
    let sealed = world.sealed().await[0];
    let in_logs = "select count(before) + count(after) from drift_logs";
    let in_logs = world.number(in_logs).await;
    assert!(0 < in_logs && in_logs < sealed, "{in_logs} of {sealed}");

    let (world, both) = world.at(&changed()).await;
    assert_eq!(world.sealed().await, [0, sealed]);
    let rotation = world.rotated().await;
    assert_eq!((rotation.done_drift_values, rotation.failed_drift_values), (sealed, 0));
    assert!(rotation.finished_at.is_some());
    assert_eq!(world.sealed().await, [sealed, 0]);
    assert_eq!(world.read(&state).await, read);
    // Known by the retired key, and from now on by the primary one.
    assert_eq!(world.detect(&state, NORMAL).await.unwrap().new_drift_logs, 0);
    both.stop().await;

    let (world, alone) = world
        .at(&[("TERRAFORM_STATE_ENCRYPTION_KEY", NEW_KEY.to_owned())])
        .await;
    assert_eq!(world.read(&state).await, read);
    let again = world.detect(&state, NORMAL).await.unwrap();
    assert_eq!((again.new_drift_logs, again.resolved_drift_logs), (0, 0));
    alone.stop().await;
}

#[tokio::test]
async fn a_value_that_does_not_open_is_counted_and_keeps_no_other_from_the_new_key() {
    let world = World::new().await;
    let state = world.state("prod").await;
    world.detect(&state, NORMAL).await.unwrap();
    let sealed = world.sealed().await[0];
    let damage = "update drift_logs set after = set_byte(after, 90, get_byte(after, 90) # 1)
                  where id = (select min(id::text)::uuid from drift_logs where before is not null and after is not null)";
    assert_eq!(world.admin.execute(damage, &[]).await.unwrap(), 1);
    let (world, both) = world.at(&changed()).await;
    let rotation = world.rotated().await;
    assert!(rotation.finished_at.is_some());
    assert_eq!(
        (rotation.done_drift_values, rotation.failed_drift_values),
        (sealed - 1, 1)
    );
    assert_eq!(world.sealed().await, [sealed - 1, 1]);
    both.stop().await;
}
