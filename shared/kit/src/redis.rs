//! Redis: short waits, and connections that are thrown away once they fail.
//!
//! A command waits at most 100 ms for a connection and 250 ms for its answer; while Redis cannot be
//! reached at all, commands fail at once. Every failure is `DEPENDENCY_UNAVAILABLE`; nothing here
//! fails a start because Redis is down.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bb8::ManageConnection;
use bb8_redis::RedisConnectionManager;
use bb8_redis::redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use bb8_redis::redis::{Client, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, ToRedisArgs, Value, cmd};
use futures_util::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;

mod gather;

pub(crate) use self::gather::Gather;

const CHECKOUT: Duration = Duration::from_millis(100);
const RESPONSE: Duration = Duration::from_millis(250);
const SUBSCRIBE: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_ANSWER: Duration = Duration::from_secs(4);
/// How long commands fail at once after no connection could be had.
const PAUSE: Duration = Duration::from_millis(200);
const CONNECTIONS: u32 = 16;

/// One pooled connection, which many commands share, and what is known of its health.
struct Link {
    connection: MultiplexedConnection,
    generation: u64,
    broken: Arc<AtomicBool>,
}

impl Link {
    /// Whether it failed, or was made before the last breakdown.
    fn is_over(&self, generation: &AtomicU64) -> bool {
        self.broken.load(Ordering::Relaxed) || self.generation < generation.load(Ordering::Relaxed)
    }
}

/// bb8-redis' own manager never finds a connection broken; this one does after an I/O error, and
/// gives up all older connections with it: a restarted server closed them too.
struct Links {
    dialer: RedisConnectionManager,
    generation: Arc<AtomicU64>,
}

impl ManageConnection for Links {
    type Connection = Link;
    type Error = RedisError;

    async fn connect(&self) -> Result<Link, RedisError> {
        let generation = self.generation.load(Ordering::Relaxed);
        let mut connection = self.dialer.connect().await?;
        connection.set_response_timeout(RESPONSE);
        Ok(Link {
            connection,
            generation,
            broken: Arc::default(),
        })
    }

    async fn is_valid(&self, link: &mut Link) -> Result<(), RedisError> {
        self.dialer.is_valid(&mut link.connection).await
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.is_over(&self.generation)
    }
}

/// Why a command did not get its answer.
#[derive(Debug)]
enum Failure {
    /// No connection within [`CHECKOUT`], or none lately.
    NoConnection,
    Redis(RedisError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoConnection => f.write_str("no connection to redis"),
            // The kind and no more: an answer of the server may quote the command.
            Failure::Redis(error) => f.write_str(error.category()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::unavailable("redis", failure)
    }
}

struct Inner {
    pool: bb8::Pool<Links>,
    /// Connections made before this many breakdowns are not used any more.
    generation: Arc<AtomicU64>,
    client: Client,
    prefix: String,
    born: Instant,
    /// Milliseconds since `born` until which commands fail at once.
    paused_until: AtomicU64,
}

/// A handle to one Redis server under one key prefix, cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

impl Redis {
    /// A handle for this URL; connects when first used. `prefix` (`board3.<instance>`) stands before
    /// every key and channel, so that suites sharing a server do not hear each other.
    ///
    /// Must be called inside a Tokio runtime, which tends the pool.
    ///
    /// # Errors
    /// Says that the URL is none, without repeating it: it may hold a password.
    pub fn connect(url: &str, prefix: impl Into<String>) -> Result<Redis, String> {
        let not_a_url = |_| "must be a URL like redis://host:6379".to_owned();
        let client = Client::open(url).map_err(not_a_url)?;
        let generation = Arc::new(AtomicU64::new(0));
        let links = Links {
            dialer: RedisConnectionManager::new(url).map_err(not_a_url)?,
            generation: generation.clone(),
        };
        let pool = bb8::Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(CHECKOUT)
            .test_on_check_out(false)
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .build_unchecked(links);
        Ok(Redis(Arc::new(Inner {
            pool,
            generation,
            client,
            prefix: prefix.into(),
            born: Instant::now(),
            paused_until: AtomicU64::new(0),
        })))
    }

    /// The key or channel of these parts: `board3.<instance>.<part>.<part>`.
    #[must_use]
    pub fn key<S: AsRef<str>>(&self, parts: impl IntoIterator<Item = S>) -> String {
        let mut key = self.0.prefix.clone();
        for part in parts {
            key.push('.');
            key.push_str(part.as_ref());
        }
        key
    }

    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`, as every method here.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.query(cmd("GET").arg(key)).await
    }

    /// Sets a key for `ttl` (at least a millisecond): nothing is stored for ever.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`.
    pub async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), Error> {
        let command = &mut cmd("SET");
        self.query(command.arg(key).arg(value).arg("PX").arg(millis(ttl))).await
    }

    /// Lets a key live for `ttl` from now; answers whether it is there.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`.
    pub async fn touch(&self, key: &str, ttl: Duration) -> Result<bool, Error> {
        self.query(cmd("PEXPIRE").arg(key).arg(millis(ttl))).await
    }

