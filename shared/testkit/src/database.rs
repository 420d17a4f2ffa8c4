//! A database of its own for each test, copied in milliseconds from one that was prepared and migrated once.
//!
//! Services connect to it in their own roles, so row-level security and grants hold in tests as they do outside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use kit::db::migrate::{self, Slice};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::servers::{self, Postgres};

/// In whose name a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What RPCs use.
    App,
    /// What relays, consumers and schedulers use.
    Worker,
    /// A login that can become every slice's owner.
    Migrate,
    /// The superuser, for looking at everything.
    Admin,
}

/// One test's database; dropping it drops the database.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: &'static Postgres,
}

/// A new database with the migrations of `slices` and an instance id of its own.
pub async fn database(slices: &[&'static Slice]) -> Database {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let template = template(slices).await;
    let server = servers::postgres().await;
    let database = Database {
        name: format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        server,
    };
    let copy = format!(
        "create database {} template {template} strategy file_copy",
        database.name
    );
    let admin = connect(&server.admin_url()).await;
    admin
        .batch_execute(&copy)
        .await
        .expect("a migrated template can be copied");
    // Copies of one template would hear each other's Redis channels, and rights on databases are not copied.
    let fresh = format!(
        "update board3.instance set id = default; revoke temporary on database {} from public",
        database.name
    );
    database
        .admin()
        .await
        .batch_execute(&fresh)
        .await
        .expect("the template has board3.instance");
    database
}

impl Database {
    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where `role` of `slice` connects; `slice` plays no part for `Migrate` and `Admin`.
    pub fn url(&self, slice: &Slice, role: Role) -> String {
        let role = match role {
            Role::App => slice.app(),
            Role::Worker => slice.worker(),
            Role::Migrate => "board3_migrate".into(),
            Role::Admin => "postgres".into(),
        };
        self.server.url(&role, &self.name)
    }

    /// The superuser's URL.
    pub fn admin_url(&self) -> String {
        self.server.url("postgres", &self.name)
    }

    /// A superuser's connection, for assertions that no policy may filter.
    pub async fn admin(&self) -> Client {
        connect(&self.admin_url()).await
    }

    /// A connection as `role` of `slice`, for what a service itself would see.
    pub async fn client(&self, slice: &Slice, role: Role) -> Client {
        connect(&self.url(slice, role)).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A thread, since the test's runtime may be busy with this very drop. The server's end would do it as well.
        let (url, drop) = (
            self.server.admin_url(),
            format!("drop database if exists {} with (force)", self.name),
        );
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
                tokio::spawn(connection);
                client.batch_execute(&drop).await?;
                anyhow::Ok(())
            })
        });
        let _ = dropped.join();
    }
}

/// The database that copies for these slices are made from; made once per process.
async fn template(slices: &[&'static Slice]) -> String {
    type Templates = Mutex<HashMap<Vec<&'static str>, Arc<OnceCell<String>>>>;
    static TEMPLATES: LazyLock<Templates> = LazyLock::new(Mutex::default);

    let names: Vec<&'static str> = slices.iter().map(|slice| slice.name).collect();
    let cell = {
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(templates.entry(names.clone()).or_default())
    };
    cell.get_or_init(async || {
        let server = servers::postgres().await;
        let name = format!("template_{}", names.join("_"));
        let admin = connect(&server.admin_url()).await;
        admin
            .batch_execute(&format!("create database {name}"))
            .await
            .expect("a database can be made");
        let result = async {
            migrate::prepare(&server.url("postgres", &name)).await?;
            for slice in slices {
                migrate::up(&server.url("board3_migrate", &name), slice).await?;
            }
            Ok::<_, migrate::Error>(())
        };
        if let Err(error) = result.await {
            panic!("migrations: {:#}", anyhow::Error::new(error));
        }
        // Copying waits for the sessions above to be gone.
        name
    })
    .await
    .clone()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("the private server takes connections");
    tokio::spawn(connection);
    client
}
