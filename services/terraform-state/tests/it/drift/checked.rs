//! What a check finds, tells and refuses.

use super::*;

#[tokio::test]
async fn what_has_drifted_is_logged_and_told() {
    let world = World::new().await;
    let state = world.state("prod/web").await;
    // Parts end anywhere, also within a character.
    let text = REFRESH_ONLY.replace("mallory", "mällörÿ");
    let found = world.detect_in(&state, "", text.as_bytes(), 7).await.unwrap();
    assert_eq!((found.drifted_resources, found.drift_logs), (2, 5));
    let logs = world.logs(&state).await;
    let lines: Vec<String> = logs.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "fake_server.gone is gone",
            "fake_server.web password: masked --",
            "fake_server.web size: 2 -> 8",
            "fake_server.web tags[\"env\"]: dev -> prod",
            "fake_server.web tags[\"owner\"]: - -> mällörÿ",
        ]
    );
    for log in &logs {
        assert_eq!((&log.state_id, &log.check_id), (&state, &found.check_id));
        assert_eq!(log.resource_type, "fake_server");
        assert_eq!(log.detected_at, logs[0].detected_at);
    }
    let told = world.told().await;
    let [part] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((&part.check_id, &part.state_id), (&found.check_id, &state));
    assert_eq!((part.state_name.as_str(), part.design_id.as_str()), ("prod/web", ""));
    assert_eq!((part.part, part.drifted_resources), (0, 2));
    let resources: Vec<_> = part
        .resources
        .iter()
        .map(|it| (it.address.as_str(), it.deleted))
        .collect();
    assert_eq!(resources, [("fake_server.gone", true), ("fake_server.web", false)]);
    let events = world.events().await;
    let audited: Vec<_> = events
        .iter()
        .filter(|event| event.audited)
        .map(|event| event.action.as_str())
        .collect();
    assert_eq!(audited, ["terraform_state.CreateState", "terraform_state.DetectDrift"]);
    let about = events
        .iter()
        .rfind(|event| event.audited)
        .unwrap()
        .resource
        .clone()
        .unwrap();
    assert_eq!((about.r#type.as_str(), &about.id), ("state", &state));
}

#[tokio::test]
async fn no_drift_is_told_too() {
    let world = World::new().await;
    let state = world.state("clean").await;
    let found = world.detect(&state, plan(json!([]))).await.unwrap();
    assert_eq!((found.drifted_resources, found.drift_logs), (0, 0));
    assert!(world.logs(&state).await.is_empty());
    let told = world.told().await;
    let [part] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        (part.check_id.as_str(), part.drifted_resources),
        (found.check_id.as_str(), 0)
    );
    assert!(part.resources.is_empty() && part.part == 0);
    world.detect(&state, REFRESH_ONLY).await.unwrap();
    let metrics = world.metrics().await;
    for expected in [
        "board3_drift_checks{drift=\"none\"} 1",
        "board3_drift_checks{drift=\"found\"} 1",
        "board3_drifted_resources{kind=\"changed\"} 1",
        "board3_drifted_resources{kind=\"deleted\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == expected), "{expected}: {metrics}");
    }
}

