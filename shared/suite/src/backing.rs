//! PostgreSQL and Redis of a suite: private ones, or those that the environment names.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use kit::db::migrate;
use testkit::servers::{Place, Postgres, Redis};
use tokio_postgres::NoTls;

use crate::SERVICES;
use crate::keys::Kept;
use crate::layout::Layout;
use crate::random_hex;

/// The database's name in the private cluster.
const DATABASE: &str = "board3";

/// What the services store in. Private servers end when this is dropped; their data stays.
pub struct Backing {
    admin_url: String,
    redis_url: String,
    /// Of the suite's roles, where the server is not private.
    password: Option<String>,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
}

impl Backing {
    /// `DATABASE_ADMIN_URL` and `REDIS_URL`, and a private server for each that is not set.
    pub async fn start(layout: &Layout) -> Result<Backing> {
        let given = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
        let postgres = async {
            match given("DATABASE_ADMIN_URL") {
                Some(url) => Ok((url, None)),
                None => private_postgres(layout).await.map(|(url, server)| (url, Some(server))),
            }
        };
        let redis = async {
            match given("REDIS_URL") {
                Some(url) => Ok((url, None)),
                None => Redis::start().await.map(|server| (server.url(), Some(server))),
            }
        };
        let ((admin_url, postgres), (redis_url, redis)) = tokio::try_join!(postgres, redis)?;
        let password = match postgres {
            Some(_) => None,
            None => {
                Some(Kept::open(&layout.dir().join("keys"), "database")?.get_or_set("PASSWORD", || random_hex(24))?)
            }
        };
        Ok(Backing {
            admin_url,
            redis_url,
            password,
            postgres,
            redis,
        })
    }

    /// The administrator's URL.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// Redis.
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// The private PostgreSQL, for stopping it.
    pub fn postgres(&self) -> Option<&Postgres> {
        self.postgres.as_ref()
    }

    /// The private Redis, for stopping it.
    pub fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }

    /// Where a role connects.
    pub fn url(&self, role: &str) -> Result<String> {
        as_role(&self.admin_url, role, self.password.as_deref())
    }

    /// Prepares the database, migrates every slice and answers what ran, by slice.
    pub async fn migrate(&self) -> Result<Vec<(&'static str, Vec<String>)>> {
        migrate::prepare(&self.admin_url).await.context("DATABASE_ADMIN_URL")?;
        if let Some(password) = &self.password {
            self.set_passwords(password).await?;
        }
        let mut ran = Vec::new();
        for service in SERVICES {
            let versions = migrate::up(&self.url("board3_migrate")?, service.slice).await;
            ran.push((
                service.slice.name,
                versions.with_context(|| format!("slice {}", service.slice.name))?,
            ));
        }
        Ok(ran)
    }

    async fn set_passwords(&self, password: &str) -> Result<()> {
        let mut sql = format!("alter role board3_migrate password '{password}'");
        for service in SERVICES {
            for role in [service.slice.app(), service.slice.worker()] {
                write!(sql, "; alter role {role} password '{password}'")?;
            }
        }
        let (client, connection) = tokio_postgres::connect(&self.admin_url, NoTls).await?;
        tokio::spawn(connection);
        client
            .batch_execute(&sql)
            .await
            .context("the passwords of the suite's roles")
    }
}

async fn private_postgres(layout: &Layout) -> Result<(String, Postgres)> {
    let server = Postgres::start(Place::Kept(layout.postgres()?)).await?;
    let (client, connection) = tokio_postgres::connect(&server.admin_url(), NoTls).await?;
    tokio::spawn(connection);
    if client
        .query_opt("select from pg_database where datname = $1", &[&DATABASE])
        .await?
        .is_none()
    {
        client.batch_execute(&format!("create database {DATABASE}")).await?;
    }
    Ok((server.url("postgres", DATABASE), server))
}

/// `url` with another user; whatever password it held is gone.
pub(crate) fn as_role(url: &str, role: &str, password: Option<&str>) -> Result<String> {
    let Some((scheme, rest)) = url
        .split_once("://")
        .filter(|(s, _)| ["postgres", "postgresql"].contains(s))
    else {
        bail!("the database's URL must look like postgresql://user@host:5432/database");
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let password = password.map(|password| format!(":{password}")).unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    // Options may name a user as well, and would win.
    let kept: Vec<&str> = query
        .split('&')
        .filter(|o| !o.is_empty() && !o.starts_with("user=") && !o.starts_with("password="))
        .collect();
    let query = if kept.is_empty() {
        String::new()
    } else {
        format!("?{}", kept.join("&"))
    };
    Ok(format!("{scheme}://{role}{password}@{host}{path}{query}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_role_replaces_the_administrator_in_every_form_of_url() {
        for (url, expected) in [
            (
                "postgresql://postgres@%2Ftmp%2Fb3/board3",
                "postgresql://r:p@%2Ftmp%2Fb3/board3",
            ),
            (
                "postgres://admin:se%40cret@db:5432/b?sslmode=disable",
                "postgres://r:p@db:5432/b?sslmode=disable",
            ),
            (
                "postgresql:///b?host=/tmp&user=admin&password=x",
                "postgresql://r:p@/b?host=/tmp",
            ),
            ("postgresql://db", "postgresql://r:p@db"),
        ] {
            let changed = as_role(url, "r", Some("p")).unwrap();
            assert_eq!(changed, expected);
            let config: tokio_postgres::Config = changed.parse().unwrap();
            assert_eq!((config.get_user(), config.get_password()), (Some("r"), Some(&b"p"[..])));
        }
        assert!(as_role("host=db user=admin", "r", None).is_err());
    }
}
