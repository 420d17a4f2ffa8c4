//! The terraform-state service.

use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    service::{Build, Kit, Parts, Service},
};

pub mod model;
mod rpc;
mod schema;
mod store;
mod wire;

/// The service.
pub const SERVICE: Service = Service {
    slice: &SLICE,
    configure,
};

static SLICE: Slice = Slice {
    name: "terraform_state",
    migrations: embed_migrations!("../../migrations/terraform-state"),
};

fn configure(_: &mut Env) -> Option<Build> {
    Some(Box::new(|_: Kit| Box::pin(async move { Ok(Parts::new()) })))
}
