//! How often anybody may try to sign in.
//!
//! An attempt is counted before anything is hashed, and given back when it turns out to be no guess. Attempts
//! at one account from one network stand in line: while earlier ones are being judged, the next waits for what they may
//! give back instead of being refused. So a hundred logins at once with the right password all succeed, and of a hundred
//! with a wrong one no more are looked at than the limit says.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kit::{
    Error, Reason, Result,
    auth::Call,
    crypto::{KeyRing, random},
    failpoint,
    ids::{OrgId, UserId},
    rate::{Limit, Limiter},
};
use tokio::{sync::watch, time::timeout};

use crate::model::{DeviceId, Email};

/// Attempts at one account from one network, a minute and at once.
const ACCOUNT_FROM_NETWORK: u32 = 10;
/// Attempts at one account from everywhere.
const ACCOUNT: u32 = 100;
/// Attempts at all accounts from one network.
const NETWORK: u32 = 300;
/// Attempts at entering one organization.
const ORGANIZATION: u32 = 600;
/// Attempts at one account from a device that has signed in to it before.
const DEVICE: u32 = 10;

/// How long the first in line waits for one of those before it to be judged.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is left of a call's time to answer in.
const ANSWERING: Duration = Duration::from_millis(250);

/// Counts attempts to sign in, in all processes together.
pub(crate) struct Throttle(Arc<Inner>);

struct Inner {
    limiter: Limiter,
    ring: Arc<KeyRing>,
    scale: u32,
    lines: Mutex<HashMap<String, Entry>>,
    /// Ours alone; see [`Throttle::name`].
    own: [u8; 16],
}

/// The line of a bucket, as long as anybody stands in it or is being judged.
struct Entry {
    users: usize,
    line: Arc<Line>,
}

struct Line {
    /// Who has it asks the limiter; the others wait for it in the order that they came.
    head: tokio::sync::Mutex<()>,
    /// How many are being judged.
    judged: watch::Sender<usize>,
}

/// Who tries to sign in to what.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guess<'a> {
    /// Somebody who may be anybody.
    Stranger {
        /// At this account, which need not be there.
        email: &'a Email,
        /// The organization that is to be entered, if one is named.
        org: Option<OrgId>,
    },
    /// A device that has signed in to the account before: it is counted by itself, whatever others do.
    Device {
        /// The account.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
}

impl Throttle {
    /// Limits of this many times their size.
    pub(crate) fn new(limiter: Limiter, ring: Arc<KeyRing>, scale: u32) -> Self {
        Throttle(Arc::new(Inner {
            limiter,
            ring,
            scale,
            lines: Mutex::default(),
            own: random(),
        }))
    }

    /// Counts an attempt, in its turn, or refuses it.
    ///
    /// # Errors
    /// RATE_LIMITED with the time to wait, alike whether or not there is such an account.
    pub(crate) async fn admit(&self, call: &Call, guess: Guess<'_>) -> Result<Attempt> {
        let limits = self.limits(&call.caller_address, guess);
        let place = self.place(&limits[0].0);
        let admitted = timeout(
            call.remaining().saturating_sub(ANSWERING),
            self.ask(&place.line, &limits),
        );
        match admitted.await {
            Ok(answer) => answer?,
            Err(_) => return Err(refused(Duration::from_secs(1))),
        }
        Ok(Attempt { place, limits })
    }

    /// Asks the limiter as the first in line, again whenever somebody before us was judged; counts us among these then.
    ///
    /// The switch `identity.login_line` takes the waiting away, for tests.
    async fn ask(&self, line: &Line, limits: &[(String, Limit)]) -> Result<()> {
        let _head = line.head.lock().await;
        let mut judged = line.judged.subscribe();
        loop {
            // Only the head adds to these, so whoever may still give something back is among them.
            let before = *judged.borrow_and_update();
            let decision = self.0.limiter.check(limits).await;
            if decision.allowed {
                line.judged.send_modify(|judged| *judged += 1);
                return Ok(());
            }
            let waited = before > 0
                && !failpoint::without("identity.login_line")
                && matches!(timeout(PATIENCE, judged.wait_for(|now| *now < before)).await, Ok(Ok(_)));
            if !waited {
                return Err(refused(decision.retry_after));
            }
        }
    }

