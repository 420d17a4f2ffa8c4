//! Rate limits by GCRA (ITU-T I.371): smooth, exact, one number per key.
//!
//! Several limits are checked in one step: a call that any of them refuses consumes none. Of one wide limit, a process
//! takes calls in bundles.
//! Each process keeps to the figures by itself, always, and all processes together through Redis. So nothing is unlimited
//! while Redis is away, and what a process let through before that still counts.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lru::LruCache;

use crate::error::{Error, Reason};
use crate::failpoint;
use crate::redis::{Redis, Script};

/// Keys that one process remembers while Redis is away; the longest unused goes first.
const LOCAL_KEYS: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not zero");

/// Of a wide limit a process takes this part of the burst at once, so that few of its calls ask Redis.
const BUNDLE: i64 = 64;
/// How long after the last bundle (microseconds) its calls may be made; then they are lost. The long run is never exceeded;
/// a burst may be, by one bundle for each further process that holds one.
const HELD_FOR: i64 = 10_000_000;

/// ARGV: microseconds now (0 = the server's clock), how many calls to take at most (-1 gives one back), then interval and
/// burst per key. Numbers are written with %.0f, for Lua's own way keeps 14 digits and these have 16.
static SCRIPT: Script = Script::new(
    r"
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local count, tats, remaining, wait = tonumber(ARGV[2]), {}, -1, 0
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  tats[i] = math.max(tonumber(redis.call('GET', key) or 0), now)
  local spare = now + burst * interval - tats[i]
  wait = math.max(wait, interval - spare)
  if count > 0 then count = math.max(math.min(count, math.floor(spare / interval)), 1) end
end
if count > 0 and wait > 0 then return {0, 0, wait} end
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local tat = math.max(tats[i] + count * interval, now)
  local left = math.floor((now + burst * interval - tat) / interval)
  if remaining < 0 or left < remaining then remaining = left end
  local life = math.ceil((tat - now) / 1000)
  if life > 0 then
    redis.call('SET', key, string.format('%.0f', tat), 'PX', string.format('%.0f', life))
  else
    redis.call('DEL', key)
  end
end
if count < 0 then return {1, 0, 0} end
return {count, remaining, 0}
",
);

/// So many calls a minute, of which `burst` may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Calls a minute in the long run; 0 is taken for 1.
    pub per_minute: u32,
    /// Calls at once after a long silence; 0 is taken for 1.
    pub burst: u32,
}

/// So many calls an hour, of which all may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourlyLimit(
    /// Calls an hour in the long run, and at once after a long silence; 0 is taken for 1.
    pub u32,
);

/// How fast calls may follow each other.
pub trait Pace: Copy + Send + Sync {
    /// Microseconds between two calls, rounded so that the limit is never exceeded.
    fn interval(self) -> i64;
    /// Calls at once after a long silence.
    fn burst(self) -> i64;
}

impl Pace for Limit {
    fn interval(self) -> i64 {
        60_000_000_i64.div_euclid(i64::from(self.per_minute.max(1)))
            + i64::from(60_000_000 % self.per_minute.max(1) != 0)
    }

    fn burst(self) -> i64 {
        i64::from(self.burst.max(1))
    }
}

impl Pace for HourlyLimit {
    fn interval(self) -> i64 {
        let calls = i64::from(self.0.max(1));
        3_600_000_000_i64.div_euclid(calls) + i64::from(3_600_000_000 % calls != 0)
    }

    fn burst(self) -> i64 {
        i64::from(self.0.max(1))
    }
}

/// What the limits say about one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may go on; only then was anything consumed.
    pub allowed: bool,
    /// How many more calls may follow at once under the tightest limit.
    pub remaining: u32,
    /// When the same call would be allowed; zero if it is.
    pub retry_after: Duration,
}

impl Decision {
    fn new(allowed: bool, remaining: i64, wait_micros: i64) -> Decision {
        Decision {
            allowed,
            remaining: u32::try_from(remaining).unwrap_or(0),
            retry_after: Duration::from_micros(u64::try_from(wait_micros).unwrap_or(0)),
        }
    }

    /// Nothing if the call is allowed.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time to wait.
    pub fn into_result(self) -> Result<(), Error> {
        if self.allowed {
            return Ok(());
        }
        Err(Error::new(Reason::RateLimited, "too many calls").retry_after(self.retry_after))
    }
}

/// Checks calls against limits that all processes share through Redis.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    redis: Redis,
    local: Mutex<LruCache<String, i64>>,
    /// Calls that Redis let through and that were not made yet, and until when they may be.
    held: Mutex<LruCache<String, (i64, i64)>>,
    local_checks: AtomicU64,
}

