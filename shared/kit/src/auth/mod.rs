//! Who calls, and whether they may: tokens, permissions, revocation, and the one gate that makes scopes.

pub mod authority;
pub mod permission;
pub mod scope;

pub use permission::PermissionSet;
pub use scope::{Begins, Call, OrgScope, PeerScope, PublicScope, Scope, Tenancy, UserScope, admitted};
