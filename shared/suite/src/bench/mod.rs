//! `board3 bench`: figures that are promised, measured in one run on this machine.
//!
//! What can be is a ratio of two figures of the same run, because machines differ. A figure that is missed is printed as missed.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

mod bare;
mod identity;
mod load;
mod process;
mod state;
mod state_faults;
mod states;
mod table;
mod verification;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};

/// What there is to measure, and in a few words what that is.
const BENCHES: [(&str, &str); 3] = [
    (
        "identity",
        "verification, exchange of keys, GetMe, a flood of logins, memory, timing of logins",
    ),
    (
        "state",
        "plans and applies against raw SQL, states of 10 and 100 MB, differences, histories, keys, lists",
    ),
    (
        "state-faults",
        "1,000 runs of terraform through a network that loses, spoils and cuts",
    ),
];

/// How many samples each state of an account is given where nothing else is asked for.
const SAMPLES: usize = 300;

/// Measures one thing, or lists what there is.
///
/// # Errors
/// When something cannot be measured; a figure that is missed is no error.
pub async fn command(name: Option<&str>, samples: Option<usize>) -> Result<ExitCode> {
    if name.is_some_and(|name| BENCHES.iter().any(|(known, _)| *known == name)) {
        own_servers()?;
    }
    match name {
        None => {
            for (name, what) in BENCHES {
                println!("{name:<12} {what}");
            }
        }
        Some("identity") => identity::measure(samples.unwrap_or(SAMPLES)).await?,
        Some("state") => state::measure(samples.unwrap_or(state::SAMPLES)).await?,
        Some("state-faults") => state_faults::measure(samples.unwrap_or(state_faults::CYCLES)).await?,
        // How the bench starts the server that it compares with; nobody types it.
        Some(bare::VERB) => bare::serve().await?,
        Some(other) => bail!("`{other}` is nothing that is measured; `board3 bench` lists what is"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Figures are of private servers; those of an unoptimised build are none.
fn own_servers() -> Result<()> {
    for server in ["DATABASE_ADMIN_URL", "REDIS_URL"] {
        ensure!(
            std::env::var_os(server).is_none(),
            "{server} is set; the bench needs servers of its own"
        );
    }
    if cfg!(debug_assertions) {
        println!("this is an unoptimised build: the figures say nothing\n");
    }
    Ok(())
}
