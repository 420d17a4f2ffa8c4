//! The runner against stand-ins for pipelines and designs, with the real Terraform where there is one.
#![allow(clippy::unwrap_used)]

mod lease;
mod process;
mod stand;
mod terraform;
mod world;
