//! Who calls, and whether they may: tokens, permissions, revocation, and the one gate that makes scopes.

pub mod authority;
pub mod gate;
pub(crate) mod jobs;
pub(crate) mod keys;
pub mod permission;
mod remote;
pub(crate) mod revocation;
pub mod scope;
pub mod token;

pub use keys::REFRESH_EVERY as KEYS_REFRESHED_EVERY;
pub use permission::PermissionSet;
pub(crate) use remote::RemoteAuthority;
pub use scope::{
    Begins, Call, OrgScope, PeerScope, PublicScope, Scope, Tenancy, UserScope, admitted, admitted_stream, repeats,
};
