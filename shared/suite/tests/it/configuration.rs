//! A wrong configuration ends the start with every problem at once, a line each, and no secret among them.

use std::{net::TcpListener, process::Command};

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
            "BOARD3_RATE_SCALE must be a whole number",
            "BOARD3_FAILPOINT: `relay.after_commit=sometimes`",
        ],
        secrets: vec![short, password],
    };
    if slice == "identity" {
        let pepper = format!("{}z", &random_key()[..63]);
        wrong.environment.push(("PASSWORD_PEPPER", pepper.clone()));
        wrong.environment.push(("BOARD3_SIGNING_KEY", "feed".to_owned()));
        wrong.told.extend([
            "PASSWORD_PEPPER must be",
            "API_KEY_PEPPER is not set",
            "BOARD3_SIGNING_KEY must be 64 hex digits (32 bytes), has 4 characters",
        ]);
        wrong.secrets.push(pepper);
    }
    wrong
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
        let mut command = Command::new(binary(slice));
        command.env_clear().envs(environment);
        let ended = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(64), "{slice}: {said}");
        assert_eq!(ended.stdout, b"");
        for line in &told {
            let lines = said.lines().filter(|said| said.starts_with(line)).count();
            assert_eq!(lines, 1, "{slice} says {lines} times `{line}`:\n{said}");
        }
        assert_eq!(
            said.lines().count(),
            told.len(),
            "{slice} says something else too:\n{said}"
        );
        assert!(
            secrets.iter().all(|secret| !said.contains(secret.as_str())),
            "{slice} tells a secret:\n{said}"
        );
    }
}

#[tokio::test]
async fn arguments_that_a_service_does_not_know_are_refused() {
    for slice in SLICES {
        let mut command = Command::new(binary(slice));
        command.env_clear().arg("serve");
        let ended = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.status.code(), Some(64));
        assert!(String::from_utf8_lossy(&ended.stderr).starts_with(&format!("usage: board3-{slice}")));
    }
}
