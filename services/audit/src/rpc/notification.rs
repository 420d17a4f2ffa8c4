//! NotificationService, one method per RPC.

use std::sync::Arc;

use api::audit::v1::{
    ListNotificationsRequest, ListNotificationsResponse, MarkReadRequest, MarkReadResponse,
    notification_service_server::NotificationService,
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
    model::{Cursor, LogId, micros, notification::Reader},
    store,
    wire::notification,
};

/// The service.
pub(crate) struct Notifications {
    pub(crate) db: Db,
    pub(crate) ring: Arc<KeyRing>,
}

#[tonic::async_trait]
impl NotificationService for Notifications {
    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let (filter, size) = notification::listing(&request, scope.principal().into())?;
        let listing = Listing::new(&self.ring, "audit.ListNotifications", scope.org().0, &filter);
        let after = listing.open(&request.page_token)?;
        let found = self
            .db
            .read(&scope, async |tx| {
                store::notification::list(tx, &filter, after, size).await
            })
            .await?;
        let page = listing.page(found, size, |(last, _)| Cursor {
            occurred_at: micros(last.occurred_at),
            id: LogId(last.id.0),
        });
        Ok(Response::new(ListNotificationsResponse {
            notifications: page.items.into_iter().map(notification::message).collect(),
            next_page_token: page.next,
        }))
    }

    async fn mark_read(&self, request: Request<MarkReadRequest>) -> Result<Response<MarkReadResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let marked = notification::marked(&request)?;
        let reader = Reader::from(scope.principal());
        let reply = self.db.write(&scope, async |tx| {
            tx.about(&marked);
            let known = store::notification::known(tx, &marked).await?;
            if let Some(missing) = marked.0.iter().find(|id| !known.contains(id)) {
                return Err(Error::not_found("notification", missing));
            }
            store::notification::mark(tx, &reader, &marked).await?;
            Ok(MarkReadResponse {})
        });
        Ok(reply.await?)
    }
}
