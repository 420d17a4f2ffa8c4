//! The private servers and databases themselves: they start, they are separate, and nothing of them stays.
#![allow(clippy::unwrap_used)]

mod databases;
mod servers;
