//! What is no longer true of tokens that still verify, fed by identity's events, and how far behind the feed may be.
//!
//! Entries are kept a little longer than a token lives; what is older than that no token can refer to.

use std::{
    collections::HashMap,
    sync::{Mutex, RwLock},
    time::{Duration, Instant, SystemTime},
};

use api::events::v1::{PositionedEvent, event::Payload};
use tokio::sync::watch;
use uuid::Uuid;

use super::token::{ACCESS_LIFETIME, AccessClaims};
use crate::{
    events::follow::{Follower, Step},
    ids::{OrgId, Principal},
};

/// How long an entry matters: a token's life and twice the clocks' difference.
pub(crate) const KEPT: Duration = Duration::from_secs(ACCESS_LIFETIME.as_secs() + 60);
/// Within this the feed counts as live.
const LIVE: Duration = Duration::from_secs(2);
/// After this, sensitive calls are refused.
const LOST: Duration = Duration::from_secs(30);

/// The in-process set of what was revoked.
pub(crate) struct Revocations {
    sessions: RwLock<HashMap<Uuid, Instant>>,
    epochs: RwLock<HashMap<Uuid, (i64, Instant)>>,
    versions: RwLock<HashMap<OrgId, (i64, Instant)>>,
    confirmed: Mutex<Option<Instant>>,
    /// The newest version of the key set that was told of.
    keys: watch::Sender<i64>,
}

/// How much the feed can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// Confirmed within 2 s.
    Live,
    /// Behind by up to 30 s: sensitive calls ask identity.
    Lagging,
    /// Further behind: sensitive calls are refused.
    Lost,
}

impl Revocations {
    pub(crate) fn new() -> Self {
        Revocations {
            sessions: RwLock::default(),
            epochs: RwLock::default(),
            versions: RwLock::default(),
            confirmed: Mutex::new(None),
            keys: watch::Sender::new(0),
        }
    }

    /// Whether the session is revoked or the token's epoch is old.
    pub(crate) fn revoked(&self, claims: &AccessClaims) -> bool {
        if read(&self.sessions).contains_key(&claims.session) {
            return true;
        }
        let Principal::User(user) = claims.principal else {
            return false;
        };
        read(&self.epochs)
            .get(&user.0)
            .is_some_and(|(epoch, _)| claims.epoch < *epoch)
    }

    /// The version of the organization's permissions that a call must be judged by.
    pub(crate) fn permission_version(&self, org: OrgId, token: i64) -> i64 {
        read(&self.versions)
            .get(&org)
            .map_or(token, |(version, _)| token.max(*version))
    }

    /// How much the set can be relied on now.
    pub(crate) fn feed(&self) -> Feed {
        match self.lag() {
            Some(lag) if lag <= LIVE => Feed::Live,
            Some(lag) if lag <= LOST => Feed::Lagging,
            _ => Feed::Lost,
        }
    }

    /// How long ago the feed was last known to be complete.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.confirmed
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .map(|at| at.elapsed())
    }

    /// Which version of the key set was told of last; changes with each newer one.
    pub(crate) fn keys_told(&self) -> watch::Receiver<i64> {
        self.keys.subscribe()
    }

    /// As if the feed had been confirmed so long ago.
    #[cfg(test)]
    pub(crate) fn confirmed_ago(&self, age: Duration) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *confirmed = Instant::now().checked_sub(age);
    }

    /// Takes identity's events for as long as the service runs.
    pub(crate) async fn follow(&self, mut feed: Follower) {
        loop {
            match feed.next().await {
                Step::Events(events) => events.iter().for_each(|event| self.take(event)),
                Step::CaughtUp { .. } => {
                    *self.confirmed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Instant::now());
                    self.forget_old();
                }
                // The follower starts over in the new epoch; what is known stays true.
                Step::EpochChanged { .. } => {}
            }
        }
    }

    /// Where a new process must start to know everything that matters.
    pub(crate) fn since() -> SystemTime {
        SystemTime::now() - KEPT
    }

    pub(crate) fn take(&self, event: &PositionedEvent) {
        let Some(event) = &event.event else { return };
        let now = Instant::now();
        match &event.payload {
            Some(Payload::SessionRevoked(revoked)) => {
                if let Ok(session) = revoked.session_id.parse() {
                    write(&self.sessions).insert(session, now);
                }
            }
            Some(Payload::UserEpochChanged(changed)) => {
                if let Ok(user) = changed.user_id.parse() {
                    let mut epochs = write(&self.epochs);
                    let entry = epochs.entry(user).or_insert((changed.epoch, now));
                    *entry = (entry.0.max(changed.epoch), now);
                }
            }
            Some(Payload::PermissionsChanged(changed)) => {
                if let Ok(org) = event.organization_id.parse() {
                    let mut versions = write(&self.versions);
                    let entry = versions.entry(org).or_insert((changed.permission_version, now));
                    *entry = (entry.0.max(changed.permission_version), now);
                }
            }
            Some(Payload::SigningKeysChanged(changed)) => {
                self.keys.send_if_modified(|told| {
                    let newer = changed.version > *told;
                    *told = changed.version.max(*told);
                    newer
                });
            }
            Some(
                Payload::UserChanged(_)
                | Payload::DesignChanged(_)
                | Payload::StateWritten(_)
                | Payload::DriftChecked(_)
                | Payload::DriftFound(_)
                | Payload::DriftCheckRequested(_)
                | Payload::DriftCheckAnswered(_)
                | Payload::ExecutionChanged(_)
                | Payload::JobEnded(_),
            )
            | None => {}
        }
    }

    fn forget_old(&self) {
        write(&self.sessions).retain(|_, since| since.elapsed() < KEPT);
        write(&self.epochs).retain(|_, (_, since)| since.elapsed() < KEPT);
        write(&self.versions).retain(|_, (_, since)| since.elapsed() < KEPT);
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use api::events::v1::{Event, PermissionsChanged, SessionRevoked, UserEpochChanged};

    use super::*;
    use crate::ids::UserId;

    fn told(org: OrgId, payload: Payload) -> PositionedEvent {
        let event = Event {
            organization_id: org.to_string(),
            payload: Some(payload),
            ..Event::default()
        };
        PositionedEvent {
            event: Some(event),
            ..PositionedEvent::default()
        }
    }

    #[test]
    fn sessions_epochs_and_versions_only_move_forward() {
        let set = Revocations::new();
        let (org, user, session) = (OrgId::new(), UserId::new(), Uuid::now_v7());
        let claims = |epoch| AccessClaims {
            principal: Principal::User(user),
            org: Some(org),
            session,
            epoch,
            permission_version: 1,
            expires_at: SystemTime::now(),
        };
        assert!(!set.revoked(&claims(1)));
        set.take(&told(
            org,
            Payload::UserEpochChanged(UserEpochChanged {
                user_id: user.to_string(),
                epoch: 2,
            }),
        ));
        set.take(&told(
            org,
            Payload::UserEpochChanged(UserEpochChanged {
                user_id: user.to_string(),
                epoch: 1,
            }),
        ));
        assert!(set.revoked(&claims(1)) && !set.revoked(&claims(2)));
        set.take(&told(
            org,
            Payload::PermissionsChanged(PermissionsChanged { permission_version: 5 }),
        ));
        assert_eq!((set.permission_version(org, 1), set.permission_version(org, 9)), (5, 9));
        set.take(&told(
            org,
            Payload::SessionRevoked(SessionRevoked {
                session_id: session.to_string(),
            }),
        ));
        assert!(set.revoked(&claims(2)));
        assert_eq!(set.feed(), Feed::Lost);
    }
}
