//! What the service needs to start.

use std::process::{Command, Stdio};

fn started_with(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_board3-terraform-state"))
        .env_clear()
        .envs(variables.iter().copied())
        .env("BOARD3_TERRAFORM_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), told)
}

#[test]
fn without_its_key_it_does_not_start_and_says_so() {
    let (code, told) = started_with(&[]);
    assert_eq!(code, Some(64), "{told}");
    assert!(told.contains("TERRAFORM_STATE_ENCRYPTION_KEY is not set"), "{told}");
    let wrong = [
        ("TERRAFORM_STATE_ENCRYPTION_KEY", "cafe"),
        ("BOARD3_STATE_LIMIT_BYTES", "0"),
    ];
    let (code, told) = started_with(&wrong);
    assert_eq!(code, Some(64), "{told}");
    assert!(
        told.contains("TERRAFORM_STATE_ENCRYPTION_KEY must be 64 hex digits (32 bytes), has 4"),
        "{told}"
    );
    assert!(
        told.contains("BOARD3_STATE_LIMIT_BYTES must be a whole number"),
        "{told}"
    );
    assert!(!told.contains("cafe"), "{told}");
    let (key, retired) = ("06".repeat(32), "x".to_owned());
    let wrong = [
        ("TERRAFORM_STATE_ENCRYPTION_KEY", key.as_str()),
        ("TERRAFORM_STATE_ENCRYPTION_KEYS_RETIRED", retired.as_str()),
    ];
    let (code, told) = started_with(&wrong);
    assert_eq!(code, Some(64), "{told}");
    assert!(
        told.contains("TERRAFORM_STATE_ENCRYPTION_KEY retired key 1: must be 64 hex digits"),
        "{told}"
    );
}
