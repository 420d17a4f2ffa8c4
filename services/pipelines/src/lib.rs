//! The pipelines service: pipelines, their executions, and the leases by which runners do their stages.
//!
//! PostgreSQL is the queue. A lease that ran out is a loss of contact, never a failure: an apply that had begun is not
//! tried again, its outcome is unknown, and it is said so.

use api::pipelines::v1::{
    job_service_server::JobServiceServer, pipeline_service_server::PipelineServiceServer,
    runner_service_server::RunnerServiceServer,
};
use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    service::{Build, Kit, Parts, Service},
};

mod check;
mod doorbell;
pub mod model;
mod reaper;
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
    name: "pipelines",
    migrations: embed_migrations!("../../migrations/pipelines"),
};

/// The most bytes of a request: a plan file of 3 MiB and everything beside it.
const MOST_REQUEST_BYTES: usize = 4 << 20;

fn configure(env: &mut Env) -> Option<Build> {
    let terms = store::terms::Terms::read(env)?;
    Some(Box::new(move |kit: Kit| {
        Box::pin(async move {
            let bell = doorbell::Doorbell::default();
            let runners = rpc::runner::Runners {
                db: kit.db.clone(),
                ring: kit.ring.clone(),
                terms,
                bell: bell.clone(),
                registrations: rpc::runner::Registrations::default(),
                stopping: kit.stopping.clone(),
            };
            let jobs = rpc::job::Jobs {
                db: kit.db.clone(),
                ring: kit.ring.clone(),
            };
            let pipelines = rpc::pipeline::Pipelines {
                kit: kit.clone(),
                logs: rpc::log::Logs::new(&kit),
                bell: bell.clone(),
            };
            let drift = worker::Drift { kit: kit.clone() };
            let checks = check::Checks::new(kit.clone());
            Ok(Parts::new()
                .serve(PipelineServiceServer::new(pipelines).max_decoding_message_size(MOST_REQUEST_BYTES))
                .serve(RunnerServiceServer::new(runners).max_decoding_message_size(MOST_REQUEST_BYTES))
                .serve(JobServiceServer::new(jobs).max_decoding_message_size(64 << 10))
                .consume(worker::Designs)
                .consume(drift)
                .consume(checks)
                .work(reaper::run(kit, bell)))
        })
    }))
}
