//! The agent that runs pipeline stages: a client of pipelines, designs and terraform_state, and the owner of a Terraform process.
//!
//! It leases a stage, works in a private directory with the lease's job credential, and reports what Terraform said.
//! It promises never to work on where it may no longer: a lease that is not renewed in time interrupts Terraform, once,
//! and so does the end of the runner itself, however it ends. Who stops it signals the runner alone (under systemd
//! `KillMode=mixed`): a signal that reaches Terraform too is a second interrupt, and Terraform then drops its state.

mod client;
mod config;
mod diagnosis;
mod directory;
mod drift;
mod export;
mod health;
mod job;
mod lease;
mod log;
mod mask;
mod outcome;
mod report;
mod runner;
mod supervise;
mod terraform;

use std::process::ExitCode;

pub use config::Config;
use kit::config::Env;
pub use runner::run;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const WRONG_CONFIGURATION: u8 = 64;

/// The whole of the program: works until SIGTERM or Ctrl-C; with `supervise` it stands beside one Terraform.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        None => {}
        Some(verb) if verb == "supervise" => return supervise::main(arguments),
        Some(_) => {
            eprintln!("usage: board3-runner");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    }
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(serve()),
        Err(error) => {
            eprintln!("no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> ExitCode {
    let stop = CancellationToken::new();
    tokio::spawn(cancel_at_signal(stop.clone()));
    let config = match Config::read(Env::process()) {
        Ok(config) => config,
        Err(problems) => {
            eprint!("{problems}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    kit::telemetry::start_logs(&config.log);
    kit::telemetry::log_panics();
    run(config, stop).await;
    ExitCode::SUCCESS
}

async fn cancel_at_signal(stop: CancellationToken) {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be set");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT can be set");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    // Further signals change nothing: Terraform is interrupted once.
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
