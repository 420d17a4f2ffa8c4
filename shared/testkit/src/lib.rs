//! What tests stand on: a private PostgreSQL and Redis per process, and a database per test.
//!
//! Nothing needs to be set up beforehand but the two programs, and nothing stays behind, not even after SIGKILL.

pub mod database;
pub mod faults;
pub mod guard;
pub mod mail;
pub mod office;
pub mod render;
pub mod serve;
pub mod servers;

pub use database::{Database, Role, database};
pub use serve::{Caller, Served, serve, serve_with};
