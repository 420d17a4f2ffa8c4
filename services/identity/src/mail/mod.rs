//! How messages leave: asked for here, written by `store::mail` in the transaction that causes them, sent by the mailer.
//!
//! Nothing waits for a message to be sent, and none is sent whose transaction did not commit.

mod carrier;
mod mailer;
mod settings;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kit::{
    crypto::KeyRing,
    failpoint,
    rate::{HourlyLimit, Limiter},
};
use tokio::sync::Notify;

pub(crate) use mailer::Mailer;
pub(crate) use settings::Settings;

use crate::model::Email;

/// Messages an hour that strangers can make us send to one address.
const UNASKED: u32 = 3;

/// Where the RPCs hand in.
#[derive(Clone)]
pub(crate) struct Post {
    ring: Arc<KeyRing>,
    limiter: Limiter,
    unasked: HourlyLimit,
    bell: Arc<Notify>,
}

impl Post {
    /// With the limit multiplied by `scale`.
    pub(crate) fn new(ring: Arc<KeyRing>, limiter: Limiter, scale: u32) -> Self {
        Post {
            ring,
            limiter,
            unasked: HourlyLimit(UNASKED.saturating_mul(scale)),
            bell: Arc::new(Notify::new()),
        }
    }

    /// Whether an address gets one more message that it did not itself sign in to ask for; counts it if so.
    ///
    /// The switch `identity.mail_limit` lets everything through, for tests.
    pub(crate) async fn may_send(&self, to: &Email) -> bool {
        if failpoint::without("identity.mail_limit") {
            return true;
        }
        let name = format!("mail:{}", URL_SAFE_NO_PAD.encode(self.address(to)));
        self.limiter.check(&[(name, self.unasked)]).await.allowed
    }

    /// An address, for tables and keys that shall not tell it.
    pub(crate) fn address(&self, email: &Email) -> [u8; 32] {
        self.ring.keyed_hash("identity mail", email.as_str().as_bytes())
    }

    /// Tells this process's mailer that a message was committed; without it, it looks within a second.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(crate) fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }
}
