//! Waits between tries: doubling, jittered, bounded.

use std::time::Duration;

use crate::crypto;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// How long to wait before the next try.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Backoff(FIRST)
    }

    /// A wait of half to all of a span that doubles with each call, up to a second.
    pub(super) fn next(&mut self) -> Duration {
        let span = self.0;
        self.0 = (span * 2).min(LONGEST);
        let [part] = crypto::random::<1>();
        span.mul_f64(0.5 + f64::from(part) / 512.0)
    }

    /// Whether there was no failure since the last success.
    pub(super) fn is_fresh(&self) -> bool {
        self.0 == FIRST
    }

    pub(super) fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_never_exceed_a_second() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= LONGEST) && waits[19] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.is_fresh());
    }
}
