//! Cache-aside on Redis that never trades a newer value for an older one.
//!
//! Each value is stored with the version of its row. A reader that read the old row, stalled, and
//! comes to store it after the change finds the new version (or its tombstone) there and is turned
//! away. PostgreSQL stays the truth: with Redis away, every read goes through to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::crypto;
use crate::error::Error;
use crate::failpoint;
use crate::redis::{Redis, Script, millis};

/// How long a version outlives its value: longer than any call may take (60 s), so that no reader
/// who saw an older row can come after it.
const FENCE: Duration = Duration::from_secs(70);

const NO_ARGS: &[&str] = &[];

/// A hash per key: `v` version in 20 digits (compared as text: Lua's numbers end at 2^53), `b` body,
/// `e` the body's end in milliseconds. Without `b` it is a tombstone.
static READ: Script = Script::new(
    r"
local held = redis.call('HMGET', KEYS[1], 'v', 'e', 'b')
if not held[1] then return {0, '', ''} end
if held[2] and held[3] then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  if now < tonumber(held[2]) then return {1, held[1], held[3]} end
end
return {0, held[1], ''}
",
);

/// ARGV: version, body, milliseconds of the value, milliseconds of the version, 1 = compare versions.
static FILL: Script = Script::new(
    r"
local held = redis.call('HGET', KEYS[1], 'v')
if ARGV[5] == '1' and held and held > ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ends = string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'e', ends, 'b', ARGV[2])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(tonumber(ARGV[3]), tonumber(ARGV[4]))))
return 1
",
);

/// ARGV: version, milliseconds of the version. A value of this version is the fresh one and stays.
static INVALIDATE: Script = Script::new(
    r"
local held = redis.call('HMGET', KEYS[1], 'v', 'b')
if held[1] and (held[1] > ARGV[1] or (held[1] == ARGV[1] and held[2])) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
",
);

/// What became of the reads of one cache.
#[derive(Debug, Default)]
pub struct CacheStats {
    /// Reads that Redis answered.
    pub hits: AtomicU64,
    /// Reads that Redis had no value for.
    pub misses: AtomicU64,
    /// Reads that went past Redis because it was away.
    pub bypasses: AtomicU64,
}

/// What a load brought, for those who wait for the same key: version and body, or no such row.
type Loaded = Option<(i64, Vec<u8>)>;
type Flight = watch::Receiver<Option<Arc<Loaded>>>;

/// One cache: values of one type and shape under one name, cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    redis: Redis,
    name: &'static str,
    versioned: bool,
    flights: Mutex<HashMap<String, Flight>>,
    stats: Arc<CacheStats>,
}

/// The counters of every cache of this process, by name.
static NAMED: Mutex<BTreeMap<&'static str, Arc<CacheStats>>> = Mutex::new(BTreeMap::new());

pub(crate) fn stats_of(name: &'static str) -> Arc<CacheStats> {
    NAMED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(name)
        .or_default()
        .clone()
}

/// Hits, misses and bypasses by cache, for `/health/metrics`.
pub(crate) fn readings() -> Vec<(String, f64)> {
    let named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    let figures = named.iter().flat_map(|(name, stats)| {
        [
            ("hit", &stats.hits),
            ("miss", &stats.misses),
            ("bypass", &stats.bypasses),
        ]
        .map(|(kind, count)| {
            (
                format!("cache=\"{name}\",kind=\"{kind}\""),
                count.load(Ordering::Relaxed) as f64,
            )
        })
    });
    figures.collect()
}

impl Inner {
    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// The cache of this name (`designs.v1`: a new shape of the value takes a new name). The switch
    /// `cache_version.<name>` takes the comparison of versions away, for tests.
    #[must_use]
    pub fn new(redis: Redis, name: &'static str) -> Cache {
        Cache(Arc::new(Inner {
            redis,
            name,
            versioned: !failpoint::without(&format!("cache_version.{name}")),
            flights: Mutex::default(),
            stats: stats_of(name),
        }))
    }

    /// The cache's name, for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Counters of this cache.
    #[must_use]
    pub fn stats(&self) -> &CacheStats {
        &self.0.stats
    }

    /// The value of `key` (which must begin with the organization), from Redis or else from `load`,
    /// which reads the row and its version from the primary. Callers of the same key in this process
    /// share one load. The value then lives for `ttl`, give or take a tenth. Absent rows are not kept.
    ///
    /// # Errors
    /// Whatever `load` fails with; Redis never fails a read.
    pub async fn get_or_load<T, L>(
        &self,
        key: &str,
        ttl: Duration,
        load: impl FnOnce() -> L,
    ) -> Result<Option<T>, Error>
    where
        T: Serialize + DeserializeOwned,
        L: Future<Output = Result<Option<(T, i64)>, Error>>,
    {
        let key = self.0.redis.key(["cache", self.0.name, key]);
        let stats = &self.0.stats;
        // What this caller may already know to be there; a shared load must not be older.
        let mut floor = None;
        let mut reachable = true;
        match self.0.redis.eval(&READ, std::slice::from_ref(&key), NO_ARGS).await {
            Ok::<(i64, String, Vec<u8>), _>((found, version, body)) => {
                if found == 1
                    && let Ok(value) = serde_json::from_slice(&body)
                {
                    stats.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(value));
                }
                floor = version.parse::<i64>().ok();
                stats.misses.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                reachable = false;
                stats.bypasses.fetch_add(1, Ordering::Relaxed);
            }
        }

