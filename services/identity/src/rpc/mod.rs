//! One method per RPC: who, is it sane, one transaction, answer.

mod api_key;
mod auth;
mod grants;
mod organization;
mod permission;
mod reauthenticate;
mod role;
mod second_factor;
mod session;
mod sessions;
mod signing_key;
mod user;

use std::sync::Arc;

use kit::{
    cache::Cache,
    crypto::KeyRing,
    db::Db,
    rate::{Limit, Limiter},
    redis::Redis,
};

use crate::{authority::Keeper, mail::Post, password::Passwords, platform::Admins, throttle::Throttle};

/// The gRPC services of identity.
pub(crate) struct Identity {
    pub(crate) db: Db,
    pub(crate) redis: Redis,
    pub(crate) ring: Arc<KeyRing>,
    /// Profiles, sealed, which change rarely; never permissions.
    pub(crate) users: Cache,
    pub(crate) passwords: Passwords,
    pub(crate) limiter: Limiter,
    /// How often anybody may try to sign in.
    pub(crate) throttle: Throttle,
    pub(crate) post: Post,
    /// How often anybody may guess at one account.
    pub(crate) guesses: Limit,
    pub(crate) admins: Admins,
    pub(crate) keeper: Arc<Keeper>,
}