    /// What an attempt is counted by, the tightest first.
    fn limits(&self, address: &str, guess: Guess<'_>) -> Vec<(String, Limit)> {
        match guess {
            Guess::Device { user, device } => vec![(
                self.name("device", &[user.0.as_bytes(), device.0.as_bytes()]),
                self.limit(DEVICE),
            )],
            Guess::Stranger { email, org } => {
                let (email, network) = (email.as_str().as_bytes(), network(address));
                let mut limits = vec![
                    (
                        self.name("account-network", &[email, b"\n", network.as_bytes()]),
                        self.limit(ACCOUNT_FROM_NETWORK),
                    ),
                    (self.name("account", &[email]), self.limit(ACCOUNT)),
                    (self.name("network", &[network.as_bytes()]), self.limit(NETWORK)),
                ];
                if let Some(org) = org {
                    limits.push((self.name("organization", &[org.0.as_bytes()]), self.limit(ORGANIZATION)));
                }
                limits
            }
        }
    }

    /// A bucket's name, which tells nothing about whom it counts.
    ///
    /// The switch `identity.shared_limits` makes it this process's own, for tests.
    fn name(&self, kind: &str, of: &[&[u8]]) -> String {
        let mut bytes = of.concat();
        if failpoint::without("identity.shared_limits") {
            bytes.extend_from_slice(&self.0.own);
        }
        let hash = self.0.ring.keyed_hash(&format!("identity login {kind}"), &bytes);
        format!("login:{kind}:{}", URL_SAFE_NO_PAD.encode(hash))
    }

    fn limit(&self, figure: u32) -> Limit {
        let figure = figure.saturating_mul(self.0.scale);
        Limit {
            per_minute: figure,
            burst: figure,
        }
    }

    fn place(&self, name: &str) -> Place {
        let mut lines = self.0.lines();
        let entry = lines.entry(name.to_owned()).or_insert_with(|| Entry {
            users: 0,
            line: Arc::new(Line {
                head: tokio::sync::Mutex::default(),
                judged: watch::Sender::new(0),
            }),
        });
        entry.users += 1;
        Place {
            name: name.to_owned(),
            line: entry.line.clone(),
            throttle: self.0.clone(),
        }
    }
}

impl Inner {
    fn lines(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a line; the line goes with the last one.
struct Place {
    name: String,
    line: Arc<Line>,
    throttle: Arc<Inner>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.throttle.lines();
        if let Some(entry) = lines.get_mut(&self.name) {
            entry.users -= 1;
            if entry.users == 0 {
                lines.remove(&self.name);
            }
        }
    }
}

/// An attempt that was let through and is being judged. Dropped, it stays counted.
#[must_use = "dropped, the next in line is asked"]
pub(crate) struct Attempt {
    place: Place,
    limits: Vec<(String, Limit)>,
}

impl Attempt {
    /// It was no guess, or nothing was looked at: it does not count.
    pub(crate) async fn give_back(self) {
        self.place.throttle.limiter.refund(&self.limits).await;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.place.line.judged.send_modify(|judged| *judged -= 1);
    }
}

fn refused(retry_after: Duration) -> Error {
    Error::new(Reason::RateLimited, "too many calls").retry_after(retry_after)
}

/// The network of an address: IPv4 /24 or IPv6 /56. What is no address is a network of its own.
fn network(address: &str) -> String {
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Ok(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 72 << 72;
            format!("{}/56", std::net::Ipv6Addr::from_bits(network))
        }
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn neighbours_share_a_network() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.0/24"),
            ("::ffff:192.0.2.9", "192.0.2.0/24"),
            ("2001:db8:1:2ff:a::1", "2001:db8:1:200::/56"),
            ("2001:db8:1:200::", "2001:db8:1:200::/56"),
            ("2001:db8:1:300::", "2001:db8:1:300::/56"),
            ("", ""),
        ] {
            assert_eq!(network(address), expected);
        }
    }
}
