//! The ear of a follower: a subscription that is renewed for ever.
//!
//! What it cannot pass on in time it drops, which for a follower is a gap like any other.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use api::events::v1::Announcement;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{backoff::Backoff, figures::Followed};
use crate::redis::Redis;

/// What the channel tells.
pub(super) enum Heard {
    /// A subscription is in force; what was said before it is lost.
    Subscribed,
    Announced(Announcement, Instant),
    /// There is no subscription; told once per outage.
    Lost,
}

/// Keeps a subscription up for ever, on a connection of its own.
pub(super) async fn listen(redis: Redis, channel: String, told: mpsc::Sender<Heard>, figures: Arc<Followed>) {
    let mut backoff = Backoff::new();
    let mut lost = false;
    loop {
        if let Ok(mut subscription) = redis.subscribe(std::slice::from_ref(&channel)).await {
            lost = false;
            let _ = told.send(Heard::Subscribed).await;
            while let Ok((_, message)) = subscription.next().await {
                backoff.reset();
                let Ok(announcement) = Announcement::decode(message.as_slice()) else {
                    tracing::warn!(channel, "an announcement cannot be read");
                    continue;
                };
                figures.head.fetch_max(announcement.head, Relaxed);
                let _ = told.try_send(Heard::Announced(announcement, Instant::now()));
            }
        }
        if !std::mem::replace(&mut lost, true) {
            let _ = told.send(Heard::Lost).await;
        }
        sleep(backoff.next()).await;
    }
}
