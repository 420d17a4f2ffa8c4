//! The policy of every RPC, as a static table made from the protos.

/// One RPC and what its proto declares about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// `/board3.designs.v1.DesignService/CreateDesign`.
    pub path: &'static str,
    /// `board3.designs.v1.DesignService`.
    pub service: &'static str,
    /// `CreateDesign`.
    pub name: &'static str,
    /// `designs.CreateDesign`, as audit rows name it.
    pub action: &'static str,
    /// `designs`.
    pub slice: &'static str,
    /// The scope that a call runs in.
    pub scope: Scope,
    /// `designs.design.write`; empty but for [`Scope::Organization`].
    pub permission: &'static str,
    /// The slices that may call it, `*` for all; empty but for [`Scope::Peer`].
    pub peers: &'static [&'static str],
    /// Whether each acknowledged call leaves one row in the audit trail.
    pub audited: bool,
    /// Whether it needs a live revocation feed.
    pub sensitive: bool,
    /// Which budget a call draws on.
    pub rate_class: RateClass,
    /// Whether the answer holds a secret that is shown once.
    pub answers_secret: bool,
    /// Whether its message has a `request_id`.
    pub takes_request_id: bool,
    /// Whether either side streams.
    pub streams: bool,
}

/// The scopes that a call can run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// No credential.
    Public,
    /// A signed-in user.
    User,
    /// A user or an API key within an organization.
    Organization,
    /// A service of the suite.
    Peer,
}

/// The budgets of the rate limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateClass {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Sign-up, login, refresh, exchange.
    Authentication,
    /// Calls of peers: not limited.
    Peer,
}

include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// The RPC at a path, as `:path` has it.
pub fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}
