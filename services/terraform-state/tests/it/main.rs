//! The service at its socket.
#![allow(clippy::unwrap_used)]

mod cli;
mod drift;
mod http;
mod index;
mod job;
mod lock;
mod rpc;
mod sealed;
mod start;
mod world;
mod write;
