//! The RPCs, one method each: who, is it sane, one transaction, answer.

pub(crate) mod drift;
