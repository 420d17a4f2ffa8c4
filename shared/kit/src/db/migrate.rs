//! Migrations of a slice: kit's own (`migrations/kit`) first, then the slice's, as one list with unique versions.
//!
//! They run as the slice's owner in the slice's schema, one process at a time, each in a transaction of its own.
//! Nothing here gives a role a right in another slice.

use std::collections::HashSet;
use std::fmt;

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

/// Roles, schemas and `board3.tenant_table`, as an administrator's login runs it.
pub const SLICES_SQL: &str = include_str!("../../../../migrations/slices.sql");

const KIT: EmbeddedMigrations = embed_migrations!("../../migrations/kit");

/// A service's schema with the migrations that make it.
pub struct Slice {
    /// The schema and the middle of its roles' names, for example `terraform_state`.
    pub name: &'static str,
    /// The slice's own migrations, without kit's.
    pub migrations: EmbeddedMigrations,
}

impl Slice {
    /// The role that owns the schema and runs migrations: no login, entered by SET ROLE.
    pub fn owner(&self) -> String {
        format!("board3_{}_owner", self.name)
    }

    /// The role that RPCs use.
    pub fn app(&self) -> String {
        format!("board3_{}_app", self.name)
    }

    /// The role that relays, consumers and schedulers use.
    pub fn worker(&self) -> String {
        format!("board3_{}_worker", self.name)
    }

    /// Versions in the order in which they run; those of the database are compared with these for readiness.
    pub fn versions(&self) -> Result<Vec<String>, Error> {
        Ok(self.list()?.iter().map(|m| m.name().version().to_string()).collect())
    }

