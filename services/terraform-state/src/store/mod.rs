//! The service's statements, one function each; every one runs in the caller's transaction and organization.

pub(crate) mod chunk;
pub(crate) mod design;
pub(crate) mod drift;
pub(crate) mod lock;
pub(crate) mod state;
pub(crate) mod version;
