//! One method per RPC: who, is it sane, one transaction, answer.

mod api_key;
mod auth;
pub(crate) mod ending;
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

use api::identity::v1::GetMeResponse;
use kit::{
    crypto::KeyRing,
    db::Db,
    failpoint,
    lanes::Lanes,
    rate::{Limit, Limiter},
    redis::Redis,
    views::Views,
};
use tokio::sync::MutexGuard;

use crate::{
    authority::Keeper, mail::Post, model::SessionId, password::Passwords, platform::Admins, throttle::Throttle,
};

/// The gRPC services of identity.
pub(crate) struct Identity {
    pub(crate) db: Db,
    pub(crate) redis: Redis,
    pub(crate) ring: Arc<KeyRing>,
    /// What users are shown of themselves, sealed.
    pub(crate) own_views: Views<GetMeResponse>,
    pub(crate) passwords: Passwords,
    pub(crate) limiter: Limiter,
    /// How often anybody may try to sign in.
    pub(crate) throttle: Throttle,
    pub(crate) post: Post,
    /// How often anybody may guess at one account.
    pub(crate) guesses: Limit,
    pub(crate) admins: Admins,
    pub(crate) keeper: Arc<Keeper>,
    /// Where refreshes of one session wait for each other before they take a database connection: many tabs that wait for
    /// one row would else hold every connection.
    pub(crate) refreshing: Lanes,
}

impl Identity {
    /// The session's turn to be refreshed.
    ///
    /// The switch `identity.session_lock` takes the line away together with the row's lock, for tests.
    async fn refreshing(&self, session: SessionId) -> Option<MutexGuard<'_, ()>> {
        if failpoint::without("identity.session_lock") {
            return None;
        }
        Some(self.refreshing.enter(session.0.as_bytes()).await)
    }
}
