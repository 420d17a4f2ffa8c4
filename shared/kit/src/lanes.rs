//! Where calls about one thing wait for each other, before they take anything that others need.

use tokio::sync::{Mutex, MutexGuard};

/// So many lines; things that share one wait for each other too.
#[derive(Default)]
pub struct Lanes([Mutex<()>; 32]);

impl Lanes {
    /// The turn of the thing of this key, whose last byte is as good as random: a digest, or a UUID.
    pub async fn enter(&self, key: &[u8]) -> MutexGuard<'_, ()> {
        let lane = key.last().copied().map_or(0, usize::from) % self.0.len();
        self.0[lane].lock().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_has_the_same_key_waits_and_another_does_not() {
        let lanes = Lanes::default();
        let first = lanes.enter(&[1, 7]).await;
        drop(lanes.enter(&[1, 8]).await);
        let second = tokio::time::timeout(Duration::from_millis(1), lanes.enter(&[1, 7])).await;
        assert!(second.is_err());
        drop(first);
        lanes.enter(&[1, 7]).await;
    }
}
