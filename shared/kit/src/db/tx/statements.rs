//! How a transaction sends its statements: diesel's queries run on the guard itself.

use diesel::QueryResult;
use diesel::pg::{Pg, PgQueryBuilder};
use diesel::query_builder::{AsQuery, AstPass, Query, QueryBuilder, QueryFragment, QueryId};
use diesel_async::{AsyncConnectionCore, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::{FutureExt, future::BoxFuture, stream::BoxStream};

use super::Tx;

/// The longest text, in bytes, that a connection keeps prepared.
const MOST_KEPT: usize = 2048;

/// A statement that each connection prepares once, known by its text.
///
/// diesel itself prepares everything anew that may have many texts, and takes every UPDATE and all SQL written by hand for that: its
/// parsing and planning then cost more than what it does. Ours have few texts, for values are always bound; only an INSERT of many
/// rows has another for each number of them, and is soon too long to be kept.
struct Kept<Q>(Q);

impl<Q> QueryId for Kept<Q> {
    type QueryId = ();
    // By the text: of what diesel does not keep, a type may have several.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Kept<Q> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Kept<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, pg: &Pg) -> QueryResult<bool> {
        if self.0.is_safe_to_cache_prepared(pg)? {
            return Ok(true);
        }
        let mut text = PgQueryBuilder::default();
        self.0.to_sql(&mut text, pg)?;
        Ok(text.finish().len() <= MOST_KEPT)
    }
}

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
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Self::Backend> + QueryId + 'query,
    {
        let ahead = self.take_ahead();
        let pg: &'conn AsyncPgConnection = &self.connection.pg;
        let load = AsyncConnectionCore::load(&mut { pg }, Kept(source.as_query()));
        joined(pg, ahead, load)
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Self::Backend> + QueryId + 'query,
    {
        let ahead = self.take_ahead();
        let pg: &'conn AsyncPgConnection = &self.connection.pg;
        let execute = AsyncConnectionCore::execute_returning_count(&mut { pg }, Kept(source));
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
