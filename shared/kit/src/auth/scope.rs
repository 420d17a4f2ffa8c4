//! The authority that a call runs with.
//!
//! Only the gate makes scopes; a store function reaches the database only through a `Tx`, and a `Tx` only begins with a scope.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use api::policy::Method;
use tonic::{Request, Status, Streaming};
use uuid::Uuid;

use super::jobs::Job;
use crate::{
    error::{Error, Reason, Result, Violation},
    ids::{OrgId, Principal, UserId},
};

/// One call, from its arrival on.
#[derive(Debug)]
pub struct Call {
    /// The RPC and its policy.
    pub method: &'static Method,
    /// The `x-request-id`, the caller's or ours.
    pub request_id: String,
    /// W3C `traceparent`, the caller's or ours.
    pub traceparent: String,
    /// Address of the other end.
    pub caller_address: String,
    /// When it must be over.
    pub deadline: Instant,
    /// `None` inside for a `request_id` that is none.
    repeat: OnceLock<Option<Repeat>>,
}

/// What makes a call the repeat of another.
#[derive(Clone)]
pub struct Repeat {
    /// The message's `request_id`.
    pub request_id: Uuid,
    /// The encoded message.
    pub arguments: Vec<u8>,
}

impl fmt::Debug for Repeat {
    /// Without the arguments: a sign-up's hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeat")
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// A call that has just arrived.
    pub fn new(
        method: &'static Method,
        request_id: String,
        traceparent: String,
        caller_address: String,
        deadline: Instant,
    ) -> Self {
        Call {
            method,
            request_id,
            traceparent,
            caller_address,
            deadline,
            repeat: OnceLock::new(),
        }
    }

    /// What is left of its time; zero when it is over.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The message's `request_id` and arguments, once [`admitted`] has seen them and if there is one.
    pub fn repeat(&self) -> Option<&Repeat> {
        self.repeat.get()?.as_ref()
    }

    /// What is wrong with the message's `request_id`: told beside everything else that is wrong with the message.
    pub(crate) fn request_id_violation(&self) -> Option<Violation> {
        let malformed = matches!(self.repeat.get(), Some(None));
        malformed.then(|| Violation {
            field: "request_id".to_owned(),
            description: "must be a UUID in lower case with hyphens".to_owned(),
        })
    }
}

/// What the gate found out about the caller.
#[derive(Clone, Debug)]
pub enum Scope {
    /// See [`PublicScope`].
    Public(PublicScope),
    /// See [`UserScope`].
    User(UserScope),
    /// See [`OrgScope`].
    Org(OrgScope),
    /// See [`PeerScope`].
    Peer(PeerScope),
}

impl Scope {
    /// Whose rows a transaction of it sees, and in whose name it writes.
    pub(crate) fn tenancy(&self) -> Tenancy {
        match self {
            Scope::Public(scope) => scope.tenancy(),
            Scope::User(scope) => Tenancy {
                org: scope.org.unwrap_or(OrgId::PLATFORM),
                ..scope.tenancy()
            },
            Scope::Org(scope) => scope.tenancy(),
            Scope::Peer(scope) => scope.tenancy(),
        }
    }
}

/// Nobody known: sign-up, login, exchange.
#[derive(Clone, Debug)]
pub struct PublicScope {
    pub(crate) call: Arc<Call>,
}

/// A signed-in user; the organization plays no part.
#[derive(Clone, Debug)]
pub struct UserScope {
    pub(crate) call: Arc<Call>,
    pub(crate) user: UserId,
    pub(crate) org: Option<OrgId>,
    pub(crate) session: Uuid,
}

/// A user, an API key or a job with the permission that the RPC asks for, within the credential's organization.
#[derive(Clone, Debug)]
pub struct OrgScope {
    pub(crate) call: Arc<Call>,
    pub(crate) org: OrgId,
    pub(crate) principal: Principal,
    pub(crate) permissions: Arc<super::permission::PermissionSet>,
    /// The job that calls, if it is one.
    pub(crate) job: Option<Arc<Job>>,
}

