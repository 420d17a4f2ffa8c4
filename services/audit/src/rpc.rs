//! AuditService, one method per RPC; NotificationService is in [`notification`].

use std::sync::Arc;

use api::audit::v1::{
    GetAuditLogRequest, GetAuditLogResponse, ListAuditLogsRequest, ListAuditLogsResponse,
    audit_service_server::AuditService,
};
use kit::{
    Error,
    auth::{OrgScope, admitted},
    crypto::KeyRing,
    db::Db,
    page::Listing,
};
use tonic::{Request, Response, Status};

use crate::{
    leaf,
    model::{AuditLog, Cursor, micros},
    store,
    wire::request,
};

pub(crate) mod notification;

/// The service.
pub(crate) struct Audit {
    db: Db,
    ring: Arc<KeyRing>,
}

impl Audit {
    pub(crate) fn new(db: Db, ring: Arc<KeyRing>) -> Self {
        Audit { db, ring }
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit_logs(
        &self,
        request: Request<ListAuditLogsRequest>,
    ) -> Result<Response<ListAuditLogsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let (filter, size) = request::listing(&request)?;
        let listing = Listing::new(&self.ring, "audit.ListAuditLogs", scope.org().0, &filter);
        let after = listing.open(&request.page_token)?;
        let found = self
            .db
            .read(&scope, async |tx| store::list(tx, &filter, after, size).await)
            .await?;
        let page = listing.page(found, size, |(log, _)| Cursor {
            occurred_at: micros(log.occurred_at),
            id: log.id,
        });
        let audit_logs = page
            .items
            .into_iter()
            .map(|found| Ok(attested(found)?.into()))
            .collect::<Result<_, Error>>()?;
        Ok(Response::new(ListAuditLogsResponse {
            audit_logs,
            next_page_token: page.next,
        }))
    }

    async fn get_audit_log(
        &self,
        request: Request<GetAuditLogRequest>,
    ) -> Result<Response<GetAuditLogResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = request::named(&request)?;
        let found = self.db.read(&scope, async |tx| store::find(tx, id).await).await?;
        let log = attested(found.ok_or_else(|| Error::not_found("audit_log", id))?)?;
        Ok(Response::new(GetAuditLogResponse {
            audit_log: Some(log.into()),
        }))
    }
}

/// What a row's evidence says. Columns that say something else have been tampered with; they are told to the log.
fn attested((columns, leaf_input): store::Found) -> Result<AuditLog, Error> {
    let log = leaf::decode(&leaf_input).map_err(Error::internal)?;
    if log != columns {
        tracing::error!(org = %columns.org_id, audit_log = %columns.id, "the columns of an audit log are not what its leaf input says");
    }
    Ok(log)
}