#[tokio::test]
async fn many_resources_are_told_in_parts_and_many_logs_written_at_once() {
    let world = World::new().await;
    let state = world.state("crowd").await;
    let many = |count: usize, letters: usize| {
        let address = |n| format!("fake_server.{}[{n}]", "ü".repeat(letters));
        plan(
            (0..count)
                .map(|n| {
                    update(
                        &address(n),
                        json!({"size": 1, "ip": "a"}),
                        json!({"size": 2, "ip": "b"}),
                    )
                })
                .collect(),
        )
    };
    let found = world.detect(&state, many(1_250, 1)).await.unwrap();
    assert_eq!((found.drifted_resources, found.drift_logs), (1_250, 2_500));
    let lengths: Vec<_> = world
        .told()
        .await
        .iter()
        .map(|part| (part.part, part.resources.len()))
        .collect();
    let expected: Vec<_> = (0..13).map(|part| (part, if part == 12 { 50 } else { 100 })).collect();
    assert_eq!(lengths, expected);
    // An event has at most 64 KiB.
    world.detect(&state, many(200, 480)).await.unwrap();
    let events = world.events().await;
    assert!(events.iter().all(|event| event.encoded_len() < 64 << 10));
    let told = world.told().await;
    let parts = &told[13..];
    assert!(parts.len() > 2 && parts.iter().enumerate().all(|(index, part)| part.part == index as i32));
    assert_eq!(parts.iter().map(|part| part.resources.len()).sum::<usize>(), 200);
    assert_eq!(world.number("select count(*) from drift_logs").await, 2_900);
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_and_writes_nothing() {
    let world = World::new().await;
    let (state, other) = (world.state("one").await, world.state("two").await);
    let id = Uuid::now_v7().to_string();
    let first = world
        .detect_in(&state, &id, REFRESH_ONLY.as_bytes(), 1 << 20)
        .await
        .unwrap();
    // The same plan in other parts is the same plan.
    let again = world
        .detect_in(&state, &id, REFRESH_ONLY.as_bytes(), 1_000)
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(world.number("select count(*) from drift_logs").await, 5);
    assert_eq!(world.told().await.len(), 1);
    for (state, plan) in [(&state, plan(json!([]))), (&other, REFRESH_ONLY.to_owned())] {
        let reused = world.detect_in(state, &id, plan.as_bytes(), 1 << 20).await;
        assert_eq!(reason(reused).0, "REQUEST_ID_REUSED");
    }
    assert_ne!(
        world.detect(&state, REFRESH_ONLY).await.unwrap().check_id,
        first.check_id
    );
    let metrics = world.metrics().await;
    assert!(
        metrics.contains("board3_drift_checks{drift=\"found\"} 2\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_is_no_plan_is_refused_and_nothing_of_it_is_kept_or_told() {
    let world = World::new().await;
    let state = world.state("state").await;
    for text in ["", "hunter2", "{}", &REFRESH_ONLY[..9_000]] {
        let answer = world.detect(&state, text).await;
        let told = format!("{answer:?}");
        assert_eq!(
            reason(answer),
            ("INVALID_REQUEST".to_owned(), vec!["plan_json".to_owned()])
        );
        assert!(!told.contains("hunter2"), "{told}");
    }
    let latin: &[u8] = b"{\"format_version\": \"\xe9\"}";
    assert_eq!(reason(world.detect(&state, latin).await).1, ["plan_json"]);
    assert_eq!(reason(world.detect("nonsense", REFRESH_ONLY).await).1, ["state_id"]);
    assert_eq!(reason(world.detect("", "").await).1, ["state_id"]);
    let malformed = world.detect_in("nonsense", "nonsense", b"hunter2", 7).await;
    assert_eq!(reason(malformed).1, ["state_id", "request_id"]);
    let mut client = DriftServiceClient::new(world.caller.clone());
    let nothing = client
        .detect_drift(tokio_stream::iter(Vec::<DetectDriftRequest>::new()))
        .await;
    assert_eq!(reason(nothing).0, "INVALID_REQUEST");
    assert_eq!(world.number("select count(*) from drift_logs").await, 0);
    assert!(world.told().await.is_empty());
}

#[tokio::test]
async fn a_plan_has_at_most_64_mib_in_parts_of_one() {
    let world = World::new().await;
    let state = world.state("state").await;
    let padded = |bytes: usize| format!("{}{}", plan(json!([])), " ".repeat(bytes - plan(json!([])).len()));
    assert_eq!(world.detect(&state, padded(64 << 20)).await.unwrap().drift_logs, 0);
    assert_eq!(
        reason(world.detect(&state, padded((64 << 20) + 1)).await).0,
        "MESSAGE_TOO_LARGE"
    );
    let long = world
        .detect_in(&state, "", padded((1 << 20) + 1).as_bytes(), 2 << 20)
        .await;
    assert_eq!(reason(long).1, ["plan_json"]);
}

#[tokio::test]
async fn a_check_may_say_its_states_name_instead() {
    let world = World::new().await;
    let state = world.state("prod/web").await;
    let check = async |caller: &Caller, id: &str, name: &str| {
        let request = DetectDriftRequest {
            state_id: id.to_owned(),
            state_name: name.to_owned(),
            plan_json: plan(json!([])).into_bytes(),
            ..Default::default()
        };
        let mut client = DriftServiceClient::new(caller.clone());
        client.detect_drift(tokio_stream::iter([request])).await
    };
    check(&world.caller, "", "prod/web").await.unwrap();
    let job = |name: &str| {
        let design = Uuid::now_v7().to_string();
        let job = world
            .served
            .office
            .job(world.org, &["terraform_state.drift.write"], &design, name);
        world.served.with(&job)
    };
    check(&job("prod/web"), "", "prod/web").await.unwrap();
    let invalid = |fields: &[&str]| {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        ("INVALID_REQUEST".to_owned(), fields)
    };
    for (caller, id, name, expected) in [
        (
            &world.caller,
            "",
            "prod/db",
            ("RESOURCE_NOT_FOUND".to_owned(), Vec::new()),
        ),
        (
            &job("prod/db"),
            "",
            "prod/web",
            ("CALLER_NOT_ALLOWED".to_owned(), Vec::new()),
        ),
        (&world.caller, state.as_str(), "prod/web", invalid(&["state_name"])),
        (&world.caller, "x", "prod/web", invalid(&["state_id", "state_name"])),
        (&world.caller, "", "//", invalid(&["state_name"])),
    ] {
        assert_eq!(reason(check(caller, id, name).await), expected, "{id} {name}");
    }
    assert_eq!(world.number("select count(*) from drift_checks").await, 2);
}
