//! A wrong configuration ends the start with every problem at once, a line each, and no secret among them.

use std::{net::TcpListener, path::PathBuf, process::Command};

use crate::house::{SLICES, binary, random_key};

/// What is wrong with everything, and the start of the line that says so.
struct Wrong {
    environment: Vec<(&'static str, String)>,
    told: Vec<&'static str>,
    secrets: Vec<String>,
}

fn wrong(slice: &str, port: u16) -> Wrong {
    let (short, password) = (random_key()[..40].to_owned(), random_key()[..20].to_owned());
    let mut wrong = Wrong {
        environment: vec![
            // ENCRYPTION_KEY is missing.
            ("BOARD3_SERVICE_KEY", short.clone()),
            (
                "DATABASE_URL",
                format!("postgresql://board3:{password}@127.0.0.1:1/board3"),
            ),
            (
                "DATABASE_WORKER_URL",
                format!("mysql://board3:{password}@127.0.0.1/board3"),
            ),
            ("REDIS_URL", "redis://127.0.0.1:1".to_owned()),
            ("BOARD3_GRPC_LISTEN", format!("127.0.0.1:{port}")),
            ("BOARD3_HTTP_LISTEN", "127.0.0.1".to_owned()),
            ("BOARD3_PEER_KEYS", "identity=k4.local.x".to_owned()),
            ("BOARD3_ROOT_PUBLIC_KEY", "k4.secret.x".to_owned()),
            ("BOARD3_RATE_SCALE", "many".to_owned()),
            ("BOARD3_FAILPOINT", "relay.after_commit=sometimes".to_owned()),
        ],
        told: vec![
            "ENCRYPTION_KEY is not set",
            "BOARD3_SERVICE_KEY must be 64 hex digits (32 bytes), has 40 characters",
            "DATABASE_URL: PostgreSQL cannot be reached",
            "DATABASE_WORKER_URL must be a URL",
            "BOARD3_GRPC_LISTEN: 127.0.0.1:",
            "BOARD3_HTTP_LISTEN must be an address with a port",
            "BOARD3_PEER_KEYS must be a list",
            "BOARD3_ROOT_PUBLIC_KEY must be a key like k4.public.",
            "BOARD3_RATE_SCALE must be a whole number",
            "BOARD3_FAILPOINT: `relay.after_commit=sometimes`",
        ],
        secrets: vec![short, password],
    };
    if slice == "identity" {
        let pepper = format!("{}z", &random_key()[..63]);
        wrong.environment.push(("PASSWORD_PEPPER", pepper.clone()));
        wrong.environment.push(("BOARD3_ROOT_KEY", "feed".to_owned()));
        wrong.told.extend([
            "PASSWORD_PEPPER must be",
            "API_KEY_PEPPER is not set",
            "BOARD3_MAIL is not set",
            "BOARD3_ROOT_KEY must be 64 hex digits (32 bytes), has 4 characters",
        ]);
        wrong.secrets.push(pepper);
    }
    if slice == "terraform_state" {
        let short = random_key()[..40].to_owned();
        wrong
            .environment
            .push(("TERRAFORM_STATE_ENCRYPTION_KEY", short.clone()));
        wrong
            .environment
            .push(("BOARD3_TERRAFORM_LISTEN", format!("127.0.0.1:{port}")));
        wrong.environment.push(("BOARD3_STATE_LIMIT_BYTES", "0".to_owned()));
        wrong.told.extend([
            "TERRAFORM_STATE_ENCRYPTION_KEY must be 64 hex digits (32 bytes), has 40",
            "BOARD3_TERRAFORM_LISTEN: 127.0.0.1:",
            "BOARD3_STATE_LIMIT_BYTES must be a whole number",
        ]);
        wrong.secrets.push(short);
    }
    if slice == "pipelines" {
        wrong.environment.push(("BOARD3_LEASE_SECONDS", "0".to_owned()));
        wrong
            .environment
            .push(("BOARD3_LEASE_MARGIN_SECONDS", "a few".to_owned()));
        wrong.told.extend([
            "BOARD3_LEASE_SECONDS must be a whole number from 1",
            "BOARD3_LEASE_MARGIN_SECONDS must be a whole number from 1",
        ]);
    }
    wrong
}

/// Starts a program with nothing but this environment; answers its exit code and what it said.
async fn ends(program: PathBuf, environment: Vec<(&'static str, String)>) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.env_clear().envs(environment);
    let ended = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.stdout, b"");
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

/// Checks that each line is told once, that nothing else is, and no secret.
fn tells(who: &str, said: &str, told: &[&str], secrets: &[String]) {
    for line in told {
        let lines = said.lines().filter(|said| said.starts_with(line)).count();
        assert_eq!(lines, 1, "{who} says {lines} times `{line}`:\n{said}");
    }
    assert_eq!(
        said.lines().count(),
        told.len(),
        "{who} says something else too:\n{said}"
    );
    assert!(
        secrets.iter().all(|secret| !said.contains(secret.as_str())),
        "{who} tells a secret:\n{said}"
    );
}

#[tokio::test]
async fn every_problem_of_a_wrong_configuration_is_told_at_once_with_exit_code_64() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for slice in SLICES {
        let Wrong {
            environment,
            told,
            secrets,
        } = wrong(slice, taken.local_addr().unwrap().port());
        let (code, said) = ends(binary(slice), environment).await;
        assert_eq!(code, Some(64), "{slice}: {said}");
        tells(slice, &said, &told, &secrets);
    }
}

#[tokio::test]
async fn terraform_state_does_not_start_without_a_key_for_states() {
    let house_key = random_key();
    let environment = vec![("ENCRYPTION_KEY", house_key.clone())];
    let (code, said) = ends(binary("terraform_state"), environment).await;
    assert_eq!(code, Some(64), "{said}");
    let told = |line: &str| said.lines().filter(|said| *said == line).count();
    assert_eq!(told("TERRAFORM_STATE_ENCRYPTION_KEY is not set"), 1, "{said}");
    assert!(!said.contains(&house_key), "{said}");
}

#[tokio::test]
async fn every_problem_of_a_wrong_runner_is_told_at_once_with_exit_code_64() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = ends(binary("runner"), vec![("BOARD3_HTTP_LISTEN", "127.0.0.1:0".to_owned())]).await;
    assert_eq!((code, said.as_str()), (Some(64), "BOARD3_RUNNER_API_KEY is not set\n"));

