//! The terraform-state service: Terraform's states, their versions and locks, and what has drifted from them.
//!
//! It is Terraform's `http` backend and the same over gRPC. A content is sealed before anything of it is written, and
//! answered whole and byte by byte as it was sent, or not at all; of two who hold a lock, one does not.

use std::time::Duration;

use api::terraform_state::v1::{
    drift_schedule_service_server::DriftScheduleServiceServer, drift_service_server::DriftServiceServer,
    key_service_server::KeyServiceServer, lock_service_server::LockServiceServer,
    state_service_server::StateServiceServer,
};
use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    crypto::KeyRing,
    db::migrate::Slice,
    service::{Build, Kit, Parts, Service},
};

mod backend;
mod compact;
mod content;
mod door;
mod history;
mod jobs;
mod memory;
pub mod model;
pub mod offline;
mod rotate;
mod rpc;
mod schedule;
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
    name: "terraform_state",
    migrations: embed_migrations!("../../migrations/terraform-state"),
};

/// The most bytes of a request.
const MOST_REQUEST_BYTES: usize = 4 << 20;
/// The most bytes of a request about a lock.
const MOST_LOCK_REQUEST_BYTES: usize = 64 << 10;
/// How many checks for drift of an organization go on at once unless told otherwise.
const MOST_DRIFT_RUNS: u32 = 10;
/// The largest state unless told otherwise.
const MOST_STATE_BYTES: u64 = 256 << 20;

fn configure(env: &mut Env) -> Option<Build> {
    let ring = env.required("TERRAFORM_STATE_ENCRYPTION_KEY").and_then(|current| {
        let retired = env
            .optional("TERRAFORM_STATE_ENCRYPTION_KEYS_RETIRED")
            .unwrap_or_default();
        KeyRing::parse(&current, &retired)
            .map_err(|problem| env.problem(format!("TERRAFORM_STATE_ENCRYPTION_KEY {problem}")))
            .ok()
    });
    let listener = env.listen("BOARD3_TERRAFORM_LISTEN", "127.0.0.1:8080");
    let tls = env.tls(
        "BOARD3_TERRAFORM_TLS_CERTIFICATE",
        "BOARD3_TERRAFORM_TLS_KEY",
        "BOARD3_TERRAFORM_TLS_CLIENT_CA",
    );
    let limit = env.number("BOARD3_STATE_LIMIT_BYTES", MOST_STATE_BYTES, 1..=(1 << 31));
    let quota = env.number("BOARD3_STATE_QUOTA_BYTES", 0, 0..=(1 << 50));
    let compact_after = env.number("BOARD3_STATE_COMPACT_AFTER_SECONDS", 30, 0..=86_400);
    let drift_runs = env.number("BOARD3_DRIFT_RUNS", MOST_DRIFT_RUNS, 1..=10_000);
    let (ring, limit, drift_runs) = (ring?, limit?, drift_runs?);
    let listener = listener?.over(tls?);
    // 0 is no quota.
    let (quota, compact_after) = (
        Some(quota?).filter(|quota| *quota > 0),
        Duration::from_secs(compact_after?),
    );
    Some(Box::new(move |kit: Kit| {
        Box::pin(async move {
            let backend = backend::Backend {
                kit,
                ring,
                limit,
                quota,
                compact_after,
                memory: memory::Memory::new(),
            };
            let states = rpc::state::States {
                backend: backend.clone(),
            };
            let locks = rpc::lock::Locks {
                jobs: jobs::Jobs::new(&backend.kit.peers),
                backend: backend.clone(),
            };
            let keys = rpc::key::Keys {
                backend: backend.clone(),
            };
            let drifts = rpc::drift::Drifts::new(backend.clone());
            let schedules = rpc::schedule::Schedules {
                kit: backend.kit.clone(),
            };
            Ok(Parts::new()
                .serve(StateServiceServer::new(states).max_decoding_message_size(MOST_REQUEST_BYTES))
                .serve(LockServiceServer::new(locks).max_decoding_message_size(MOST_LOCK_REQUEST_BYTES))
                .serve(DriftServiceServer::new(drifts).max_decoding_message_size(MOST_REQUEST_BYTES))
                .serve(DriftScheduleServiceServer::new(schedules).max_decoding_message_size(MOST_LOCK_REQUEST_BYTES))
                .serve(KeyServiceServer::new(keys).max_decoding_message_size(MOST_LOCK_REQUEST_BYTES))
                .consume(worker::Designs)
                .consume(worker::Jobs)
                .consume(worker::Executions)
                .consume(worker::DriftRuns)
                .work(compact::run(backend.clone()))
                .work(rotate::run(backend.clone()))
                .work(schedule::run(backend.kit.clone(), drift_runs.into()))
                .door(listener, door::TerraformHttp { backend }))
        })
    }))
}
