//! The pipelines service: pipelines, their executions, and the leases by which runners do their stages.
//!
//! PostgreSQL is the queue. A lease that ran out is a loss of contact, never a failure: an apply that had begun is not
//! tried again, its outcome is unknown, and it is said so.

use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    service::{Build, Kit, Parts, Service},
};

pub mod model;
mod schema;
mod store;

/// The service.
pub const SERVICE: Service = Service {
    slice: &SLICE,
    configure,
};

static SLICE: Slice = Slice {
    name: "pipelines",
    migrations: embed_migrations!("../../migrations/pipelines"),
};

fn configure(_: &mut Env) -> Option<Build> {
    Some(Box::new(|_: Kit| Box::pin(async move { Ok(Parts::new()) })))
}
