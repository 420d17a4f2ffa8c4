//! The pipelines service.

use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    service::{Build, Kit, Parts, Service},
};

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
