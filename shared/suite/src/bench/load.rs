//! Calls made again and again: how many a second, and how long each took.

use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::future::try_join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A channel of one connection.
pub(super) fn channel(address: &str) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect_lazy())
}

/// A message in somebody's name.
pub(super) fn with<M>(message: M, credential: &str) -> Request<M> {
    let mut request = Request::new(message);
    if let Ok(value) = format!("Bearer {credential}").parse() {
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// How many calls a second so many callers make together, each the next when it was answered.
pub(super) async fn throughput(
    callers: usize,
    channels: &[Channel],
    long: Duration,
    call: impl AsyncFn(Channel) -> Result<(), Status>,
) -> Result<f64> {
    let began = Instant::now();
    let made = (0..callers).map(async |n| {
        let (channel, mut made) = (channels[n % channels.len()].clone(), 0_u64);
        while began.elapsed() < long {
            call(channel.clone()).await?;
            made += 1;
        }
        Ok::<_, Status>(made)
    });
    let made = try_join_all(made)
        .await
        .map_err(|status| anyhow!("a call failed: {status:?}"))?;
    Ok(made.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64())
}

/// How long each of so many calls took, one after the other, at most one in `pace`.
///
/// Each is due at its own time: a call that comes late because the one before took long counts from when it was due.
pub(super) async fn paced(
    calls: usize,
    pace: Duration,
    call: impl AsyncFn() -> Result<(), Status>,
) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(calls);
    let mut due = Instant::now();
    for _ in 0..calls {
        sleep_until(due).await;
        call().await.map_err(|status| anyhow!("a call failed: {status:?}"))?;
        took.push(due.elapsed());
        due += pace;
    }
    Ok(took)
}

/// Makes a call every `pace`, whether or not the others were answered, until it is dropped; answers are counted.
pub(super) async fn flood<F: Future<Output = ()> + Send + 'static>(pace: Duration, call: impl Fn(u64) -> F) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open = tokio::task::JoinSet::new();
    for n in 0.. {
        ticks.tick().await;
        while open.try_join_next().is_some() {}
        open.spawn(call(n));
    }
}

/// The duration that so many percent of all are not longer than.
pub(super) fn percentile(took: &mut [Duration], percent: usize) -> Duration {
    took.sort_unstable();
    let last = took.len().saturating_sub(1);
    took.get(last * percent / 100).copied().unwrap_or_default()
}

/// As a number of milliseconds.
pub(super) fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let mut took: Vec<Duration> = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut took, 50), Duration::from_millis(51));
        assert_eq!(percentile(&mut took, 99), Duration::from_millis(100));
        assert_eq!(percentile(&mut [], 99), Duration::ZERO);
    }
}
