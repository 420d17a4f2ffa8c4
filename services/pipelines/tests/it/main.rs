//! The pipelines service at its socket, on a PostgreSQL and a Redis of its own.
#![allow(clippy::unwrap_used)]

mod check;
mod drift;
mod execution;
mod index;
mod job;
mod lease;
mod lease_apply;
mod lease_end;
mod lease_fence;
mod log;
mod page;
mod pipeline;
mod runner;
mod runner_world;
mod tenancy;
mod world;
