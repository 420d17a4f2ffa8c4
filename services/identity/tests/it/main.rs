//! Identity at its socket: the real server on a real PostgreSQL and Redis, a database per test.
#![allow(clippy::unwrap_used)]

mod api_key;
mod auth;
mod guess;
mod house;
mod mail;
mod member;
mod refresh;
mod reset;
mod rows;
mod session;
mod sign_up;
mod smtp;
mod throttle;
mod timing;
mod without;
