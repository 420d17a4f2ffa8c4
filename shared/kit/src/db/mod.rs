//! The way to PostgreSQL: pools, the transaction guard, idempotency, migrations.
//!
//! There is no raw connection to be had: every statement runs in a [`Tx`], and every `Tx` begins with a scope.

use std::{sync::Arc, time::Duration};

use diesel_async::pooled_connection::PoolableConnection;
use prost::Message;
use tokio::sync::Notify;
use tonic::Response;

use crate::{
    auth::scope::Begins,
    crypto::KeyRing,
    error::{Error, Reason, Result},
    redis::Redis,
};

mod dial;
pub(crate) mod instrument;
pub mod migrate;
mod record;
pub mod requests;
pub mod schema;
mod tx;

pub(crate) use dial::Manager;
use dial::Outage;
pub use record::Refusal;
pub use tx::{About, Tx};

/// How long a caller waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// One login's pool on one database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: bb8::Pool<Manager>,
    outage: Outage,
    slice: &'static str,
    ring: Arc<KeyRing>,
    committed: Arc<Notify>,
    /// Where changes are noted that views show.
    redis: Option<Redis>,
}

/// What a pool holds and has waited for.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Open connections.
    pub connections: u32,
    /// Those not in use.
    pub idle: u32,
    /// Checkouts so far.
    pub checkouts: u64,
    /// Checkouts that had to wait.
    pub waited: u64,
    /// Checkouts that gave up.
    pub timed_out: u64,
    /// Connections closed as broken, those of unfinished transactions among them.
    pub broken: u64,
}

impl Db {
    /// A pool of at most `size` connections; none is opened before the first use.
    pub fn new(url: &str, size: u32, slice: &'static str, ring: Arc<KeyRing>, log_sql: bool) -> Self {
        let outage = Outage::default();
        let pool = bb8::Pool::builder()
            .max_size(size)
            .min_idle(1)
            .test_on_check_out(false)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1800))
            .connection_timeout(ACQUIRE_TIMEOUT)
            .build_unchecked(Manager {
                url: url.to_owned(),
                slice,
                log_sql,
                outage: outage.clone(),
            });
        Db {
            pool,
            outage,
            slice,
            ring,
            committed: Arc::new(Notify::new()),
            redis: None,
        }
    }

    /// Notes in this Redis what its transactions change of what [views](crate::views) show.
    pub fn noting(mut self, redis: Redis) -> Self {
        self.redis = Some(redis);
        self
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// DEPENDENCY_UNAVAILABLE with the driver's words as source.
    pub async fn ping(&self) -> Result<()> {
        use diesel_async::SimpleAsyncConnection;
        let mut connection = self.connection().await?;
        connection.pg.batch_execute("select 1").await?;
        Ok(())
    }

    /// Reads in one transaction. What is told or named in it is written with it, so an audited read leaves its row.
    pub async fn read<R>(&self, scope: &impl Begins, body: impl AsyncFnOnce(&mut Tx) -> Result<R>) -> Result<R> {
        let mut tx = self.begin(scope).await?;
        match body(&mut tx).await {
            Ok(answer) => {
                tx.commit().await?;
                Ok(answer)
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    /// Looks something up before the call's own transaction, and keeps nothing: no row, and no audit event of its own.
    pub async fn look<R>(&self, scope: &impl Begins, body: impl AsyncFnOnce(&mut Tx) -> Result<R>) -> Result<R> {
        let mut tx = self.begin(scope).await?;
        let found = body(&mut tx).await;
        tx.roll_back().await;
        found
    }

    /// Writes in one transaction: the rows, the audit event, what peers are told and the answer to the request id,
    /// together or not at all. A repeat of an earlier request id runs nothing and answers what was answered then.
    ///
    /// # Errors
    /// REQUEST_ID_REUSED with other arguments, SECRET_ALREADY_SHOWN where the answer cannot be shown twice,
    /// and whatever `body` answers; then nothing is kept.
    pub async fn write<R>(
        &self,
        scope: &impl Begins,
        body: impl AsyncFnOnce(&mut Tx) -> Result<R>,
    ) -> Result<Response<R>>
    where
        R: Message + Default,
    {
        let mut tx = self.begin(scope).await?;
        let outcome = match tx.claim().await {
            Ok(tx::Claim::Repeated(answer)) => {
                tx.roll_back().await;
                return Ok(Response::new(R::decode(answer.as_slice()).map_err(Error::internal)?));
            }
            Ok(tx::Claim::Fresh) => match body(&mut tx).await {
                Ok(answer) => tx.keep(&answer).await.map(|()| answer),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok(answer) => {
                tx.commit().await?;
                Ok(Response::new(answer))
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    /// A transaction with a scope. Dropped before it is committed or rolled back, its connection is closed, not reused.
    pub async fn begin(&self, scope: &impl Begins) -> Result<Tx> {
        let connection = self.connection().await?;
        Ok(Tx::new(
            connection,
            scope,
            self.slice,
            self.ring.clone(),
            self.committed.clone(),
            self.redis.clone(),
        ))
    }

    /// Completes after each commit that wrote to the outbox; the relay waits on it.
    pub(crate) fn committed(&self) -> Arc<Notify> {
        self.committed.clone()
    }

    /// Shares the relay's signal with another pool of the same slice.
    pub(crate) fn with_signal_of(mut self, other: &Db) -> Self {
        self.committed = other.committed.clone();
        self
    }

    /// The pool's figures.
    pub fn statistics(&self) -> Statistics {
        let state = self.pool.state();
        Statistics {
            connections: state.connections,
            idle: state.idle_connections,
            checkouts: state.statistics.get_direct + state.statistics.get_waited,
            waited: state.statistics.get_waited,
            timed_out: state.statistics.get_timed_out,
            broken: state.statistics.connections_closed_broken,
        }
    }

    /// The tenant that each pooled connection would show its next borrower: for tests, to see that it is none.
    #[cfg(debug_assertions)]
    pub async fn tenants_left(&self) -> Result<Vec<String>> {
        use diesel::{dsl::sql, sql_types::Text};
        use diesel_async::RunQueryDsl;
        let mut held = Vec::new();
        // All at once, so that each is another one.
        for _ in 0..self.pool.state().connections {
            held.push(self.connection().await?);
        }
        let mut tenants = Vec::new();
        for connection in &mut held {
            let tenant = diesel::select(sql::<Text>("coalesce(current_setting('app.org', true), '')"));
            tenants.push(tenant.get_result(&mut connection.pg).await?);
        }
        Ok(tenants)
    }

    /// The slice that the pool belongs to.
    pub fn slice(&self) -> &'static str {
        self.slice
    }

    async fn connection(&self) -> Result<bb8::PooledConnection<'static, Manager>> {
        loop {
            // The pool tells only that it waited in vain; whether there is nothing to wait for is known from the dialling.
            let mut connection = self.pool.get_owned().await.map_err(|_| {
                let outage = self.outage.now().filter(|_| self.pool.state().connections == 0);
                match outage {
                    Some(why) => Error::unavailable("postgres", why),
                    None => Error::new(Reason::Overloaded, "no database connection was free in time")
                        .retry_after(Duration::from_secs(1))
                        .with_source("pool checkout timed out"),
                }
            })?;
            // A connection that died while idle is closed on its way back; take another.
            if !connection.pg.is_broken() {
                return Ok(connection);
            }
        }
    }
}
