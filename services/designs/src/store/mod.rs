//! The queries, one function each, named with SQL's verbs.
//!
//! Row-level security limits every one to the transaction's organization, and every one says the organization itself.

pub(crate) mod design;
pub(crate) mod drift;
pub(crate) mod resource;
pub(crate) mod template;
pub(crate) mod user_name;
pub(crate) mod version;
