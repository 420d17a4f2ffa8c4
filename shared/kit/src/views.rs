//! Answers that are made of many rows, kept in Redis for a minute.
//!
//! A view is kept with the moment before its rows were read and the names of what it shows. A transaction that changes one
//! of those names it ([`Tx::changes`](crate::db::Tx::changes)); right after its commit, and before its caller is answered,
//! the moment is noted under the name. A view that was begun before the last change of anything it shows is void, however
//! late it is stored. All moments are of Redis' one clock. PostgreSQL stays the truth: with Redis away every read goes
//! through to it, and a change that could not be noted shows within [`KEPT`].

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::cache::{CacheStats, stats_of};
use crate::error::Result;
use crate::failpoint;
use crate::redis::{Gather, Redis, Script, millis};

/// How long a view is kept.
pub const KEPT: Duration = Duration::from_secs(60);
/// How long a change is noted: longer than any call may take (60 s) and a view lives that it stored at its end.
const NOTED: Duration = Duration::from_secs(130);
/// How many views of one kind a process has opened; Redis says of each whether it is good.
const OPENED: NonZeroUsize = NonZeroUsize::new(1_000).expect("it is not zero");

/// A hash per view: `a` the moment in microseconds, `b` body, `p` the keys of what it shows.
/// ARGV: 1 = look at changes. Answers the time, and moment, body and what it shows of a view that is good.
static READ: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local held = redis.call('HMGET', KEYS[1], 'a', 'b', 'p')
if not held[1] then return {now, false} end
if ARGV[1] == '1' then
  for part in string.gmatch(held[3], '%S+') do
    local changed = redis.call('GET', part)
    if changed and tonumber(changed) >= tonumber(held[1]) then return {now, false} end
  end
end
return {now, {held[1], held[2], held[3]}}
",
);

/// KEYS: the view, and its moment alone, which lives as long.
/// ARGV: moment, body, keys of what it shows, milliseconds. Of two that were read at once, the younger stays.
static FILL: Script = Script::new(
    r"
local held = redis.call('HGET', KEYS[1], 'a')
if held and tonumber(held) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'a', ARGV[1], 'b', ARGV[2], 'p', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[4])
return 1
",
);

/// ARGV: milliseconds.
static NOTE: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
for _, part in ipairs(KEYS) do redis.call('SET', part, now, 'PX', ARGV[1]) end
return 1
",
);

/// A view as it was read from the rows.
#[derive(Debug)]
pub struct View<T> {
    /// What it says.
    pub value: T,
    /// The same as it is kept; sealed, if it tells of persons.
    pub body: Vec<u8>,
    /// The names of what it shows, as transactions name it when they change it: no blanks.
    pub shows: Vec<String>,
}

/// A view as this process has it.
struct Held<T> {
    value: Arc<T>,
    /// In microseconds, by Redis' clock.
    moment: i64,
    /// The key of the moment, then those of what the view shows.
    keys: Vec<String>,
}

/// What became of a look into Redis.
enum Found<T> {
    Good(Arc<T>),
    /// And what time it was.
    Nothing(i64),
}

/// What this process has of views.
type Opened<T> = Mutex<LruCache<String, Arc<Held<T>>>>;

/// Views of one kind, cheap to clone.
#[derive(Clone)]
pub struct Views<T> {
    redis: Redis,
    moments: Gather,
    name: &'static str,
    look_at_changes: bool,
    opened: Arc<Opened<T>>,
    stats: Arc<CacheStats>,
}

impl<T> Views<T> {
    /// The views of this name (`me.v1`: a new shape of the body takes a new name). The switch `view_changes.<name>` takes
    /// the look at changes away, for tests.
    #[must_use]
    pub fn new(redis: Redis, name: &'static str) -> Self {
        Views {
            moments: Gather::new(redis.clone()),
            redis,
            name,
            look_at_changes: !failpoint::without(&format!("view_changes.{name}")),
            opened: Arc::new(Mutex::new(LruCache::new(OPENED))),
            stats: stats_of(name),
        }
    }

