//! The designs service at its socket, on a PostgreSQL and a Redis of its own.
#![allow(clippy::unwrap_used)]

mod cache;
mod canvas;
mod design;
mod drift;
mod export;
mod index;
mod invalid;
mod page;
mod projection;
mod repeat;
mod resource;
mod template;
mod tenancy;
mod version;
mod world;
