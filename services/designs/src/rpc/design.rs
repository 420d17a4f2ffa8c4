//! DesignService.

use std::sync::Arc;

use api::{
    designs::v1::{
        CreateDesignRequest, CreateDesignResponse, DeleteDesignRequest, DeleteDesignResponse, ExportTerraformRequest,
        ExportTerraformResponse, GetDesignRequest, GetDesignResponse, ListDesignsRequest, ListDesignsResponse,
        ListResourcesRequest, ListResourcesResponse, ListVersionsRequest, ListVersionsResponse, PublishDesignRequest,
        PublishDesignResponse, UpdateDesignRequest, UpdateDesignResponse, design_service_server::DesignService,
    },
    events::v1::{DesignChanged, event::Payload},
};
use kit::{
    Error, Result,
    auth::scope::{OrgScope, admitted},
    crypto::KeyRing,
    db::{Db, Tx},
    failpoint,
};
use tonic::{
    Request, Response, Status,
    codegen::{BoxStream, tokio_stream},
};

use super::{listing, there};
use crate::{
    cache::Caches,
    model::{
        DesignId,
        canvas::Canvas,
        design::{Design, DesignFilter, NewDesign, Shown, Start},
        drift::Drift,
        export::{TerraformUrl, render},
        micros,
        resource::Resource,
    },
    store,
    wire::{
        design::{Delete, Publish, Update, resource},
        export::{self, Export},
        list::{Asked, Page},
    },
};

/// Answers DesignService.
pub(crate) struct Designs {
    pub(crate) db: Db,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) caches: Caches,
    pub(crate) terraform: TerraformUrl,
}

#[tonic::async_trait]
impl DesignService for Designs {
    async fn create_design(
        &self,
        request: Request<CreateDesignRequest>,
    ) -> Result<Response<CreateDesignResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let new = NewDesign::try_from(request)?;
        let reply = self.db.write(&scope, async |tx| {
            let (design, canvas) = create(tx, new).await?;
            store::resource::update(tx, design.id, canvas.nodes()).await?;
            tx.about(&design);
            tell(tx, &design, false);
            Ok(CreateDesignResponse {
                design: Some(shown(tx, design, canvas).await?.into()),
            })
        });
        Ok(reply.await?)
    }

    async fn get_design(&self, request: Request<GetDesignRequest>) -> Result<Response<GetDesignResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = DesignId::try_from(request)?;
        let found = self.caches.design(&self.db, &scope, id).await?;
        let design = found.ok_or_else(|| Error::not_found("design", id))?;
        Ok(Response::new(GetDesignResponse {
            design: Some(design.into()),
        }))
    }

    async fn list_designs(
        &self,
        request: Request<ListDesignsRequest>,
    ) -> Result<Response<ListDesignsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<DesignFilter> = request.try_into()?;
        let listing = listing(&self.ring, &scope, &asked.filter);
        let after = listing.open::<(i64, DesignId)>(&asked.token)?;
        let after = after.and_then(|(updated, id)| Some((micros::time(updated)?, id)));
        let rows = self.db.read(&scope, async |tx| {
            store::design::list(tx, &asked.filter, after, asked.size.fetch()).await
        });
        let mut page = Page::new(&listing, asked.size);
        for row in rows.await? {
            page.push((micros::of(row.design.updated_at), row.design.id), row.into());
        }
        let (designs, next_page_token) = page.finish();
        Ok(Response::new(ListDesignsResponse {
            designs,
            next_page_token,
        }))
    }

    async fn update_design(
        &self,
        request: Request<UpdateDesignRequest>,
    ) -> Result<Response<UpdateDesignResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Update { id, etag, change } = request.try_into()?;
        let mut written = None;
        let reply = self.db.write(&scope, async |tx| {
            let before = there(store::design::lock(tx, id).await?, id)?;
            tx.about(&before);
            before.expect(&etag)?;
            let design = store::design::update(tx, &before, &change).await?;
            let canvas = match change.canvas {
                Some(canvas) => {
                    store::resource::update(tx, id, canvas.nodes()).await?;
                    canvas
                }
                None => Canvas::read(store::design::canvas(tx, id).await?)?,
            };
            tell(tx, &design, false);
            written = Some(design.revision);
            Ok(UpdateDesignResponse {
                design: Some(shown(tx, design, canvas).await?.into()),
            })
        });
        let reply = reply.await?;
        self.settle(&scope, id, written).await?;
        Ok(reply)
    }

    async fn delete_design(
        &self,
        request: Request<DeleteDesignRequest>,
    ) -> Result<Response<DeleteDesignResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Delete { id, etag } = request.try_into()?;
        let mut written = None;
        let reply = self.db.write(&scope, async |tx| {
            let before = there(store::design::lock(tx, id).await?, id)?;
            tx.about(&before);
            if !etag.is_empty() {
                before.expect(&etag)?;
            }
            let design = store::design::update_deleted(tx, &before).await?;
            tell(tx, &design, true);
            written = Some(design.revision);
            Ok(DeleteDesignResponse {})
        });
        let reply = reply.await?;
        self.settle(&scope, id, written).await?;
        Ok(reply)
    }

    async fn publish_design(
        &self,
        request: Request<PublishDesignRequest>,
    ) -> Result<Response<PublishDesignResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Publish { id, etag, message } = request.try_into()?;
        let mut written = None;
        let reply = self.db.write(&scope, async |tx| {
            let before = there(store::design::lock(tx, id).await?, id)?;
            tx.about(&before);
            if !etag.is_empty() {
                before.expect(&etag)?;
            }
            let newest = store::version::find(tx, id, before.latest_version).await?;
            if let Some(newest) = newest.filter(|newest| newest.canvas_hash == before.canvas_hash) {
                written = Some(before.revision);
                return Ok(PublishDesignResponse {
                    version: Some(newest.into()),
                    created: false,
                });
            }
            let canvas = store::design::canvas(tx, id).await?;
            let version = store::version::insert(tx, &before, &canvas, &message).await?;
            let design = store::design::update_published(tx, &before, version.number).await?;
            tell(tx, &design, false);
            written = Some(design.revision);
            Ok(PublishDesignResponse {
                version: Some(version.into()),
                created: true,
            })
        });
        let reply = reply.await?;
        self.settle(&scope, id, written).await?;
        Ok(reply)
    }

    async fn list_versions(
        &self,
        request: Request<ListVersionsRequest>,
    ) -> Result<Response<ListVersionsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<DesignId> = request.try_into()?;
        let listing = listing(&self.ring, &scope, &asked.filter);
        let below = listing.open(&asked.token)?;
        let rows = self.db.read(&scope, async |tx| {
            require(tx, asked.filter).await?;
            store::version::list(tx, asked.filter, below, asked.size.fetch()).await
        });
        let mut page = Page::new(&listing, asked.size);
        for row in rows.await? {
            page.push(row.number, row.into());
        }
        let (versions, next_page_token) = page.finish();
        Ok(Response::new(ListVersionsResponse {
            versions,
            next_page_token,
        }))
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<DesignId> = request.try_into()?;
        let listing = listing(&self.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let rows = self.db.read(&scope, async |tx| {
            require(tx, asked.filter).await?;
            let rows = store::resource::list(tx, asked.filter, after, asked.size.fetch()).await?;
            let addresses: Vec<_> = rows.iter().map(Resource::address).collect();
            let drifts = store::drift::list(tx, asked.filter, &addresses).await?;
            Ok((rows, drifts))
        });
        let (rows, drifts) = rows.await?;
        let mut drifts = Drift::by_address(drifts);
        let mut page = Page::new(&listing, asked.size);
        for row in rows {
            let drifts = drifts.remove(&row.address()).unwrap_or_default();
            page.push(row.node_id.clone(), resource(row, drifts));
        }
        let (resources, next_page_token) = page.finish();
        Ok(Response::new(ListResourcesResponse {
            resources,
            next_page_token,
        }))
    }

    type ExportTerraformStream = BoxStream<ExportTerraformResponse>;

    async fn export_terraform(
        &self,
        request: Request<ExportTerraformRequest>,
    ) -> Result<Response<Self::ExportTerraformStream>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Export { id, version, state } = request.try_into()?;
        scope.within("design", &id.to_string())?;
        if let Some(state) = &state {
            scope.within("state", state.as_str())?;
        }
        let canvas = self.db.read(&scope, async |tx| {
            let found = store::design::find(tx, id).await?;
            let (_, canvas) = found.ok_or_else(|| Error::not_found("design", id))?;
            let Some(number) = version else { return Ok(canvas) };
            let frozen = store::version::canvas(tx, id, number).await?;
            frozen.ok_or_else(|| Error::not_found("version", number))
        });
        let canvas = Canvas::read(canvas.await?)?;
        let backend = state.as_ref().map(|state| (&self.terraform, state));
        let parts = export::parts(&render(canvas, backend)?);
        Ok(Response::new(Box::pin(tokio_stream::iter(parts.into_iter().map(Ok)))))
    }
}