    /// What the view of `key` says, from Redis by `open` or else from `load`, which reads rows of the primary. Absent ones
    /// are not kept.
    ///
    /// # Errors
    /// Whatever `load` fails with; Redis never fails a read.
    pub async fn get_or_load<L>(
        &self,
        key: &str,
        open: impl FnOnce(&[u8]) -> Option<T>,
        load: impl FnOnce() -> L,
    ) -> Result<Option<Arc<T>>>
    where
        L: Future<Output = Result<Option<View<T>>>>,
    {
        let keys = [
            self.redis.key(["view", self.name, key]),
            self.redis.key(["view_moment", self.name, key]),
        ];
        let found = match self.held(&keys[0]).await {
            Ok(Some(value)) => Ok(Found::Good(value)),
            Ok(None) => self.read(&keys, open).await,
            Err(error) => Err(error),
        };
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let begun = match found {
            Ok(Found::Good(value)) => {
                count(&self.stats.hits);
                return Ok(Some(value));
            }
            Ok(Found::Nothing(now)) => {
                count(&self.stats.misses);
                Some(now)
            }
            Err(_) => {
                count(&self.stats.bypasses);
                None
            }
        };
        let Some(view) = load().await? else { return Ok(None) };
        let value = Arc::new(view.value);
        if let Some(begun) = begun {
            let parts: Vec<String> = view.shows.iter().map(|part| part_key(&self.redis, part)).collect();
            let parts = parts.join(" ");
            let args = (begun, view.body, &parts, millis(KEPT));
            // A view that could not be stored is read again: nothing is wrong.
            if let Ok(1) = self.redis.eval::<i64>(&FILL, &keys, args).await {
                self.remember(&keys, begun, &parts, &value);
            }
        }
        Ok(Some(value))
    }

    /// What this process has of a view, if Redis has no other one and knows of no change: asked together with other reads.
    async fn held(&self, key: &str) -> Result<Option<Arc<T>>> {
        let Some(held) = lock(&self.opened).get(key).cloned() else {
            return Ok(None);
        };
        let parts = if self.look_at_changes { held.keys.len() } else { 1 };
        let mut moments = self.moments.get(&held.keys[..parts]).await?.into_iter();
        let same = moments.next().flatten() == Some(held.moment);
        let good = same && moments.flatten().all(|changed| changed < held.moment);
        Ok(good.then(|| held.value.clone()))
    }

    /// What Redis has of a view, if it is good.
    async fn read(&self, keys: &[String; 2], open: impl FnOnce(&[u8]) -> Option<T>) -> Result<Found<T>> {
        type Kept = (i64, Vec<u8>, String);
        let look = u8::from(self.look_at_changes);
        let (now, kept) = self.redis.eval::<(i64, Option<Kept>)>(&READ, &keys[..1], look).await?;
        let opened = kept.and_then(|(moment, body, parts)| Some((moment, open(&body)?, parts)));
        Ok(match opened {
            Some((moment, value, parts)) => {
                let value = Arc::new(value);
                self.remember(keys, moment, &parts, &value);
                Found::Good(value)
            }
            None => Found::Nothing(now),
        })
    }

    /// How often Redis had what was asked for.
    #[must_use]
    pub fn stats(&self) -> &CacheStats {
        &self.stats
    }

    fn remember(&self, [key, moment_key]: &[String; 2], moment: i64, parts: &str, value: &Arc<T>) {
        let parts = parts.split_whitespace().map(str::to_owned);
        let held = Held {
            value: value.clone(),
            moment,
            keys: std::iter::once(moment_key.clone()).chain(parts).collect(),
        };
        lock(&self.opened).put(key.clone(), Arc::new(held));
    }
}

fn lock<T>(opened: &Opened<T>) -> MutexGuard<'_, LruCache<String, Arc<Held<T>>>> {
    opened.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that these have changed just now.
pub(crate) async fn note(redis: &Redis, changed: &[String]) {
    let keys: Vec<String> = changed.iter().map(|part| part_key(redis, part)).collect();
    if let Err(error) = redis.eval::<()>(&NOTE, &keys, millis(NOTED)).await {
        tracing::warn!(%error, "a change could not be noted; views show it within a minute");
    }
}

fn part_key(redis: &Redis, part: &str) -> String {
    redis.key(["changed", part])
}