/// A service of the suite.
#[derive(Clone, Debug)]
pub struct PeerScope {
    pub(crate) call: Arc<Call>,
    pub(crate) slice: &'static str,
}

impl UserScope {
    /// The user.
    pub fn user(&self) -> UserId {
        self.user
    }
    /// The organization that the token names, if any.
    pub fn org(&self) -> Option<OrgId> {
        self.org
    }
    /// The token's session.
    pub fn session(&self) -> Uuid {
        self.session
    }
}

impl OrgScope {
    /// The organization.
    pub fn org(&self) -> OrgId {
        self.org
    }
    /// Who calls.
    pub fn principal(&self) -> Principal {
        self.principal
    }
    /// What the caller may do in the organization.
    pub fn permissions(&self) -> &super::permission::PermissionSet {
        &self.permissions
    }

    /// The only thing of a kind (`design`, by its id, or `state`, by its name) that the caller may touch.
    /// `None` for users and API keys, which are bound to nothing.
    pub fn bound(&self, kind: &'static str) -> Option<&str> {
        self.job.as_ref()?.bound(kind)
    }

    /// Whether the caller may touch this thing of a kind. A job's permissions cover what it is bound to and nothing else,
    /// so every handler that a job can reach calls this before it looks anything up.
    ///
    /// # Errors
    /// CALLER_NOT_ALLOWED for a job that is not bound to it.
    pub fn within(&self, kind: &'static str, name: &str) -> Result<()> {
        match &self.job {
            Some(job) if job.bound(kind) != Some(name) => Err(Error::new(
                Reason::CallerNotAllowed,
                format!("this job is not for this {kind}"),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

impl PeerScope {
    /// The calling slice.
    pub fn slice(&self) -> &'static str {
        self.slice
    }
}

/// Whose rows a transaction sees and in whose name it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenancy {
    /// `app.org`.
    pub org: OrgId,
    /// The actor; a user is also `app.user`.
    pub principal: Principal,
}

/// A scope that a transaction can begin with. Sealed: only the gate's scopes and the workers' are.
pub trait Begins: sealed::Sealed + Sync {
    /// Whose rows it sees. Scopes without an organization begin in the platform's.
    fn tenancy(&self) -> Tenancy;
    /// The call, unless it is a worker's.
    fn call(&self) -> Option<&Arc<Call>>;
    /// Whether the transaction may enter an organization that the scope does not name.
    fn may_enter(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for PublicScope {}
impl Begins for PublicScope {
    fn tenancy(&self) -> Tenancy {
        Tenancy {
            org: OrgId::PLATFORM,
            principal: Principal::Anonymous,
        }
    }
    fn call(&self) -> Option<&Arc<Call>> {
        Some(&self.call)
    }
    fn may_enter(&self) -> bool {
        true
    }
}

impl sealed::Sealed for UserScope {}
impl Begins for UserScope {
    fn tenancy(&self) -> Tenancy {
        Tenancy {
            org: OrgId::PLATFORM,
            principal: Principal::User(self.user),
        }
    }
    fn call(&self) -> Option<&Arc<Call>> {
        Some(&self.call)
    }
    fn may_enter(&self) -> bool {
        true
    }
}

impl sealed::Sealed for OrgScope {}
impl Begins for OrgScope {
    fn tenancy(&self) -> Tenancy {
        Tenancy {
            org: self.org,
            principal: self.principal,
        }
    }
    fn call(&self) -> Option<&Arc<Call>> {
        Some(&self.call)
    }
    fn may_enter(&self) -> bool {
        false
    }
}

impl sealed::Sealed for PeerScope {}
impl Begins for PeerScope {
    fn tenancy(&self) -> Tenancy {
        Tenancy {
            org: OrgId::PLATFORM,
            principal: Principal::Service(self.slice),
        }
    }
    fn call(&self) -> Option<&Arc<Call>> {
        Some(&self.call)
    }
    fn may_enter(&self) -> bool {
        true
    }
}

/// What runs between calls: relay, consumers, schedulers. Made for a service's own slice by `kit::server`.
#[derive(Clone, Copy, Debug)]
pub struct WorkerScope {
    pub(crate) slice: &'static str,
}

impl sealed::Sealed for WorkerScope {}
impl Begins for WorkerScope {
    fn tenancy(&self) -> Tenancy {
        Tenancy {
            org: OrgId::PLATFORM,
            principal: Principal::Service(self.slice),
        }
    }
    fn call(&self) -> Option<&Arc<Call>> {
        None
    }
    fn may_enter(&self) -> bool {
        true
    }
}

/// A scope that the gate can have found.
pub trait Admitted: Sized {
    /// This scope, if it is the one.
    fn from_scope(scope: &Scope) -> Option<Self>;
    /// The call.
    fn call(&self) -> &Arc<Call>;
}

macro_rules! admitted_as {
    ($scope:ident, $variant:ident) => {
        impl Admitted for $scope {
            fn from_scope(scope: &Scope) -> Option<Self> {
                if let Scope::$variant(scope) = scope {
                    Some(scope.clone())
                } else {
                    None
                }
            }
            fn call(&self) -> &Arc<Call> {
                &self.call
            }
        }
    };
}
admitted_as!(PublicScope, Public);
admitted_as!(UserScope, User);
admitted_as!(OrgScope, Org);
admitted_as!(PeerScope, Peer);

/// The scope that the gate admitted the call to, and the message.
///
/// A `request_id` that is not a UUID is refused with what else is wrong, or by [`crate::db::Db::write`].
///
/// # Errors
/// INTERNAL where the handler asks for another scope than its policy gives.
#[allow(clippy::result_large_err)]
pub fn admitted<S: Admitted, M: api::Request>(request: Request<M>) -> Result<(S, M), Status> {
    let (scope, message) = found(request)?;
    if let Some(text) = message.request_id() {
        repeats_as(&scope, text, || message.encode_to_vec())?;
    }
    Ok((scope, message))
}

/// As [`admitted`], for an RPC whose caller streams: the scope, and the messages to come.
///
/// Which call it repeats is only known when its first message is read; [`repeats`] says so then.
///
/// # Errors
/// INTERNAL where the handler asks for another scope than its policy gives.
#[allow(clippy::result_large_err)]
pub fn admitted_stream<S: Admitted, M: api::Request>(
    request: Request<Streaming<M>>,
) -> Result<(S, Streaming<M>), Status> {
    Ok(found(request)?)
}

/// Says which call a stream, or a request of a [`crate::rpc::Door`], repeats: once, before [`crate::db::Db::write`].
///
/// `arguments` are all that two calls must have in common to be one: the encoded first message without its part of
/// the content, and a hash of the whole content (a plain one: only a keyed hash of `arguments` is kept).
/// An empty `request_id` is none; one that is not a UUID is refused as [`admitted`] tells.
///
/// # Errors
/// INTERNAL where it was already said.
pub fn repeats(scope: &impl Admitted, request_id: &str, arguments: Vec<u8>) -> Result<()> {
    repeats_as(scope, request_id, || arguments)
}

fn repeats_as(scope: &impl Admitted, text: &str, arguments: impl FnOnce() -> Vec<u8>) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let repeat = crate::ids::parse(text).ok().map(|request_id| Repeat {
        request_id,
        arguments: arguments(),
    });
    scope
        .call()
        .repeat
        .set(repeat)
        .map_err(|_| Error::internal("a call repeats one other at most"))
}

/// The scope that the gate found, and what came with it.
fn found<S: Admitted, T>(request: Request<T>) -> Result<(S, T)> {
    let (_, extensions, message) = request.into_parts();
    let scope = extensions
        .get::<Scope>()
        .and_then(S::from_scope)
        .ok_or_else(|| Error::internal("the handler asks for another scope than the RPC's policy gives"))?;
    Ok((scope, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_prints_its_request_id_and_none_of_its_arguments() {
        let repeat = Repeat {
            request_id: Uuid::nil(),
            arguments: vec![112, 119],
        };
        assert_eq!(
            format!("{repeat:?}"),
            "Repeat { request_id: 00000000-0000-0000-0000-000000000000, .. }"
        );
    }
}
