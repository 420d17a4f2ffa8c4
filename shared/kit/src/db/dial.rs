//! Makes a pool's connections, and remembers why it could not.
//!
//! Of a failure only its kind is told: the driver's words may hold the URL, and with it the password.

use std::{
    error::Error as StdError,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use diesel_async::{AsyncConnection, AsyncPgConnection, pooled_connection::PoolableConnection};

use super::instrument;
use crate::failpoint;

/// A server that takes the connection and says nothing is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that knows whether a transaction is open on it.
pub(crate) struct Connection {
    pub(crate) pg: AsyncPgConnection,
    pub(crate) open: bool,
}

/// Makes connections, and refuses to take one back that has a transaction open.
pub(crate) struct Manager {
    pub(super) url: String,
    pub(super) slice: &'static str,
    pub(super) log_sql: bool,
    pub(super) outage: Outage,
}

/// Why the last connection could not be made; nothing while they can.
#[derive(Clone, Default)]
pub(super) struct Outage(Arc<Mutex<Option<Unreachable>>>);

/// The kind of failure: a SQLSTATE, or what kind of I/O failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable(String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to PostgreSQL: {}", self.0)
    }
}

impl StdError for Unreachable {}

impl From<tokio_postgres::Error> for Unreachable {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(state) = error.code() {
            return Unreachable(format!("SQLSTATE {}", state.code()));
        }
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        Unreachable(io.map_or_else(|| "the driver gave up".to_owned(), |io| io.kind().to_string()))
    }
}

impl Outage {
    pub(super) fn now(&self) -> Option<Unreachable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how an attempt went; an outage is logged once, and so is its end.
    fn note(&self, slice: &'static str, failed: Option<&Unreachable>) {
        let before = std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            failed.cloned(),
        );
        match (before, failed) {
            (None, Some(failed)) => tracing::warn!(slice, why = failed.0, "PostgreSQL cannot be reached"),
            (Some(_), None) => tracing::info!(slice, "PostgreSQL is reached again"),
            _ => {}
        }
    }
}

impl Manager {
    async fn dial(&self) -> Result<AsyncPgConnection, Unreachable> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
        AsyncPgConnection::try_from_client_and_connection(client, connection)
            .await
            .map_err(|_| Unreachable("the session cannot be set up".to_owned()))
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Unreachable;

    async fn connect(&self) -> Result<Connection, Unreachable> {
        let dialled = match tokio::time::timeout(CONNECT_TIMEOUT, self.dial()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Unreachable(format!("no answer in {} s", CONNECT_TIMEOUT.as_secs()))),
        };
        self.outage.note(self.slice, dialled.as_ref().err());
        let mut pg = dialled?;
        pg.set_instrumentation(instrument::Queries {
            log: self.log_sql,
            started: None,
        });
        Ok(Connection { pg, open: false })
    }

    async fn is_valid(&self, _: &mut Connection) -> Result<(), Unreachable> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        // A transaction that was dropped half-way still holds its tenant's settings: the next borrower must not see them.
        (connection.open && !failpoint::without("tx_guard")) || connection.pg.is_broken()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{crypto::KeyRing, db::Db, error::Reason};

    #[tokio::test]
    async fn a_database_that_is_not_there_is_named_with_the_cause_and_without_the_password() {
        // Taken, then free again: nobody listens.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let ring = Arc::new(KeyRing::parse(&"01".repeat(32), "").unwrap());
        let url = format!("postgresql://board3:hunter2@127.0.0.1:{port}/board3");
        let error = Db::new(&url, 2, "designs", ring, false).ping().await.unwrap_err();
        assert_eq!(error.reason(), Reason::DependencyUnavailable);
        let told = format!("{error:?}");
        assert!(
            told.contains("connection refused") && !told.contains("hunter2"),
            "{told}"
        );
    }
}
