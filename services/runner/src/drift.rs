//! What a check for drift has seen, from Terraform's plan to terraform_state: it stays out of logs and files that are kept.

use std::{
    fs::File,
    io::{self, Read},
    time::Duration,
};

use api::{
    pipelines::v1::Lease,
    terraform_state::v1::{DetectDriftRequest, DetectDriftResponse},
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::client::{Backoff, Client, Credential, Trace};

/// The most bytes of a plan that terraform_state takes.
const MOST: usize = 64 << 20;
/// The bytes of one message.
const PART: usize = 1 << 20;
/// How long terraform_state may be out of reach.
const PATIENCE: Duration = Duration::from_secs(60);

/// The plan in what `terraform show -json` has written: its last line that is an object.
pub(crate) fn plan(written: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    written.take(2 * MOST as u64).read_to_end(&mut bytes)?;
    let plan = bytes.split(|byte| *byte == b'\n').rfind(|line| line.starts_with(b"{"));
    let plan = plan.map(<[u8]>::to_vec);
    plan.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "terraform shows no plan"))
}

/// Has a plan checked for drift in the name of a lease; the same plan sent again is the same check.
///
/// # Errors
/// Why it is not, in words for people.
pub(crate) async fn report(
    client: &Client,
    trace: Trace,
    lease: &Lease,
    plan: &[u8],
) -> Result<DetectDriftResponse, String> {
    if plan.len() > MOST {
        return Err(format!("the plan has {} bytes as JSON, more than {MOST}", plan.len()));
    }
    let credential = Credential::new(&lease.job_credential).ok_or("the job's credential is malformed")?;
    let request_id = Uuid::now_v7().to_string();
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::up_to(Duration::from_secs(5));
    loop {
        let parts = plan.chunks(PART).enumerate().map(|(at, part)| DetectDriftRequest {
            // Only the first message's are read.
            state_name: if at == 0 {
                lease.state_name.clone()
            } else {
                String::new()
            },
            request_id: if at == 0 { request_id.clone() } else { String::new() },
            plan_json: part.to_vec(),
            ..DetectDriftRequest::default()
        });
        match client.detect_drift(trace, &credential, parts.collect()).await {
            Ok(answer) => return Ok(answer),
            Err(refusal) if refusal.definite() || refusal.unwelcome() || Instant::now() >= deadline => {
                return Err(refusal.told());
            }
            Err(refusal) => sleep(backoff.after(&refusal)).await,
        }
    }
}

/// What a check has found, in a line.
pub(crate) fn told(found: &DetectDriftResponse) -> String {
    format!(
        "{} resources have drifted; {} drift logs, {} of them new; check {}",
        found.drifted_resources, found.drift_logs, found.new_drift_logs, found.check_id
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn the_plan_is_found_among_warnings() {
        let shown = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            plan(&mut file).map(|plan| String::from_utf8(plan).unwrap())
        };
        assert_eq!(shown("{\"a\":1}\n").unwrap(), "{\"a\":1}");
        assert_eq!(shown("Warning: x\n{\"a\":1}\n\n").unwrap(), "{\"a\":1}");
        assert!(shown("Error: no plan\n").is_err());
    }
}