    fn list(&self) -> Result<Vec<Box<dyn Migration<Pg>>>, Error> {
        merged(&KIT, &self.migrations)
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a database could not be prepared or migrated.
#[derive(Debug)]
pub enum Error {
    /// The database did not take the connection.
    Connect(Box<dyn std::error::Error + Send + Sync>),
    /// A statement around the migrations failed, for example SET ROLE or the wait for another process.
    Statement(Box<dyn std::error::Error + Send + Sync>),
    /// Two migrations of one slice have this version.
    DuplicateVersion(String),
    /// This migration failed and was rolled back; those before it stand.
    Migration(String, Box<dyn std::error::Error + Send + Sync>),
    /// The database has run a migration that this program does not know, so it cannot revert it.
    UnknownVersion(String),
    /// The thread that ran the migrations is gone.
    Interrupted(tokio::task::JoinError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect(_) => f.write_str("the database cannot be reached for migrations"),
            Error::Statement(_) => f.write_str("the database refused to be prepared for migrations"),
            Error::DuplicateVersion(version) => write!(f, "two migrations have version {version}"),
            Error::Migration(name, _) => write!(f, "migration {name} failed"),
            Error::UnknownVersion(version) => write!(f, "migration {version} is not known to this program"),
            Error::Interrupted(_) => f.write_str("migrations were interrupted"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Connect(source) | Error::Statement(source) | Error::Migration(_, source) => Some(source.as_ref()),
            Error::Interrupted(source) => Some(source),
            Error::DuplicateVersion(_) | Error::UnknownVersion(_) => None,
        }
    }
}

/// Makes roles, schemas and `board3.tenant_table` in the database of `admin_url`; repeatable.
pub async fn prepare(admin_url: &str) -> Result<(), Error> {
    let client = connect(admin_url).await?;
    client.batch_execute(SLICES_SQL).await.map_err(statement)
}

/// Runs what is pending and answers the versions that ran, in order.
///
/// `migrate_url` logs in as a member of the slice's owner role. A second process waits for the first, at most a minute.
pub async fn up(migrate_url: &str, slice: &'static Slice) -> Result<Vec<String>, Error> {
    on_connection(migrate_url, slice, move |conn| {
        let applied = applied(conn)?;
        let mut ran = Vec::new();
        for migration in slice.list()? {
            let version = migration.name().version().to_string();
            if !applied.contains(&version) {
                conn.run_migration(&migration)
                    .map_err(|e| Error::Migration(migration.name().to_string(), e))?;
                ran.push(version);
            }
        }
        // Readiness compares versions as the app role.
        let (app, worker) = (slice.app(), slice.worker());
        conn.batch_execute(&format!(
            "grant select on __diesel_schema_migrations to {app}, {worker}"
        ))
        .map_err(statement)?;
        Ok(ran)
    })
    .await
}

/// Reverts every migration of the slice, the last first, and answers the versions.
pub async fn revert_all(migrate_url: &str, slice: &'static Slice) -> Result<Vec<String>, Error> {
    on_connection(migrate_url, slice, move |conn| {
        let mut applied = applied(conn)?;
        let known = slice.list()?;
        let versions: HashSet<String> = known.iter().map(|m| m.name().version().to_string()).collect();
        if let Some(unknown) = applied.difference(&versions).next() {
            return Err(Error::UnknownVersion(unknown.clone()));
        }
        let mut reverted = Vec::new();
        for migration in known.iter().rev() {
            let version = migration.name().version().to_string();
            if applied.remove(&version) {
                conn.revert_migration(migration)
                    .map_err(|e| Error::Migration(migration.name().to_string(), e))?;
                reverted.push(version);
            }
        }
        Ok(reverted)
    })
    .await
}

/// Whether the database lacks a migration that this program has; any role of the slice may ask.
pub async fn pending(url: &str, slice: &Slice) -> Result<bool, Error> {
    let known = slice.versions()?;
    let client = connect(url).await?;
    let table = format!("{}.__diesel_schema_migrations", slice.name);
    // Before the first migration the table is missing, or its grant is.
    let readable = "select coalesce(has_table_privilege(to_regclass($1), 'select'), false)";
    let row = client.query_one(readable, &[&table]).await.map_err(statement)?;
    if !row.get::<_, bool>(0) {
        return Ok(true);
    }
    let rows = client
        .query(&format!("select version from {table}"), &[])
        .await
        .map_err(statement)?;
    let applied: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(known.iter().any(|version| !applied.contains(version)))
}

type Conn = AsyncConnectionWrapper<AsyncPgConnection>;

/// Runs `work` as the slice's owner, in its schema, while no other process does.
async fn on_connection<T: Send + 'static>(
    url: &str,
    slice: &'static Slice,
    work: impl FnOnce(&mut Conn) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let url = url.to_owned();
    // Diesel's harness blocks, so it gets a thread of its own; the lock ends with the connection.
    tokio::task::spawn_blocking(move || {
        let mut conn = Conn::establish(&url).map_err(|e| Error::Connect(e.into()))?;
        let (name, owner) = (slice.name, slice.owner());
        conn.batch_execute(&format!(
            "set lock_timeout = '60s'; set client_min_messages = warning;
             do $$ begin perform pg_advisory_lock(hashtextextended('board3.migrate.{name}', 0)); end $$;
             set role {owner}; set search_path = {name}"
        ))
        .map_err(statement)?;
        work(&mut conn)
    })
    .await
    .map_err(Error::Interrupted)?
}

fn applied(conn: &mut Conn) -> Result<HashSet<String>, Error> {
    let versions = conn.applied_migrations().map_err(Error::Statement)?;
    Ok(versions.iter().map(MigrationVersion::to_string).collect())
}

/// Both lists, each in the order of its versions; a version that stands twice is refused.
fn merged(
    kit: &impl MigrationSource<Pg>,
    own: &impl MigrationSource<Pg>,
) -> Result<Vec<Box<dyn Migration<Pg>>>, Error> {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for list in [kit.migrations(), own.migrations()] {
        let mut list = list.map_err(Error::Statement)?;
        list.sort_by_key(|m| m.name().version().as_owned());
        for migration in list {
            let version = migration.name().version().to_string();
            if !seen.insert(version.clone()) {
                return Err(Error::DuplicateVersion(version));
            }
            all.push(migration);
        }
    }
    Ok(all)
}

async fn connect(url: &str) -> Result<tokio_postgres::Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .map_err(|e| Error::Connect(e.into()))?;
    // Ends when the client is dropped.
    tokio::spawn(connection);
    Ok(client)
}

fn statement(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Statement(source.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn kits_migrations_run_before_the_slices_own() {
        const OWN: EmbeddedMigrations = EmbeddedMigrations::new(&[]);
        let slice = Slice {
            name: "designs",
            migrations: OWN,
        };
        assert_eq!(slice.versions().unwrap().first().map(String::as_str), Some("K0001"));
        assert_eq!(slice.owner(), "board3_designs_owner");
    }

    #[test]
    fn a_version_that_stands_twice_is_refused() {
        let refused = merged(&KIT, &KIT).err().unwrap();
        assert_eq!(refused.to_string(), "two migrations have version K0001");
    }
}
