//! Identity at its socket: the real server on a real PostgreSQL and Redis, a database per test.
#![allow(clippy::unwrap_used)]

mod api_key;
mod auth;
mod grant;
mod guess;
mod house;
mod key_end;
mod mail;
mod member;
mod permission;
mod refresh;
mod reset;
mod role;
mod rotation;
mod rows;
mod service_account;
mod session;
mod sign_up;
mod smtp;
mod signing_key;
mod throttle;
mod timing;
mod without;
