//! The HTTP backend's doors and statuses: what Terraform reads from them, and nothing from the rest.

use serde_json::json;

use crate::world::{EVERYTHING, Http, WORK, World, basic, blank, id, lock_info, noise, state};

#[tokio::test]
async fn what_was_written_comes_back_byte_by_byte() {
    let world = World::new().await;
    let http = world.http(&WORK);
    assert_eq!(http.get("prod").await.status, 404);
    // A state that was only locked has no version either.
    let lock = id();
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    assert_eq!(http.get("prod").await.status, 404);
    let sent = state(1, "l", r#"\u00e9 and é, 12345678901234567890123"#);
    assert_eq!(http.post("prod", &lock, &sent).await.status, 200);
    assert_eq!(http.unlock("prod", &lock).await.status, 200);
    let read = http.get("prod").await;
    assert_eq!((read.status, read.body), (200, sent.into_bytes()));
    let actions: Vec<_> = world.audited().await.into_iter().map(|(action, _)| action).collect();
    let expected = ["LockState", "UploadState", "UnlockState", "DownloadState"];
    assert_eq!(actions, expected.map(|verb| format!("terraform_state.{verb}")));
}

#[tokio::test]
async fn names_with_slashes_are_one_name_however_they_are_spelled() {
    let world = World::new().await;
    let http = world.http(&WORK);
    assert_eq!(http.post("team/net/prod", "", &state(1, "l", "x")).await.status, 200);
    assert_eq!(http.get("team%2Fnet%2fprod").await.status, 200);
    assert_eq!(http.get("team/net").await.status, 404);
    for bad in ["", "a//b", "a/", "a/../b", "..", "a%", "a%20b", "a%00", "-a"] {
        for method in ["GET", "POST", "LOCK", "UNLOCK"] {
            let answer = http.ask(method, &format!("/v1/states/{bad}"), b"{}").await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (400, "INVALID_REQUEST"),
                "{method} {bad}"
            );
        }
    }
}

#[tokio::test]
async fn another_verb_or_address_is_405_and_never_404() {
    let world = World::new().await;
    let http = world.http(&EVERYTHING);
    assert_eq!(http.post("prod", "", &state(1, "l", "x")).await.status, 200);
    for (method, path) in [
        ("HEAD", "/v1/states/prod"),
        ("DELETE", "/v1/states/prod"),
        ("PATCH", "/v1/states/prod"),
        ("GET", "/v1/locks/prod"),
        ("GET", "/"),
        ("GET", "/v1/state/prod"),
        ("GET", "/v2/states/prod"),
    ] {
        let answer = http.ask(method, path, b"").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        let allowed = match path.starts_with("/v1/locks/") {
            true => "POST, PUT, DELETE, LOCK, UNLOCK",
            false => "GET, POST, PUT, LOCK, UNLOCK",
        };
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
    assert_eq!(http.get("prod").await.status, 200);
}

#[tokio::test]
async fn a_caller_who_is_not_admitted_is_told_so_and_never_404() {
    let world = World::new().await;
    let nobody = |authorization: &str| Http {
        door: world.door(),
        authorization: authorization.to_owned(),
    };
    for authorization in [
        "",
        &basic("wrong"),
        &basic("b3_test_0123456789abcdef_nonsense"),
        &basic("b3j_nothing"),
        "Basic !!!",
        "Basic",
        "Digest x",
    ] {
        for method in ["GET", "POST", "LOCK", "UNLOCK"] {
            let answer = nobody(authorization).ask(method, "/v1/states/prod", b"").await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (401, "CREDENTIAL_INVALID"),
                "{authorization}"
            );
            assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "));
        }
    }
    // A credential that opens nothing here; a state that is there and one that is not look the same.
    assert_eq!(
        world.http(&WORK).post("prod", "", &state(1, "l", "x")).await.status,
        200
    );
    let stranger = world.http(&["terraform_state.state.read"]);
    for name in ["prod", "nothing"] {
        for method in ["GET", "POST", "LOCK", "UNLOCK"] {
            let answer = stranger.ask(method, &format!("/v1/states/{name}"), b"{}").await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (403, "PERMISSION_MISSING"),
                "{method} {name}"
            );
        }
    }
    // OpenTofu can send a bearer token.
    let token = world.token(world.org, &WORK);
    assert_eq!(nobody(&format!("Bearer {token}")).get("prod").await.status, 200);
    let session_over = {
        let session = uuid::Uuid::now_v7();
        let principal = kit::ids::Principal::User(kit::ids::UserId::new());
        world.served.office.grant(world.org, principal, &WORK);
        let token = world.served.office.token(world.org, principal, session, 1);
        world.served.office.revoke_session(world.org, session);
        world.http_as(&token)
    };
    let revoked = async {
        while session_over.get("prod").await.status != 401 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), revoked)
        .await
        .unwrap();
    assert_eq!(session_over.get("prod").await.reason(), "SESSION_REVOKED");
}

