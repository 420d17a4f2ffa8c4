//! The suite as a whole: its five services and the runner as separate processes, and what must hold across them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod canary;
mod cancelled;
mod command;
mod configuration;
mod demo;
mod events;
mod examples;
mod footprint;
mod house;
mod k8s;
mod limits;
mod readme;
mod repository;
mod revocation;
mod rights;
mod rls;
mod runner;
mod story;
mod sweep;
