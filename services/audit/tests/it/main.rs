//! The audit service at its socket, fed by a producer with a real outbox, relay and event log.
#![allow(clippy::unwrap_used)]

mod denials;
mod listing;
mod notification;
mod trail;
mod world;
