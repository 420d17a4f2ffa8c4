//! The configuration to work on: fetched from designs with the job's credential, and checked before it is written.

use std::time::Duration;

use api::{designs::v1::ExportTerraformRequest, pipelines::v1::Lease};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Backoff, Client, Credential, Refusal, Trace};

/// The name of the file, whatever is exported.
pub(crate) const FILE: &str = "main.tf.json";
/// How long designs may be out of reach.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one try may take.
const ONE: Duration = Duration::from_secs(30);
const MOST: usize = 64 * 1024 * 1024;

/// Fetches the configuration of a lease.
///
/// # Errors
/// Why there is none, in words for people.
pub(crate) async fn fetch(client: &Client, trace: Trace, lease: &Lease) -> Result<Vec<u8>, String> {
    let credential = Credential::new(&lease.job_credential).ok_or("the job's credential is malformed")?;
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::up_to(Duration::from_secs(5));
    loop {
        let once = timeout(ONE, fetch_once(client, trace, &credential, lease)).await;
        match once.unwrap_or(Err(Failure::Late)) {
            Ok(file) => return Ok(file),
            Err(Failure::Damaged) => return Err("the configuration is not what designs said it is".to_owned()),
            Err(Failure::TooLarge) => return Err(format!("the configuration has more than {MOST} bytes")),
            Err(Failure::Refused(refusal)) if refusal.definite() || refusal.unwelcome() => {
                return Err(refusal.told());
            }
            Err(Failure::Refused(refusal)) if Instant::now() < deadline => sleep(backoff.after(&refusal)).await,
            Err(Failure::Late) if Instant::now() < deadline => sleep(backoff.delay()).await,
            Err(Failure::Refused(refusal)) => return Err(refusal.told()),
            Err(Failure::Late) => return Err("designs did not answer in time".to_owned()),
        }
    }
}

enum Failure {
    Refused(Refusal),
    Damaged,
    TooLarge,
    Late,
}

async fn fetch_once(client: &Client, trace: Trace, credential: &Credential, lease: &Lease) -> Result<Vec<u8>, Failure> {
    let request = ExportTerraformRequest {
        design_id: lease.design_id.clone(),
        version: lease.design_version,
        state_name: lease.state_name.clone(),
    };
    let answer = client.export(trace, credential, request).await;
    let mut parts = answer.map_err(Failure::Refused)?;
    let (mut sha256, mut file) = (String::new(), Vec::new());
    while let Some(part) = parts
        .message()
        .await
        .map_err(|status| Failure::Refused(status.into()))?
    {
        if sha256.is_empty() {
            sha256 = part.sha256;
        }
        file.extend_from_slice(&part.content);
        if file.len() > MOST {
            return Err(Failure::TooLarge);
        }
    }
    if hex::encode(Sha256::digest(&file)) == sha256 {
        Ok(file)
    } else {
        Err(Failure::Damaged)
    }
}

/// What `terraform init` is told so that it finds its states at another address than the exported one.
pub(crate) fn backend_at(file: &[u8], address: &str) -> Vec<String> {
    let exported: serde_json::Value = serde_json::from_slice(file).unwrap_or_default();
    let backend = &exported["terraform"]["backend"]["http"];
    ["address", "lock_address", "unlock_address"]
        .into_iter()
        .filter_map(|name| {
            let (_, rest) = backend[name].as_str()?.split_once("://")?;
            let path = rest.find('/').map_or("", |start| &rest[start..]);
            Some(format!(
                "-backend-config={name}={}{path}",
                address.trim_end_matches('/')
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_address_replaces_the_exported_one_and_keeps_the_path() {
        let file = br#"{"terraform":{"backend":{"http":{"address":"http://127.0.0.1:8080/states/a?x=1","lock_address":"http://h/states/a"}}}}"#;
        assert_eq!(
            backend_at(file, "https://states.example.org/"),
            [
                "-backend-config=address=https://states.example.org/states/a?x=1",
                "-backend-config=lock_address=https://states.example.org/states/a",
            ]
        );
        assert!(backend_at(b"{}", "https://states.example.org").is_empty());
    }
}
