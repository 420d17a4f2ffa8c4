//! What every Board3 service does and none is about.
//!
//! A service is its protos, its tables, its handlers, and [`service::Service`]: everything between the socket and a
//! handler, and between a handler and PostgreSQL, Redis and the other services, is here.
//! Nothing here knows a noun of the product.

extern crate self as kit;

pub mod auth;
pub mod cache;
pub mod config;
pub mod crypto;
pub mod db;
pub mod error;
pub mod events;
pub mod failpoint;
pub mod ids;
pub mod lanes;
pub mod mask;
pub mod page;
pub mod rate;
pub mod redis;
pub mod rpc;
pub mod service;
pub mod telemetry;
pub mod views;

pub use error::{Error, Reason, Result, Violations};
pub use service::main;