#[tokio::test]
async fn two_organizations_have_states_of_one_name() {
    let world = World::new().await;
    let (one, other) = (world.http(&WORK), {
        let token = world.token(kit::ids::OrgId::new(), &WORK);
        world.http_as(&token)
    });
    let lock = id();
    assert_eq!(one.lock("prod", &lock).await.status, 200);
    assert_eq!(one.post("prod", &lock, &state(1, "l", "one")).await.status, 200);
    assert_eq!(other.get("prod").await.status, 404);
    // Not locked there, no lock of theirs, and a serial that starts anew.
    assert_eq!(other.unlock("prod", &lock).await.status, 409);
    assert_eq!(other.lock("prod", &lock).await.status, 200);
    assert_eq!(other.post("prod", &lock, &state(1, "m", "other")).await.status, 200);
    assert_eq!(other.unlock("prod", &lock).await.status, 200);
    assert_eq!(one.get("prod").await.body, state(1, "l", "one").into_bytes());
    assert_eq!(other.get("prod").await.body, state(1, "m", "other").into_bytes());
    assert_eq!(one.lock("prod", &id()).await.status, 423);
}

#[tokio::test]
async fn the_digest_that_is_told_must_be_the_bodys() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use md5::{Digest, Md5};
    let world = World::new().await;
    let http = world.http(&WORK);
    let sent = state(1, "l", "x");
    let digest = STANDARD.encode(Md5::digest(&sent));
    let other = STANDARD.encode(Md5::digest("other"));
    let post = async |digest: &str, body: &str| {
        let headers = [("content-md5", digest), ("content-type", "application/json")];
        http.ask_with("POST", "/v1/states/prod", &headers, body.as_bytes())
            .await
            .status
    };
    for (told, body, status) in [
        (other.as_str(), sent.as_str(), 400),
        ("nonsense", &sent, 400),
        (&digest, &sent[..sent.len() - 1], 400),
        (&digest, &sent, 200),
    ] {
        assert_eq!(post(told, body).await, status, "{told}");
    }
    assert_eq!(world.versions("prod").await, 1);
    let lock = lock_info(&id(), "x");
    let headers = [("content-md5", other.as_str())];
    let answer = http
        .ask_with("LOCK", "/v1/states/prod", &headers, lock.as_bytes())
        .await;
    assert_eq!(answer.status, 400);
    assert_eq!(world.number("select count(*) from state_locks").await, 0);
}

#[tokio::test]
async fn what_is_no_state_is_400_and_what_is_too_large_413() {
    let world = World::with(&[("BOARD3_STATE_LIMIT_BYTES", "3000000")]).await;
    let http = world.http(&WORK);
    for body in [
        "",
        "null",
        "{}",
        "nonsense",
        r#"{"version":3,"serial":1,"lineage":"l"}"#,
        "{\"version\":4,",
    ] {
        let answer = http.post("prod", "", body).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (400, "INVALID_REQUEST"),
            "{body}"
        );
    }
    let large = |size: usize| state(1, "l", &"x".repeat(size - state(1, "l", "").len()));
    let answer = http.post("prod", "", &large(3_000_001)).await;
    assert_eq!((answer.status, answer.reason().as_str()), (413, "MESSAGE_TOO_LARGE"));
    assert_eq!(world.number("select count(*) from states").await, 0);
    assert_eq!(http.post("prod", "", &large(3_000_000)).await.status, 200);
    assert_eq!(http.get("prod").await.body, large(3_000_000).into_bytes());
    let answer = http.ask("LOCK", "/v1/states/prod", &vec![b' '; 65_537]).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_written() {
    use tokio::io::AsyncWriteExt;
    let world = World::new().await;
    let http = world.http(&WORK);
    let sent = state(1, "l", "x");
    let mut stream = tokio::net::TcpStream::connect(http.door).await.unwrap();
    let head = format!(
        "POST /v1/states/prod HTTP/1.1\r\nhost: board3\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n",
        http.authorization,
        sent.len() + 10
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    drop(stream);
    // The next call on the state comes after it.
    assert_eq!(http.get("prod").await.status, 404);
    assert_eq!(world.number("select count(*) from state_versions").await, 0);
}

#[tokio::test]
async fn a_large_state_is_streamed_whole() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let sent = state(1, "l", &noise(12_000_000, "large"));
    assert_eq!(http.post("large", "", &sent).await.status, 200);
    let read = http.get("large").await;
    assert_eq!((read.status, read.body == sent.as_bytes()), (200, true));
    assert_eq!(
        world
            .number("select max(octet_length(sealed))::bigint from state_chunks")
            .await,
        1_048_576 - 4096 + 40
    );
    // Base64 is four for three.
    assert_eq!(world.number("select count(*) from state_chunks").await, 9);
}

