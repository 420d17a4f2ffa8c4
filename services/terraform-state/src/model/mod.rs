//! What the service speaks of: ids, validated values and rows.
//!
//! A value that exists is valid; `wire` is where values come from, and it reports everything that is wrong at once.

pub mod drift;