impl Limiter {
    /// A limiter whose keys lie under `rate` in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Limiter {
        Limiter(Arc::new(Inner {
            redis,
            local: Mutex::new(LruCache::new(LOCAL_KEYS)),
            held: Mutex::new(LruCache::new(LOCAL_KEYS)),
            local_checks: AtomicU64::new(0),
        }))
    }

    /// Takes one call from each limit, or none if any of them has nothing left.
    ///
    /// The same name must always come with the same limit. Names must hold no secret and no personal
    /// text: hash what identifies somebody.
    ///
    /// The switch `rate.local` takes the process's own count away, for tests.
    pub async fn check<P: Pace>(&self, limits: &[(String, P)]) -> Decision {
        self.run(limits, 0, 1).await
    }

    /// Gives back what an allowed call took, as after a login that succeeded.
    pub async fn refund<P: Pace>(&self, limits: &[(String, P)]) {
        self.run(limits, 0, -1).await;
    }

    /// As [`Limiter::check`] at a given moment, for tests: microseconds since 1970, not 0.
    #[doc(hidden)]
    pub async fn check_at<P: Pace>(&self, limits: &[(String, P)], now_micros: i64) -> Decision {
        self.run(limits, now_micros, 1).await
    }

    /// How many checks this process decided alone, because Redis was away.
    #[must_use]
    pub fn local_checks(&self) -> u64 {
        self.0.local_checks.load(Ordering::Relaxed)
    }

    async fn run<P: Pace>(&self, limits: &[(String, P)], now: i64, sign: i64) -> Decision {
        if limits.is_empty() {
            return Decision::new(true, i64::from(u32::MAX), 0);
        }
        let alone = self.locally(limits, now, sign);
        if !alone.allowed && !failpoint::without("rate.local") {
            return alone;
        }
        // One limit alone may be taken from in bundles.
        let bundle = match limits {
            [(_, limit)] if sign > 0 => (limit.burst() / BUNDLE).max(1),
            _ => sign,
        };
        if bundle > 1 && self.make_held(&limits[0].0, now) {
            return alone;
        }
        let redis = &self.0.redis;
        let keys: Vec<String> = limits.iter().map(|(name, _)| redis.key(["rate", name])).collect();
        let mut args = vec![now, bundle];
        for (_, limit) in limits {
            args.extend([limit.interval(), limit.burst()]);
        }
        match redis.eval::<(i64, i64, i64)>(&SCRIPT, &keys, &args).await {
            Ok((taken, remaining, wait)) => {
                if taken < 1 {
                    self.locally(limits, now, -1);
                }
                if taken > 1 {
                    self.hold(&limits[0].0, taken - 1, now);
                }
                let remaining = (remaining + (taken - 1).max(0)).min(i64::from(alone.remaining));
                Decision::new(taken >= 1, remaining, wait)
            }
            Err(_) => {
                self.0.local_checks.fetch_add(1, Ordering::Relaxed);
                Decision {
                    allowed: alone.allowed || failpoint::without("rate.local"),
                    ..alone
                }
            }
        }
    }

    /// Makes one of the calls that were taken from Redis before, if there is one.
    fn make_held(&self, name: &str, now: i64) -> bool {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(name) {
            Some((calls, until)) if *calls > 0 && or_clock(now) < *until => {
                *calls -= 1;
                true
            }
            _ => false,
        }
    }

    fn hold(&self, name: &str, calls: i64, now: i64) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let until = or_clock(now) + HELD_FOR;
        let (sum, end) = held.get_or_insert_mut(name.to_owned(), || (0, until));
        // Calls that came meanwhile may have taken others; what has ended is not added to.
        *sum = if *end > or_clock(now) { *sum + calls } else { calls };
        *end = until;
    }

    /// What this process alone says.
    fn locally<P: Pace>(&self, limits: &[(String, P)], now: i64, sign: i64) -> Decision {
        let now = or_clock(now);
        let mut local = self.0.local.lock().unwrap_or_else(PoisonError::into_inner);
        gcra(&mut local, limits, now, sign)
    }
}

fn or_clock(now: i64) -> i64 {
    if now == 0 { micros_since_1970() } else { now }
}

