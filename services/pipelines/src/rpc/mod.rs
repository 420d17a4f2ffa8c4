//! One method for each RPC, each in the same order: who, is it sane, one transaction, answer.

pub(crate) mod job;
pub(crate) mod log;
pub(crate) mod pipeline;
pub(crate) mod runner;
