//! Events between the slices: written with the change, put in order by one relay, announced over Redis, and
//! fetched from the producer's log whenever an announcement was missed.
//!
//! Pub/sub carries speed; positions carry truth: visible effects happen exactly once.

pub mod consumer;
