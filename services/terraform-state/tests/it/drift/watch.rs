//! What happens to a state's drift logs, as it happens.

use std::time::Duration;

use api::terraform_state::v1::{WatchDriftRequest, WatchDriftResponse};
use tonic::Streaming;

use super::*;

async fn next(stream: &mut Streaming<WatchDriftResponse>) -> WatchDriftResponse {
    let message = tokio::time::timeout(Duration::from_secs(60), stream.message()).await;
    message
        .expect("a message in time")
        .unwrap()
        .expect("the stream goes on")
}

async fn changed(stream: &mut Streaming<WatchDriftResponse>) -> (i64, String) {
    loop {
        let message = next(stream).await;
        if let Some(change) = message.change {
            let log = message.drift_log.unwrap();
            assert_eq!((message.cursor, &change.drift_log_id), (change.number, &log.id));
            return (change.number, format!("{} {:?}", log.path, change.after()));
        }
    }
}

#[tokio::test]
async fn every_change_is_told_once_in_order_and_taken_up_again() {
    let world = World::new().await;
    let state = world.state("state").await;
    world.detect(&state, REFRESH_ONLY).await.unwrap();
    let watch = async |cursor: Option<i64>, until_current: bool| {
        let request = WatchDriftRequest {
            state_id: state.clone(),
            cursor,
            until_current,
        };
        { world.drifts() }.watch_drift(request).await.unwrap().into_inner()
    };
    let mut from_now = watch(None, false).await;
    let begun = next(&mut from_now).await;
    assert!(begun.cursor == 5 && begun.change.is_none());
    let logs = world.logs(&state).await;
    world.accept(logs.iter().find(|log| log.path == "size").unwrap()).await;
    assert_eq!(changed(&mut from_now).await, (6, "size Accepted".to_owned()));
    world.detect(&state, plan(json!([]))).await.unwrap();
    for number in 7..=11 {
        assert_eq!(changed(&mut from_now).await.0, number);
    }
    // From the start, and from the middle, up to where it stands.
    for after in [0, 4, 11, 99] {
        let mut all = watch(Some(after), true).await;
        let mut numbers = Vec::new();
        while let Some(message) = all.message().await.unwrap() {
            numbers.extend(message.change.map(|change| change.number));
        }
        assert_eq!(numbers, ((after + 1)..=11).collect::<Vec<i64>>());
    }
    let wrong = WatchDriftRequest {
        state_id: "x".to_owned(),
        cursor: Some(-1),
        ..Default::default()
    };
    assert_eq!(
        reason({ world.drifts() }.watch_drift(wrong).await).1,
        ["state_id", "cursor"]
    );
    let mut stranger = DriftServiceClient::new(world.served.caller(OrgId::new(), &["terraform_state.*.*"]));
    let theirs = WatchDriftRequest {
        state_id: state.clone(),
        ..Default::default()
    };
    assert_eq!(reason(stranger.watch_drift(theirs).await).0, "RESOURCE_NOT_FOUND");
}
