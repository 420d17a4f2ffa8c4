//! How a transaction sends its statements: diesel's queries run on the guard itself.

use diesel::QueryResult;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel_async::{AsyncConnectionCore, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::{FutureExt, future::BoxFuture, stream::BoxStream};

use super::Tx;

impl SimpleAsyncConnection for Tx {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        let ahead = self.take_ahead();
        let mut pg = &self.connection.pg;
        match ahead {
            None => pg.batch_execute(query).await,
            Some(ahead) => pg.batch_execute(&format!("{ahead}; {query}")).await,
        }
    }
}

impl AsyncConnectionCore for Tx {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<Self::Stream<'conn, 'query>>>;
    type Stream<'conn, 'query> = BoxStream<'static, QueryResult<Self::Row<'conn, 'query>>>;
    type Row<'conn, 'query> = <AsyncPgConnection as AsyncConnectionCore>::Row<'conn, 'query>;
    type Backend = diesel::pg::Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Self::Backend> + QueryId + 'query,
    {
        let ahead = self.take_ahead();
        let pg: &'conn AsyncPgConnection = &self.connection.pg;
        let load = AsyncConnectionCore::load(&mut { pg }, source);
        joined(pg, ahead, load)
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Self::Backend> + QueryId + 'query,
    {
        let ahead = self.take_ahead();
        let pg: &'conn AsyncPgConnection = &self.connection.pg;
        let execute = AsyncConnectionCore::execute_returning_count(&mut { pg }, source);
        joined(pg, ahead, execute)
    }
}

/// Sends what is to go ahead directly before the statement, without waiting for its answer.
fn joined<'conn, T: Send + 'conn>(
    pg: &'conn AsyncPgConnection,
    ahead: Option<String>,
    statement: BoxFuture<'conn, QueryResult<T>>,
) -> BoxFuture<'conn, QueryResult<T>> {
    match ahead {
        None => statement,
        Some(ahead) => async move {
            let mut pg = pg;
            // The first is polled first, so it is first on the wire.
            let ((), answer) = futures_util::future::try_join(pg.batch_execute(&ahead), statement).await?;
            Ok(answer)
        }
        .boxed(),
    }
}
