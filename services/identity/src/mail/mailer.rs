//! Drains `outbound_messages`, across replicas each message once, and again after a crash in the middle.
//!
//! A message in hand is out of the others' reach for [`LEASE`], which is longer than sending may take; no transaction
//! is open meanwhile. So a bearer who dies costs a minute and perhaps a second copy, and never a message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use kit::{Error, Result, failpoint, service::Kit};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{carrier::Refused, settings::Settings};
use crate::store::{self, mail::Claimed};

/// The longest between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest between two looks while the database does not answer.
const LONGEST: Duration = Duration::from_secs(15);
/// The most messages in hand, which are sent at once.
const BATCH: i32 = 8;
/// The longest that sending may take.
const SENDING: Duration = Duration::from_secs(30);
/// How long a message is in hand.
const LEASE: Duration = Duration::from_secs(60);
/// The first wait of a message that was not taken; it doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait of a message that was not taken.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// A message that still was not taken after so long is given up.
const LIFETIME: Duration = Duration::from_secs(3 * 24 * 3600);
/// How often what has ended is forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

/// What became of messages, for figures.
#[derive(Default)]
struct Figures {
    sent: AtomicU64,
    put_off: AtomicU64,
    given_up: AtomicU64,
}

/// Sends what is due, for as long as the service runs.
pub(crate) struct Mailer {
    kit: Kit,
    settings: Settings,
    bell: Arc<Notify>,
    figures: Arc<Figures>,
}

impl Mailer {
    /// Woken by the bell, and by the clock.
    pub(crate) fn new(kit: Kit, settings: Settings, bell: Arc<Notify>) -> Self {
        let figures = Arc::new(Figures::default());
        let read = figures.clone();
        kit.metrics.reading(
            "outbound_messages",
            "Messages by what became of them in this process",
            move || {
                let outcomes = [
                    ("sent", &read.sent),
                    ("put_off", &read.put_off),
                    ("given_up", &read.given_up),
                ];
                let outcomes = outcomes.into_iter();
                outcomes
                    .map(|(outcome, count)| (format!("outcome=\"{outcome}\""), count.load(Ordering::Relaxed) as f64))
                    .collect()
            },
        );
        Mailer {
            kit,
            settings,
            bell,
            figures,
        }
    }

    pub(crate) async fn run(self) {
        let mut pause = EVERY;
        let mut cleaned: Option<Instant> = None;
        loop {
            // Whichever is first; a bell that rang during the work is still heard here.
            let _ = timeout(pause, self.bell.notified()).await;
            pause = match self.drain().await {
                Ok(()) => EVERY,
                Err(error) => {
                    let next = (pause * 2).min(LONGEST);
                    tracing::warn!(?error, retry_in_ms = next.as_millis() as u64, "messages wait");
                    // Not even a bell shortens this.
                    sleep(next).await;
                    next
                }
            };
            if cleaned.is_none_or(|at| at.elapsed() > HOUSEKEEPING) {
                cleaned = Some(Instant::now());
                if let Err(error) = self.forget().await {
                    tracing::warn!(?error, "ended sign-ups stay");
                }
            }
        }
    }

    /// Everything that is due, a batch at a time.
    async fn drain(&self) -> Result<()> {
        let scope = self.kit.scope();
        loop {
            let instance = self.kit.config.instance.as_deref().unwrap_or_default();
            let claim = self.kit.worker.read(&scope, async |tx| {
                let claimed = store::mail::claim(tx, BATCH, LEASE.as_secs_f64(), LIFETIME.as_secs_f64()).await?;
                if !claimed.is_empty() {
                    failpoint::hit_in("mail.claimed", instance).await?;
                }
                Ok::<_, Error>(claimed)
            });
            let claimed = claim.await?;
            if claimed.is_empty() {
                return Ok(());
            }
            let delivered = join_all(claimed.iter().map(|mail| self.deliver(mail))).await;
            delivered.into_iter().collect::<Result<Vec<()>>>()?;
        }
    }

    /// One message, until the table knows what became of it.
    async fn deliver(&self, mail: &Claimed) -> Result<()> {
        let scope = self.kit.scope();
        let sent = match mail.content(&self.kit.ring) {
            // Only written because its absence would be noticed.
            Ok(content) if content.to.is_empty() => Ok(()),
            Ok(content) => {
                let sending = self.settings.carrier.send(mail.id, &self.settings.from, &content);
                timeout(SENDING, sending).await.unwrap_or(Err(Refused::TimedOut))
            }
            Err(error) => {
                tracing::error!(message_id = %mail.id, kind = mail.kind, ?error, "a message cannot be opened");
                Err(Refused::Malformed)
            }
        };
        let Err(refused) = sent else {
            let instance = self.kit.config.instance.as_deref().unwrap_or_default();
            failpoint::hit_in("mail.sent", instance).await?;
            self.kit
                .worker
                .read(&scope, async |tx| store::mail::update_sent(tx, mail.id).await)
                .await?;
            self.figures.sent.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let (id, kind, attempts) = (mail.id, mail.kind.as_str(), mail.attempts);
        if mail.last || refused.permanent() {
            self.kit
                .worker
                .read(&scope, async |tx| {
                    if store::mail::update_given_up(tx, id, attempts).await? {
                        tx.acted("GiveUpMessage", &id);
                    }
                    Ok::<_, Error>(())
                })
                .await?;
            self.figures.given_up.fetch_add(1, Ordering::Relaxed);
            tracing::error!(message_id = %id, kind, attempts, %refused, "a message is given up");
            return Ok(());
        }
        let wait = wait_after(attempts);
        self.kit
            .worker
            .read(&scope, async |tx| {
                store::mail::update_put_off(tx, id, attempts, wait.as_secs_f64()).await
            })
            .await?;
        self.figures.put_off.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(message_id = %id, kind, attempts, %refused, retry_in_s = wait.as_secs(), "a message waits");
        Ok(())
    }

    /// Forgets sign-ups and requests that nobody answered, and that messages were sent.
    async fn forget(&self) -> Result<()> {
        let scope = self.kit.scope();
        self.kit
            .worker
            .read(&scope, async |tx| {
                store::mail::delete_sent(tx).await?;
                store::sign_up::delete_expired(tx).await?;
                store::reset::delete_expired(tx).await?;
                Ok::<_, Error>(())
            })
            .await
    }
}

/// How long a message waits that was not taken at this attempt.
fn wait_after(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(20);
    (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_a_second_to_ten_minutes() {
        let seconds = [1, 2, 3, 10, 11, 10_000].map(|attempts| wait_after(attempts).as_secs());
        assert_eq!(seconds, [1, 2, 4, 512, 600, 600]);
        assert!(SENDING < LEASE);
    }
}
