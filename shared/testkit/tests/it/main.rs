//! The private servers and databases themselves: they start, they are separate, and nothing of them stays.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod databases;
mod servers;