fn micros_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// What the script does for one call, in this process.
fn gcra<P: Pace>(tats: &mut LruCache<String, i64>, limits: &[(String, P)], now: i64, sign: i64) -> Decision {
    let mut next = Vec::with_capacity(limits.len());
    let (mut remaining, mut wait) = (i64::MAX, 0);
    for (name, limit) in limits {
        let interval = limit.interval();
        let tat = tats.get(name).map_or(now, |tat| now.max(*tat));
        if sign < 0 {
            next.push(now.max(tat - interval));
            remaining = 0;
        } else {
            next.push(tat + interval);
            let spare = now + limit.burst() * interval - (tat + interval);
            wait = wait.max(-spare);
            remaining = remaining.min(spare.max(0) / interval);
        }
    }
    if wait > 0 {
        return Decision::new(false, 0, wait);
    }
    for ((name, _), tat) in limits.iter().zip(next) {
        if tat > now {
            tats.put(name.clone(), tat);
        } else {
            tats.pop(name);
        }
    }
    Decision::new(true, remaining, 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const START: i64 = 1_800_000_000_000_000;

    fn limit(name: &str, per_minute: u32, burst: u32) -> (String, Limit) {
        (name.to_owned(), Limit { per_minute, burst })
    }

    #[test]
    fn a_burst_passes_and_then_one_call_per_interval() {
        let mut tats = LruCache::new(LOCAL_KEYS);
        let limits = [limit("a", 60, 3)];
        let mut at = |micros: i64| gcra(&mut tats, &limits, START + micros, 1);
        assert_eq!(at(0), Decision::new(true, 2, 0));
        assert_eq!(at(0), Decision::new(true, 1, 0));
        assert_eq!(at(0), Decision::new(true, 0, 0));
        assert_eq!(at(0), Decision::new(false, 0, 1_000_000));
        assert_eq!(at(999_999), Decision::new(false, 0, 1));
        assert_eq!(at(1_000_000), Decision::new(true, 0, 0));
        assert_eq!(at(60_000_000), Decision::new(true, 2, 0));
    }

    #[test]
    fn a_refused_call_consumes_nothing_of_any_limit() {
        let mut tats = LruCache::new(LOCAL_KEYS);
        let (tight, wide) = (limit("tight", 60, 1), limit("wide", 60, 10));
        let both = [wide.clone(), tight];
        assert!(gcra(&mut tats, &both, START, 1).allowed);
        for _ in 0..100 {
            assert!(!gcra(&mut tats, &both, START, 1).allowed);
        }
        assert_eq!(gcra(&mut tats, &[wide], START, 1), Decision::new(true, 8, 0));
    }

    #[test]
    fn a_refund_gives_back_one_call_and_never_more_than_the_burst() {
        let mut tats = LruCache::new(LOCAL_KEYS);
        let limits = [limit("a", 60, 2)];
        assert!(gcra(&mut tats, &limits, START, 1).allowed);
        assert!(gcra(&mut tats, &limits, START, 1).allowed);
        gcra(&mut tats, &limits, START, -1);
        assert_eq!(gcra(&mut tats, &limits, START, 1), Decision::new(true, 0, 0));
        for _ in 0..9 {
            gcra(&mut tats, &limits, START, -1);
        }
        assert_eq!(gcra(&mut tats, &limits, START, 1), Decision::new(true, 1, 0));
    }

    #[test]
    fn in_the_long_run_the_limit_is_never_exceeded() {
        for per_minute in [1, 7, 59, 61, 1_000, 70_001] {
            let mut tats = LruCache::new(LOCAL_KEYS);
            let limits = [limit("a", per_minute, 5)];
            let step = (60_000_000 / i64::from(per_minute) / 3).max(1);
            let calls = (600_000_000 / step).min(20_000);
            let span = step * calls;
            let allowed = (0..calls)
                .filter(|call| gcra(&mut tats, &limits, START + call * step, 1).allowed)
                .count();
            let most = 5 + span * i64::from(per_minute) / 60_000_000;
            let allowed = i64::try_from(allowed).unwrap();
            assert!(
                (most * 98 / 100..=most + 1).contains(&allowed),
                "{per_minute}: {allowed} of {most}"
            );
        }
    }

    #[test]
    fn an_hourly_limit_gives_one_call_back_per_part_of_an_hour() {
        let mut tats = LruCache::new(LOCAL_KEYS);
        let limits = [("a".to_owned(), HourlyLimit(3))];
        let mut at = |minutes: i64| gcra(&mut tats, &limits, START + minutes * 60_000_000, 1).allowed;
        assert_eq!([at(0), at(0), at(0), at(0), at(19)], [true, true, true, false, false]);
        assert_eq!([at(20), at(20), at(39), at(40)], [true, false, false, true]);
    }

    #[test]
    fn zeros_in_a_limit_are_taken_for_ones() {
        let mut tats = LruCache::new(LOCAL_KEYS);
        let limits = [limit("a", 0, 0)];
        assert!(gcra(&mut tats, &limits, START, 1).allowed);
        assert_eq!(gcra(&mut tats, &limits, START, 1), Decision::new(false, 0, 60_000_000));
    }
}