    /// Deletes keys; answers how many there were.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`.
    pub async fn del(&self, keys: &[String]) -> Result<u64, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.query(cmd("DEL").arg(keys)).await
    }

    /// Publishes to a channel (made by [`Redis::key`]); answers how many connections heard it.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`.
    pub async fn publish(&self, channel: &str, message: &[u8]) -> Result<u64, Error> {
        self.query(cmd("PUBLISH").arg(channel).arg(message)).await
    }

    /// Asks whether Redis answers.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE` when it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.query::<Value>(&cmd("PING")).await.map(|_| ())
    }

    /// Runs a script by its hash, loading it where the server does not know it.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`.
    pub async fn eval<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: impl ToRedisArgs,
    ) -> Result<T, Error> {
        let mut command = cmd("EVALSHA");
        let hash = match script.hash.get() {
            Some(hash) => hash,
            None => {
                let hash = self.load(script).await?;
                script.hash.get_or_init(|| hash)
            }
        };
        command.arg(hash).arg(keys.len()).arg(keys).arg(args);
        match self.attempt(&command).await {
            Err(Failure::Redis(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.load(script).await?;
                self.query(&command).await
            }
            answer => Ok(answer?),
        }
    }

    /// Sends any other command. One whose connection breaks is sent once more, so commands and
    /// scripts must bear to run twice.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`, also when the server refuses the command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        Ok(self.attempt(command).await?)
    }

    /// Opens a connection of its own and subscribes to these channels (made by [`Redis::key`]);
    /// when it answers, the subscription is in force.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`.
    pub async fn subscribe(&self, channels: &[String]) -> Result<Subscription, Error> {
        let opening = async {
            let (mut sink, stream) = self.0.client.get_async_pubsub().await?.split();
            sink.subscribe(channels).await?;
            Ok((sink, stream))
        };
        let (sink, stream) = match timeout(SUBSCRIBE, opening).await {
            Ok(opened) => opened.map_err(Failure::Redis)?,
            Err(_) => return Err(Failure::NoConnection.into()),
        };
        let deaf = CancellationToken::new();
        let pinging = AbortOnDropHandle::new(tokio::spawn(keep_pinging(sink, deaf.clone())));
        Ok(Subscription {
            stream,
            deaf,
            _pinging: pinging,
        })
    }

    async fn load(&self, script: &Script) -> Result<String, Failure> {
        self.attempt(cmd("SCRIPT").arg("LOAD").arg(script.source)).await
    }

    async fn attempt<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let mut retried = false;
        loop {
            let link = self.checkout().await?;
            let (mut connection, generation) = (link.connection.clone(), link.generation);
            let broken = link.broken.clone();
            // Given back at once: the commands of many calls travel together.
            drop(link);
            let error = match command.query_async(&mut connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let dropped = error.is_connection_dropped();
            if error.is_io_error() || error.is_unrecoverable_error() {
                broken.store(true, Ordering::Relaxed);
            }
            if dropped {
                self.0.generation.fetch_max(generation + 1, Ordering::Relaxed);
            }
            if retried || !dropped {
                return Err(Failure::Redis(error));
            }
            retried = true;
        }
    }

    async fn checkout(&self) -> Result<bb8::PooledConnection<'_, Links>, Failure> {
        let now = || u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now() < self.0.paused_until.load(Ordering::Relaxed) {
            return Err(Failure::NoConnection);
        }
        loop {
            match self.0.pool.get().await {
                // Given back, an outlived connection is closed by `has_broken`.
                Ok(link) if link.is_over(&self.0.generation) => drop(link),
                Ok(link) => return Ok(link),
                Err(_) => {
                    // With connections open it was only crowded.
                    if self.0.pool.state().connections == 0 {
                        let until = now() + millis(PAUSE);
                        self.0.paused_until.store(until, Ordering::Relaxed);
                    }
                    return Err(Failure::NoConnection);
                }
            }
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.0.prefix)
    }
}

/// A Lua script and its hash, once a server told it; made to be a `static`.
#[derive(Debug)]
pub struct Script {
    source: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    /// A script; nothing is sent yet.
    #[must_use]
    pub const fn new(source: &'static str) -> Script {
        Script {
            source,
            hash: OnceLock::new(),
        }
    }
}

/// A connection that does nothing but listen; it ends rather than going deaf.
pub struct Subscription {
    stream: PubSubStream,
    deaf: CancellationToken,
    _pinging: AbortOnDropHandle<()>,
}

impl Subscription {
    /// The next message, with its channel. Safe to drop while it waits: no message is lost by that.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE` once the connection has ended or has left a PING unanswered (seen at
    /// most 9 s later): subscribe anew and fetch what was missed.
    pub async fn next(&mut self) -> Result<(String, Vec<u8>), Error> {
        let message = tokio::select! {
            biased;
            message = self.stream.next() => message,
            () = self.deaf.cancelled() => None,
        };
        let message = message.ok_or(Failure::NoConnection)?;
        let channel = message.get_channel_name().to_owned();
        Ok((channel, message.get_payload_bytes().to_vec()))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// Redis closes no connection that the network swallowed; only an unanswered PING tells.
async fn keep_pinging(mut sink: PubSubSink, deaf: CancellationToken) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if !matches!(timeout(PING_ANSWER, sink.ping::<Value>()).await, Ok(Ok(_))) {
            deaf.cancel();
            return;
        }
    }
}

/// A time to live in whole milliseconds, at least one: Redis refuses zero.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