#[tokio::test]
async fn an_answer_that_cannot_be_finished_breaks_off_and_does_not_look_whole() {
    use kit::failpoint::{Action, arm};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new().await;
    let (mut grpc, http) = world.both(&WORK);
    let sent = state(1, "l", &noise(4_000_000, "large"));
    assert_eq!(http.post("large", "", &sent).await.status, 200);
    let state_id = grpc.named("large").await.id;
    let broken = arm(format!("terraform_state.part/{state_id}"), Action::Error).only(2);
    let mut stream = tokio::net::TcpStream::connect(http.door).await.unwrap();
    let head = format!(
        "GET /v1/states/large HTTP/1.1\r\nhost: board3\r\nauthorization: {}\r\n\r\n",
        http.authorization
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let told = format!("content-length: {}\r\n", sent.len());
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert!(answer.windows(told.len()).any(|window| window == told.as_bytes()));
    assert!(answer.len() < sent.len());
    drop(broken);
    assert!(http.get("large").await.body == sent.as_bytes());
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let world = World::with(&[("BOARD3_RATE_SCALE", "1")]).await;
    let mut refused = None;
    for attempt in 0..200 {
        // Each must be asked about.
        let credential = format!("b3j_{attempt:043}");
        let answer = world.http_as(&credential).get("prod").await;
        if answer.status != 401 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("nobody may guess for ever");
    assert_eq!((refused.status, refused.reason().as_str()), (429, "RATE_LIMITED"));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn locks_have_verbs_of_their_own_for_proxies_that_drop_others() {
    let world = World::new().await;
    let http = world.http(&WORK);
    for (take, give) in [("POST", "DELETE"), ("PUT", "DELETE"), ("LOCK", "UNLOCK")] {
        let info = lock_info(&id(), "OperationTypeApply");
        assert_eq!(http.ask(take, "/v1/locks/team/prod", info.as_bytes()).await.status, 200);
        assert_eq!(http.lock("team/prod", &id()).await.status, 423);
        assert_eq!(http.ask(give, "/v1/locks/team/prod", info.as_bytes()).await.status, 200);
    }
    assert_eq!(http.lock("team/prod", &id()).await.status, 200);
    // PUT is the usual `update_method`.
    let put = http.ask("PUT", "/v1/states/other", state(1, "l", "x").as_bytes()).await;
    assert_eq!(put.status, 200);
}

#[tokio::test]
async fn the_same_is_spoken_over_http_2() {
    use http_body_util::BodyExt;
    let world = World::new().await;
    let http = world.http(&WORK);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", http.door)).unwrap();
    let mut channel = channel.connect().await.unwrap();
    let mut ask = async |method: &str, path: &str, body: String| {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", http.door))
            .header("authorization", &http.authorization)
            .body(tonic::body::Body::new(http_body_util::Full::from(body)))
            .unwrap();
        std::future::poll_fn(|context| tonic::codegen::Service::poll_ready(&mut channel, context))
            .await
            .unwrap();
        let answer = tonic::codegen::Service::call(&mut channel, request).await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
    };
    let lock = id();
    let info = lock_info(&lock, "OperationTypeApply");
    assert_eq!(ask("LOCK", "/v1/states/prod", info.clone()).await.0, 200);
    assert_eq!(ask("LOCK", "/v1/states/prod", lock_info(&id(), "x")).await.0, 423);
    let sent = state(1, "l", &"x".repeat(3_000_000));
    assert_eq!(
        ask("POST", &format!("/v1/states/prod?ID={lock}"), sent.clone()).await.0,
        200
    );
    let (status, body) = ask("GET", "/v1/states/prod", String::new()).await;
    assert_eq!((status, body == sent.as_bytes()), (200, true));
    assert_eq!(ask("UNLOCK", "/v1/states/prod", info).await.0, 200);
}

#[tokio::test]
async fn failures_are_short_json_without_secrets() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let told = |answer: &crate::world::Answer, reason: &str, message: &str| {
        let request_id = answer.header("x-request-id").unwrap();
        assert_eq!(
            answer.json(),
            json!({"reason": reason, "message": message, "request_id": request_id})
        );
    };
    let answer = http.post("prod", "", r#"{"version":4,"serial":"canary-secret"}"#).await;
    let message = "the request is invalid: content is no Terraform state (line 1, column 37)";
    told(&answer, "INVALID_REQUEST", message);
    let answer = http.post("prod", "", &state(5, "l", "canary-secret")).await;
    assert_eq!(answer.status, 200);
    let answer = http.post("prod", "", &blank(4, "l")).await;
    told(
        &answer,
        "SERIAL_CONFLICT",
        "the serial does not grow: another write came first",
    );
}