    let key = format!("b3_test {}", random_key());
    let environment = vec![
        ("BOARD3_PIPELINES", "nowhere at all".to_owned()),
        ("BOARD3_DESIGNS", "https://127.0.0.1:1".to_owned()),
        ("BOARD3_TERRAFORM_HTTP", "ftp://127.0.0.1".to_owned()),
        ("BOARD3_RUNNER_API_KEY", key.clone()),
        ("BOARD3_RUNNER_NAME", "two words".to_owned()),
        ("BOARD3_RUNNER_SLOTS", "0".to_owned()),
        ("BOARD3_RUNNER_DIR", "/dev/null/runner".to_owned()),
        ("BOARD3_HTTP_LISTEN", address),
    ];
    let (code, said) = ends(binary("runner"), environment).await;
    assert_eq!(code, Some(64), "{said}");
    let told = [
        "BOARD3_PIPELINES must be an address",
        "BOARD3_DESIGNS must be an address",
        "BOARD3_TERRAFORM_HTTP must be an address",
        "BOARD3_RUNNER_API_KEY must be an API key",
        "BOARD3_RUNNER_NAME must be 1 to 100 of",
        "BOARD3_RUNNER_SLOTS must be a whole number from 1",
        "BOARD3_RUNNER_DIR cannot be written to",
        "BOARD3_HTTP_LISTEN: 127.0.0.1:",
    ];
    tells("the runner", &said, &told, &[key]);
}

#[tokio::test]
async fn arguments_that_a_service_does_not_know_are_refused() {
    for program in SLICES.into_iter().chain(["runner"]) {
        let mut command = Command::new(binary(program));
        command.env_clear().arg("serve");
        let ended = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.status.code(), Some(64));
        assert!(
            String::from_utf8_lossy(&ended.stderr).starts_with(&format!("usage: board3-{}", program.replace('_', "-")))
        );
    }
}
