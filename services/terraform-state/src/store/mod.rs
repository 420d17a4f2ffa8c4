//! The service's statements, one function each; every one runs in the caller's transaction and organization.

pub(crate) mod drift;