impl Designs {
    /// Takes older revisions out of the cache before the write is answered.
    async fn settle(&self, scope: &OrgScope, id: DesignId, written: Option<i64>) -> Result<()> {
        failpoint::hit_in("designs.before_settle", &id.to_string()).await?;
        // A repeat of an earlier call wrote nothing, but the first one may have died before it came here: whatever
        // revision is cached goes, and for a minute the design is read from the database.
        let revision = written.unwrap_or(i64::MAX);
        // With Redis away nothing is read from it; the event of the write comes until Redis has taken it.
        let _ = self.caches.design_changed(scope.org(), id, revision).await;
        Ok(())
    }
}

/// Inserts a design, blank, drawn or from a template.
async fn create(tx: &mut Tx, new: NewDesign) -> Result<(Design, Canvas)> {
    let texts = (&new.name, &new.description);
    match new.start {
        Start::Canvas(provider, canvas) => {
            let design = store::design::insert(tx, texts, provider, &canvas, None).await?;
            Ok((design, canvas))
        }
        Start::Template(id, provider) => {
            let found = store::template::find(tx, id).await?;
            let (template, text) = found.ok_or_else(|| Error::not_found("template", id))?;
            let canvas = Canvas::read(text)?;
            let provider = provider.unwrap_or(template.cloud_provider);
            let design = store::design::insert(tx, texts, provider, &canvas, Some(&template)).await?;
            Ok((design, canvas))
        }
    }
}

/// The design with its canvas and what is shown beside it.
async fn shown(tx: &mut Tx, design: Design, canvas: Canvas) -> Result<Shown> {
    let (creator, template) = store::design::labels(tx, design.id).await?;
    Ok(Shown {
        design,
        canvas: Some(canvas),
        creator,
        template,
    })
}

/// Refuses to list what belongs to a design that is not there.
async fn require(tx: &mut Tx, id: DesignId) -> Result<()> {
    if store::design::exists(tx, id).await? {
        Ok(())
    } else {
        Err(Error::not_found("design", id))
    }
}

/// Tells peers, and ourselves, that a design was written.
fn tell(tx: &mut Tx, design: &Design, deleted: bool) {
    tx.tell(Payload::DesignChanged(DesignChanged {
        design_id: design.id.to_string(),
        revision: design.revision,
        deleted,
        name: design.name.clone().into(),
        latest_version: design.latest_version,
    }));
}
