//! A second state as the observation.

use api::terraform_state::v1::UploadStateRequest;

use super::*;

/// A state with one instance of each: its name, and its attributes.
fn state(serial: i64, resources: &[(&str, Value)]) -> String {
    let resources = resources.iter().map(|(name, attributes)| {
        json!({
            "mode": "managed", "type": "fake_server", "name": name, "provider": "provider[\"example.test/x/fake\"]",
            "instances": [{"schema_version": 0, "attributes": attributes, "sensitive_attributes": []}],
        })
    });
    let resources: Vec<Value> = resources.collect();
    json!({
        "version": 4, "terraform_version": "1.11.0", "serial": serial, "lineage": "l", "outputs": {},
        "resources": resources, "check_results": null,
    })
    .to_string()
}

impl World {
    async fn upload(&self, state: &str, content: &str) {
        let request = UploadStateRequest {
            state_id: state.to_owned(),
            content: content.as_bytes().to_vec(),
            ..Default::default()
        };
        let mut states = StateServiceClient::new(self.caller.clone());
        states.upload_state(tokio_stream::iter([request])).await.unwrap();
    }

    /// Has what was observed checked, in messages of this many bytes.
    async fn observe(&self, state: &str, observed: &str, bytes: usize) -> Result<DetectDriftResponse, Status> {
        let parts = observed.as_bytes().chunks(bytes).map(|part| DetectDriftRequest {
            state_id: state.to_owned(),
            observed_state: part.to_vec(),
            ..Default::default()
        });
        let parts: Vec<DetectDriftRequest> = parts.collect();
        Ok(self
            .drifts()
            .detect_drift(tokio_stream::iter(parts))
            .await?
            .into_inner())
    }
}

#[tokio::test]
async fn a_second_state_says_what_drifted_what_is_gone_and_what_is_nobodys() {
    let world = World::new().await;
    let id = world.state("net").await;
    let web = |size: i32, password: &str| json!({"id": "1", "size": size, "password": password});
    let known = state(1, &[("gone", json!({"id": "2"})), ("web", web(2, "first-secret"))]);
    world.upload(&id, &known).await;
    let seen = state(9, &[("stranger", json!({"id": "3"})), ("web", web(8, "other-secret"))]);
    let found = world.observe(&id, &seen, 64).await.unwrap();
    assert_eq!((found.drifted_resources, found.new_drift_logs), (2, 3));
    let logs: Vec<String> = world.logs(&id).await.iter().map(line).collect();
    assert_eq!(
        logs,
        [
            "fake_server.gone is gone",
            "fake_server.web password: masked --",
            "fake_server.web size: 2 -> 8",
        ]
    );
    let rows: Vec<String> = world.view(&id).await.iter().map(row).collect();
    assert_eq!(
        rows,
        [
            "fake_server.gone : Missing - - -",
            "fake_server.stranger : Unmanaged - - -",
            "fake_server.web password: Drifted masked",
            "fake_server.web size: Drifted - 2 8",
        ]
    );
    // The same again is nothing new, and the state itself is no drift.
    let again = world.observe(&id, &seen, 1 << 20).await.unwrap();
    assert_eq!((again.drift_logs, again.new_drift_logs), (3, 0));
    let healed = world.observe(&id, &known, 1 << 20).await.unwrap();
    assert_eq!((healed.drifted_resources, healed.resolved_drift_logs), (0, 3));
}

#[tokio::test]
async fn what_is_no_second_state_is_refused_and_nothing_is_written() {
    let world = World::new().await;
    let (id, empty) = (world.state("net").await, world.state("never/written").await);
    let known = state(1, &[("web", json!({"id": "1"}))]);
    world.upload(&id, &known).await;
    let refused = |fields: &[&str]| {
        let fields = fields.iter().map(|&field| field.to_owned()).collect::<Vec<_>>();
        ("INVALID_REQUEST".to_owned(), fields)
    };
    for odd in ["{}", "[]", "{\"version\":4}", "nonsense", &known[..known.len() - 1]] {
        let answer = world.observe(&id, odd, 1 << 20).await;
        assert_eq!(reason(answer), refused(&["observed_state"]), "{odd}");
    }
    let both = DetectDriftRequest {
        state_id: id.clone(),
        plan_json: plan(json!([])).into_bytes(),
        observed_state: known.clone().into_bytes(),
        ..Default::default()
    };
    let answer = world.drifts().detect_drift(tokio_stream::iter([both.clone()])).await;
    assert_eq!(reason(answer), refused(&["observed_state"]));
    let first = DetectDriftRequest {
        observed_state: Vec::new(),
        ..both.clone()
    };
    let second = DetectDriftRequest {
        plan_json: Vec::new(),
        ..both
    };
    let answer = world.drifts().detect_drift(tokio_stream::iter([first, second])).await;
    assert_eq!(reason(answer), refused(&["observed_state"]));
    let answer = world.observe(&empty, &known, 1 << 20).await;
    assert_eq!(reason(answer).0, "RESOURCE_NOT_FOUND");
    assert_eq!(world.number("select count(*) from drift_checks").await, 0);
}
