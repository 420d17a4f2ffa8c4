//! Identity at its socket: the real server on a real PostgreSQL and Redis, a database per test.
#![allow(clippy::unwrap_used)]

mod account;
mod api_key;
mod auth;
mod change_password;
mod domain;
mod grant;
mod guess;
mod house;
mod introspect;
mod invitation;
mod key_end;
mod login;
mod mail;
mod member;
mod organization;
mod ownership;
mod permission;
mod platform;
mod refresh;
mod reset;
mod role;
mod rotation;
mod rows;
mod service_account;
mod session;
mod sessions;
mod sign_up;
mod signing_key;
mod smtp;
mod suspension;
mod throttle;
mod timing;
mod totp;
mod users;
mod without;
