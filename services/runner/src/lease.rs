//! One lease: kept for as long as pipelines answers, and given up by the runner's own clock where it does not.
//!
//! A lease counts from the moment its renewal was sent, so that the runner never believes in it longer than pipelines.

use std::{sync::Arc, time::Duration};

use api::pipelines::v1::RenewRequest;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::client::{Backoff, Client, Trace};

/// For how long after its end a lease may still be found to be ours, so that what is known can be reported.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    sent: Instant,
    expires_in: Duration,
    /// It ran out once: work had to stop, whatever came after.
    pub(crate) fenced: bool,
    /// Pipelines asks for the work to be interrupted.
    pub(crate) cancel: bool,
    /// It is somebody else's, or nobody's: nothing may be reported.
    pub(crate) lost: bool,
}

impl Standing {
    /// A lease of this length, asked for at this moment.
    pub(crate) fn new(sent: Instant, expires_in: Duration) -> Self {
        Standing {
            sent,
            expires_in,
            fenced: false,
            cancel: false,
            lost: false,
        }
    }

    /// When it ends unless it is renewed.
    pub(crate) fn until(&self) -> Instant {
        self.sent + self.expires_in
    }

    /// How much of it is left.
    pub(crate) fn left(&self) -> Duration {
        self.until().saturating_duration_since(Instant::now())
    }

    fn renew_at(&self) -> Instant {
        self.sent + self.expires_in / 3
    }

    /// Renewed by a call that was sent then. A fence stays.
    fn renewed(&mut self, sent: Instant, expires_in: Duration) {
        if sent >= self.sent {
            (self.sent, self.expires_in) = (sent, expires_in);
        }
    }

    /// What the clock alone says; true where that changed something.
    fn passed(&mut self, now: Instant) -> bool {
        if self.lost || now < self.until() {
            return false;
        }
        let (fenced, lost) = (true, now >= self.until() + GIVE_UP);
        let changed = (self.fenced, self.lost) != (fenced, lost);
        (self.fenced, self.lost) = (fenced, lost);
        changed
    }
}

/// How long a lease is, as pipelines says it; what makes no sense is no time at all.
pub(crate) fn length(expires_in: Option<prost_types::Duration>) -> Duration {
    let length = expires_in.and_then(|length| Duration::try_from(length).ok());
    length.unwrap_or_default().min(Duration::from_secs(600))
}

/// Keeps a lease until it is dropped.
pub(crate) struct Keeper {
    standing: Arc<watch::Sender<Standing>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Renews from now on.
    pub(crate) fn start(client: Client, trace: Trace, request: RenewRequest, standing: Standing) -> Self {
        let standing = Arc::new(watch::Sender::new(standing));
        let task = tokio::spawn({
            let standing = standing.clone();
            async move {
                tokio::select! {
                    () = keep(client, trace, request, &standing) => {}
                    () = fence(&standing) => {}
                }
            }
        });
        Keeper { standing, task }
    }

    /// Where the lease stands.
    pub(crate) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// The same, as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Another call than a renewal has told its length.
    pub(crate) fn renewed(&self, sent: Instant, expires_in: Duration) {
        self.standing.send_modify(|standing| standing.renewed(sent, expires_in));
    }

    /// Some call was answered that the lease is lost.
    pub(crate) fn lose(&self) {
        self.standing.send_modify(|standing| standing.lost = true);
    }

    /// Completes when the lease is lost.
    pub(crate) async fn lost(&self) {
        // The sender lives as long as this.
        let _ = self.watch().wait_for(|standing| standing.lost).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Renews every third of the lease; tries again soon where that fails. Ends with a lost lease.
async fn keep(client: Client, trace: Trace, request: RenewRequest, standing: &watch::Sender<Standing>) {
    let mut changes = standing.subscribe();
    loop {
        let due = changes.borrow_and_update().renew_at();
        tokio::select! {
            () = sleep_until(due) => {}
            _ = changes.changed() => continue,
        }
        let mut backoff = Backoff::up_to(Duration::from_secs(2));
        loop {
            let sent = Instant::now();
            match client.renew(trace, request.clone()).await {
                Ok(answer) => {
                    standing.send_modify(|standing| {
                        standing.passed(Instant::now());
                        standing.renewed(sent, length(answer.expires_in));
                        standing.cancel |= answer.cancel;
                    });
                    break;
                }
                Err(refusal) if refusal.lease_lost() => {
                    tracing::warn!(refusal = refusal.told(), "the lease is lost");
                    standing.send_modify(|standing| standing.lost = true);
                    return;
                }
                Err(refusal) => {
                    tracing::warn!(refusal = refusal.told(), "the lease could not be renewed");
                    sleep(backoff.after(&refusal)).await;
                }
            }
        }
        // A length of nothing must not make a busy loop of this.
        sleep(Duration::from_millis(50)).await;
    }
}

/// Watches the clock; ends when the lease is lost.
async fn fence(standing: &watch::Sender<Standing>) {
    let mut changes = standing.subscribe();
    loop {
        let now = *changes.borrow_and_update();
        if now.lost {
            return;
        }
        let end = if now.fenced { now.until() + GIVE_UP } else { now.until() };
        // Fenced once, a renewed lease has no end to watch for before it is over again.
        tokio::select! {
            () = sleep_until(end) => {
                standing.send_if_modified(|standing| {
                    let changed = standing.passed(Instant::now());
                    if changed {
                        tracing::warn!(lost = standing.lost, "the lease ran out");
                    }
                    changed
                });
            }
            _ = changes.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    #[test]
    fn a_lease_counts_from_when_its_renewal_was_sent() {
        let sent = Instant::now();
        let mut standing = Standing::new(sent, LENGTH);
        assert_eq!(standing.until(), sent + LENGTH);
        assert_eq!(standing.renew_at(), sent + LENGTH / 3);
        let later = sent + Duration::from_secs(10);
        standing.renewed(later, LENGTH);
        standing.renewed(sent, LENGTH * 10);
        assert_eq!(standing.until(), later + LENGTH);
        assert!(!standing.passed(later + LENGTH - Duration::from_millis(1)));
    }

    #[test]
    fn a_fence_stays_though_a_renewal_comes_after_it_and_too_late_is_lost() {
        let sent = Instant::now();
        let mut standing = Standing::new(sent, LENGTH);
        assert!(standing.passed(sent + LENGTH));
        assert!(standing.fenced && !standing.lost);
        standing.renewed(sent + LENGTH, LENGTH);
        assert!(standing.fenced && !standing.lost);
        assert!(!standing.passed(sent + LENGTH));
        assert!(standing.passed(sent + LENGTH * 2 + GIVE_UP));
        assert!(standing.lost);
    }

    #[test]
    fn a_length_without_sense_is_none() {
        let length = |seconds, nanos| length(Some(prost_types::Duration { seconds, nanos }));
        assert_eq!(length(30, 0), LENGTH);
        assert_eq!(length(-1, 0), Duration::ZERO);
        assert_eq!(length(i64::MAX, 0), Duration::from_secs(600));
        assert_eq!(super::length(None), Duration::ZERO);
    }
}
