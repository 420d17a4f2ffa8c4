//! The trail of who did what: every service's audited events, searchable, append-only, each exactly once.
//!
//! An event that cannot be understood is kept as it came: nothing that was told to the trail is lost.
//! What is answered comes from a row's `leaf_input` ([`leaf`]), never from the columns that found it.
//!
//! And what people should hear of: notifications, one for each event that tells of drift or of an execution gone wrong.

use api::audit::v1::{
    audit_service_server::AuditServiceServer, notification_service_server::NotificationServiceServer,
};
use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    service::{Build, Kit, Parts, Service},
};

pub mod leaf;
pub mod model;
#[cfg(test)]
mod plans;
mod rpc;
mod schema;
mod store;
mod wire;
mod worker;

/// Schema `audit`.
pub static SLICE: Slice = Slice {
    name: "audit",
    migrations: embed_migrations!("../../migrations/audit"),
};

/// The audit service: AuditService and NotificationService, and the consumers that feed them.
pub const SERVICE: Service = Service {
    slice: &SLICE,
    configure,
};

/// The largest message, as the proto says.
const MESSAGE_BYTES: usize = 64 * 1024;

fn configure(_: &mut Env) -> Option<Build> {
    Some(Box::new(|kit: Kit| {
        Box::pin(async move {
            let trail = AuditServiceServer::new(rpc::Audit::new(kit.db.clone(), kit.ring.clone()));
            let notifications = rpc::notification::Notifications {
                db: kit.db,
                ring: kit.ring,
            };
            let notifications = NotificationServiceServer::new(notifications);
            Ok(Parts::new()
                .serve(trail.max_decoding_message_size(MESSAGE_BYTES))
                .serve(notifications.max_decoding_message_size(MESSAGE_BYTES))
                .consume(worker::Trail)
                .consume(worker::Notices))
        })
    }))
}
