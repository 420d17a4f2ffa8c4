//! Answers that are made of many rows, kept in Redis for a minute.
//!
//! A view is kept with the moment before its rows were read and the names of what it shows. A transaction that changes one
//! of those names it ([`Tx::changes`](crate::db::Tx::changes)); right after its commit, and before its caller is answered,
//! the moment is noted under the name. A view that was begun before the last change of anything it shows is void, however
//! late it is stored. All moments are of Redis' one clock. PostgreSQL stays the truth: with Redis away every read goes
//! through to it, and a change that could not be noted shows within [`KEPT`].

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::cache::{CacheStats, stats_of};
use crate::error::Result;
use crate::failpoint;
use crate::redis::{Redis, Script, millis};

/// How long a view is kept.
pub const KEPT: Duration = Duration::from_secs(60);
/// How long a change is noted: longer than any call may take (60 s) and a view lives that it stored at its end.
const NOTED: Duration = Duration::from_secs(130);
/// How many views of one kind a process has opened; Redis says of each whether it is good.
const OPENED: NonZeroUsize = NonZeroUsize::new(1_000).expect("it is not zero");

/// A hash per view: `a` the moment in microseconds, `b` body, `p` the keys of what it shows.
/// ARGV: 1 = look at changes, the moment of the view that the process has. Answers the time, and the moment and the body of
/// what is good; no body, if the process has it.
static READ: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local held = redis.call('HMGET', KEYS[1], 'a', 'p')
if not held[1] then return {now, '', false} end
if ARGV[1] == '1' then
  for part in string.gmatch(held[2], '%S+') do
    local changed = redis.call('GET', part)
    if changed and tonumber(changed) >= tonumber(held[1]) then return {now, '', false} end
  end
end
if held[1] == ARGV[2] then return {now, held[1], false} end
return {now, held[1], redis.call('HGET', KEYS[1], 'b')}
",
);

/// ARGV: moment, body, keys of what it shows, milliseconds. Of two that were read at once, the younger stays.
static FILL: Script = Script::new(
    r"
local held = redis.call('HGET', KEYS[1], 'a')
if held and tonumber(held) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'a', ARGV[1], 'b', ARGV[2], 'p', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
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

/// What this process has of views: the moment of each, and what it says.
type Opened<T> = Mutex<LruCache<String, (String, Arc<T>)>>;

/// Views of one kind, cheap to clone.
#[derive(Clone)]
pub struct Views<T> {
    redis: Redis,
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
        let key = [self.redis.key(["view", self.name, key])];
        let ours = lock(&self.opened).get(&key[0]).cloned();
        let (our_moment, value) = ours.unzip();
        let args = (
            u8::from(self.look_at_changes),
            our_moment.as_deref().unwrap_or_default(),
        );
        type Read = (String, String, Option<Vec<u8>>);
        let begun = match self.redis.eval::<Read>(&READ, &key, args).await {
            Ok((now, moment, body)) => {
                let value = match body {
                    Some(body) => open(&body).map(Arc::new),
                    None => value.filter(|_| our_moment.as_ref() == Some(&moment)),
                };
                if let Some(value) = value {
                    self.stats.hits.fetch_add(1, Ordering::Relaxed);
                    if our_moment.as_ref() != Some(&moment) {
                        self.remember(&key[0], moment, &value);
                    }
                    return Ok(Some(value));
                }
                self.stats.misses.fetch_add(1, Ordering::Relaxed);
                Some(now)
            }
            Err(_) => {
                self.stats.bypasses.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        let Some(view) = load().await? else { return Ok(None) };
        let value = Arc::new(view.value);
        if let Some(begun) = begun {
            let parts: Vec<String> = view.shows.iter().map(|part| part_key(&self.redis, part)).collect();
            let args = (&begun, view.body, parts.join(" "), millis(KEPT));
            // A view that could not be stored is read again: nothing is wrong.
            if let Ok(1) = self.redis.eval::<i64>(&FILL, &key, args).await {
                self.remember(&key[0], begun, &value);
            }
        }
        Ok(Some(value))
    }

    /// How often Redis had what was asked for.
    #[must_use]
    pub fn stats(&self) -> &CacheStats {
        &self.stats
    }

    fn remember(&self, key: &str, moment: String, value: &Arc<T>) {
        lock(&self.opened).put(key.to_owned(), (moment, value.clone()));
    }
}

fn lock<T>(opened: &Opened<T>) -> MutexGuard<'_, LruCache<String, (String, Arc<T>)>> {
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
