//! The designs service: designs, their immutable versions, their resources, and the templates they start from.
//!
//! It exports designs as Terraform's configuration, and colours resources that terraform-state found drifted.
//!
//! A design changes only under its current etag, a version never; what is read was stored exactly as it is hashed.

use api::designs::v1::{design_service_server::DesignServiceServer, template_service_server::TemplateServiceServer};
use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    service::{Build, Kit, Parts, Service},
};

use model::export::TerraformUrl;

mod cache;
pub mod model;
mod rpc;
mod schema;
mod store;
mod wire;
mod worker;

/// The service.
pub const SERVICE: Service = Service {
    slice: &SLICE,
    configure,
};

static SLICE: Slice = Slice {
    name: "designs",
    migrations: embed_migrations!("../../migrations/designs"),
};

/// The most bytes of a request: a canvas of 3 MiB and everything beside it.
const MOST_REQUEST_BYTES: usize = 4 << 20;

fn configure(env: &mut Env) -> Option<Build> {
    let terraform: TerraformUrl = env.parsed(
        "BOARD3_TERRAFORM_HTTP",
        "http://127.0.0.1:8080",
        "an address like http://127.0.0.1:8080, without credentials and query",
    )?;
    Some(Box::new(|kit: Kit| {
        Box::pin(async move {
            let caches = cache::Caches::new(&kit.redis);
            let designs = rpc::design::Designs {
                db: kit.db.clone(),
                ring: kit.ring.clone(),
                caches: caches.clone(),
                terraform,
            };
            let templates = rpc::template::Templates {
                db: kit.db,
                ring: kit.ring,
            };
            Ok(Parts::new()
                .serve(DesignServiceServer::new(designs).max_decoding_message_size(MOST_REQUEST_BYTES))
                .serve(TemplateServiceServer::new(templates).max_decoding_message_size(MOST_REQUEST_BYTES))
                .consume(worker::UserNames { caches: caches.clone() })
                .consume(worker::WrittenDesigns { caches })
                .consume(worker::ResourceDrifts))
        })
    }))
}
