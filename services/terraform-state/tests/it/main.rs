//! The service at its socket.
#![allow(clippy::unwrap_used)]

mod certificate;
mod cli;
mod compacted;
mod drift;
mod fake;
mod faults;
mod history;
mod history_cli;
mod http;
mod index;
mod job;
mod kept;
mod key;
mod killed;
mod listed;
mod lock;
mod orphan;
mod race;
mod rpc;
mod schedule;
mod sealed;
mod start;
mod states;
mod tls;
mod world;
mod write;
