//! The service at its socket.
#![allow(clippy::unwrap_used)]

mod certificate;
mod cli;
mod compacted;
mod drift;
mod fake;
mod faults;
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
mod sealed;
mod start;
mod tls;
mod world;
mod write;
