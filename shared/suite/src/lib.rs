//! The whole suite on one machine: keys, servers, databases and the services as processes of their own.
//!
//! The only crate that knows every service. Whatever it starts ends with it, however it ends.

pub mod backing;
pub mod bench;
pub mod control;
pub mod demo;
pub mod keys;
pub mod layout;
pub mod mail;
pub mod processes;
pub mod seed;
pub mod totp;
pub mod up;
pub mod variables;
pub mod verbs;

use kit::service::Service;

/// The services, in the order in which they are started.
pub const SERVICES: [Service; 5] = [
    identity::SERVICE,
    designs::SERVICE,
    terraform_state::SERVICE,
    pipelines::SERVICE,
    audit::SERVICE,
];

/// Random bytes as lower-case hex.
pub(crate) fn random_hex(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    Ok(hex::encode(random))
}
