//! The queries, one function each, named with SQL's verbs.
//!
//! Row-level security limits every one to the transaction's organization, and every one says the organization itself.
//! Whoever changes a stage or an attempt has locked its execution before.

pub(crate) mod design;
pub(crate) mod execution;
pub(crate) mod job;
pub(crate) mod lease;
pub(crate) mod log;
pub(crate) mod pipeline;
pub(crate) mod runner;
pub(crate) mod stage;
pub(crate) mod terms;
