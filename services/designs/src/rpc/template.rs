//! TemplateService.

use std::sync::Arc;

use api::designs::v1::{ListTemplatesRequest, ListTemplatesResponse, template_service_server::TemplateService};
use kit::{
    Error, Result,
    auth::scope::{OrgScope, admitted},
    crypto::KeyRing,
    db::{Db, Tx},
    page::Listing,
};
use tonic::{Request, Response, Status};

use super::listing;
use crate::{
    model::{TemplateId, canvas::Canvas, template::TemplateFilter},
    store,
    wire::{
        self,
        list::{Asked, Page},
    },
};

/// How many canvases are read at once: a page may end before all of its rows are needed.
const CANVASES_AT_ONCE: usize = 16;

/// Answers TemplateService.
pub(crate) struct Templates {
    pub(crate) db: Db,
    pub(crate) ring: Arc<KeyRing>,
}

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn list_templates(
        &self,
        request: Request<ListTemplatesRequest>,
    ) -> Result<Response<ListTemplatesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<TemplateFilter> = request.try_into()?;
        let listing = listing(&self.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let reply = self.db.read(&scope, async |tx| list(tx, &listing, &asked, after).await);
        Ok(Response::new(reply.await?))
    }
}

async fn list(
    tx: &mut Tx,
    listing: &Listing<'_>,
    asked: &Asked<TemplateFilter>,
    after: Option<(String, TemplateId)>,
) -> Result<ListTemplatesResponse> {
    let rows = store::template::list(tx, &asked.filter, after, asked.size.fetch()).await?;
    let mut page = Page::new(listing, asked.size);
    'page: for some in rows.chunks(CANVASES_AT_ONCE) {
        let ids: Vec<TemplateId> = some.iter().map(|row| row.id).collect();
        let mut canvases = store::template::canvases(tx, &ids).await?;
        for row in some {
            let text = canvases
                .remove(&row.id)
                .ok_or_else(|| Error::internal("a template has a canvas"))?;
            let cursor = (String::from(row.name.clone()), row.id);
            if !page.push(cursor, wire::design::template(row.clone(), Canvas::read(text)?)) {
                break 'page;
            }
        }
    }
    let (templates, next_page_token) = page.finish();
    Ok(ListTemplatesResponse {
        templates,
        next_page_token,
    })
}