        let lead = match self.join(&key) {
            Ok(lead) => Some(lead),
            Err(mut flight) => {
                if let Some(value) = landed(&mut flight, floor).await {
                    return value;
                }
                // It failed, was cut off, or began before what this caller knows of.
                None
            }
        };
        let Some((value, version)) = load().await? else {
            if let Some(lead) = &lead {
                lead.land(None);
            }
            return Ok(None);
        };
        let body = serde_json::to_vec(&value).map_err(Error::internal)?;
        if let Some(lead) = &lead {
            lead.land(Some((version, body.clone())));
        }
        if reachable {
            self.fill(&key, version, &body, ttl).await;
        }
        Ok(Some(value))
    }

    /// Says that the row of `key` has this version now: older values go, and cannot come back.
    ///
    /// Call it after the commit, best for each event of the change: then a crash between the two
    /// leaves nothing stale. A deleted row has the version that its deletion made.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`; readers may see the old value until its time is over.
    pub async fn invalidate(&self, key: &str, version: i64) -> Result<(), Error> {
        let key = self.0.redis.key(["cache", self.0.name, key]);
        self.0.flights().remove(&key);
        let args = (digits(version), millis(FENCE));
        let keys = std::slice::from_ref(&key);
        self.0.redis.eval::<()>(&INVALIDATE, keys, args).await
    }

    async fn fill(&self, key: &String, version: i64, body: &[u8], ttl: Duration) {
        let compare = u8::from(self.0.versioned);
        let args = (digits(version), body, jittered(ttl), millis(FENCE), compare);
        // A value that could not be stored is loaded again: nothing is wrong.
        let _ = self.0.redis.eval::<()>(&FILL, std::slice::from_ref(key), args).await;
    }

    /// Either the right to load this key, or the load under way.
    fn join(&self, key: &str) -> Result<Lead<'_>, Flight> {
        let mut flights = self.0.flights();
        if let Some(flight) = flights.get(key) {
            return Err(flight.clone());
        }
        let (landing, flight) = watch::channel(None);
        flights.insert(key.to_owned(), flight);
        Ok(Lead {
            cache: &self.0,
            key: key.to_owned(),
            landing,
        })
    }
}

/// The one caller who loads a key; dropped without landing, the others load for themselves.
struct Lead<'a> {
    cache: &'a Inner,
    key: String,
    landing: watch::Sender<Option<Arc<Loaded>>>,
}

impl Lead<'_> {
    fn land(&self, loaded: Loaded) {
        self.landing.send_replace(Some(Arc::new(loaded)));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut flights = self.cache.flights();
        // After an invalidation another load of the key may be under way.
        let ours = flights.get(&self.key);
        if ours.is_some_and(|flight| flight.same_channel(&self.landing.subscribe())) {
            flights.remove(&self.key);
        }
    }
}

/// What somebody else's load brought, unless it is older than `floor`.
async fn landed<T: DeserializeOwned>(flight: &mut Flight, floor: Option<i64>) -> Option<Result<Option<T>, Error>> {
    let loaded = flight.wait_for(Option::is_some).await.ok()?.clone()?;
    match (&*loaded, floor) {
        (None, None) => Some(Ok(None)),
        (None, Some(_)) => None,
        (Some((version, _)), Some(floor)) if *version < floor => None,
        (Some((_, body)), _) => Some(serde_json::from_slice(body).map(Some).map_err(Error::internal)),
    }
}

/// A version as text that compares as the number does.
fn digits(version: i64) -> String {
    format!("{:020}", version.max(0))
}

/// Milliseconds within a tenth of `ttl`, so that what was stored together does not end together.
fn jittered(ttl: Duration) -> u64 {
    let share = u64::from(u16::from_le_bytes(crypto::random::<2>()));
    let ttl = millis(ttl);
    (ttl - ttl / 10 + ttl / 5 * share / u64::from(u16::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_to_live_differ_by_a_tenth_at_most() {
        let mut seen: Vec<u64> = (0..1_000).map(|_| jittered(Duration::from_secs(60))).collect();
        seen.sort_unstable();
        assert!(seen[0] >= 54_000 && seen[999] <= 66_000, "{seen:?}");
        assert!(seen[999] - seen[0] > 8_000);
        assert_eq!(jittered(Duration::ZERO), 1);
    }

    #[test]
    fn versions_compare_as_text_as_they_do_as_numbers() {
        let versions = [0, 1, 9, 10, 1 << 53, (1 << 53) + 1, i64::MAX];
        assert!(versions.windows(2).all(|pair| digits(pair[0]) < digits(pair[1])));
        assert_eq!(digits(-1), digits(0));
    }
}
