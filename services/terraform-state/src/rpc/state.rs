//! StateService.

use api::terraform_state::v1::{
    CreateStateRequest, CreateStateResponse, DownloadStateRequest, DownloadStateResponse, GetStateRequest,
    GetStateResponse, ListStateVersionsRequest, ListStateVersionsResponse, ListStatesRequest, ListStatesResponse,
    UploadStateRequest, UploadStateResponse, state_service_server::StateService,
};
use futures_util::StreamExt;
use kit::{
    Error, Reason, Result, Violations,
    auth::scope::{OrgScope, admitted, admitted_stream, repeats},
};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use uuid::Uuid;

use super::{find, hold, listing, no_message, there};
use crate::{
    backend::{Backend, bound_design, may_force, touchable},
    content::{Arriving, Place},
    model::{
        StateId,
        state::{NewState, Shown, StateFilter},
    },
    store,
    wire::{
        list::{Asked, page},
        state::{Download, Upload, part},
    },
};

/// Answers StateService.
pub(crate) struct States {
    pub(crate) backend: Backend,
}

#[tonic::async_trait]
impl StateService for States {
    async fn create_state(
        &self,
        request: Request<CreateStateRequest>,
    ) -> Result<Response<CreateStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let NewState { name, design } = request.try_into()?;
        scope.within("state", name.as_str())?;
        if let Some(design) = design {
            scope.within("design", &design.to_string())?;
            self.backend.learn(&scope, design).await?;
        }
        let bound = bound_design(&scope)?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            if let Some(design) = design
                && !store::design::exists(tx, design).await?
            {
                return Err(Error::not_found("design", design));
            }
            let design = design.or(bound);
            let made = store::state::insert(tx, StateId::new(), &name, design).await?;
            let state = made.ok_or_else(|| {
                Error::new(Reason::ResourceExists, "the organization has a state of this name")
                    .with("resource", "state")
            })?;
            tx.about(&state);
            let shown = Shown {
                state,
                version: None,
                lock: None,
            };
            Ok(CreateStateResponse {
                state: Some(shown.into()),
            })
        });
        Ok(reply.await?)
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = StateId::try_from(request)?;
        let shown = self.backend.kit.db.read(&scope, async |tx| {
            let found = store::state::find_shown(tx, id).await?;
            let shown = found.ok_or_else(|| Error::not_found("state", id))?;
            touchable(&scope, &shown.state)?;
            Ok(shown)
        });
        Ok(Response::new(GetStateResponse {
            state: Some(shown.await?.into()),
        }))
    }

    async fn list_states(&self, request: Request<ListStatesRequest>) -> Result<Response<ListStatesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let mut asked: Asked<StateFilter> = request.try_into()?;
        asked.filter.only = scope.bound("state").map(str::to_owned);
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let after = listing.open::<String>(&asked.token)?;
        let rows = self.backend.kit.db.read(&scope, async |tx| {
            let mut rows = store::state::list(tx, &asked.filter, after.clone(), asked.size.fetch()).await?;
            rows.retain(|shown| touchable(&scope, &shown.state).is_ok());
            Ok(rows)
        });
        let cursor = |shown: &Shown| shown.state.name.as_str().to_owned();
        let (states, next_page_token) = page(&listing, asked.size, rows.await?, cursor, Into::into);
        Ok(Response::new(ListStatesResponse {
            states,
            next_page_token,
        }))
    }

    async fn list_state_versions(
        &self,
        request: Request<ListStateVersionsRequest>,
    ) -> Result<Response<ListStateVersionsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<StateId> = request.try_into()?;
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let below = listing.open(&asked.token)?;
        let rows = self.backend.kit.db.read(&scope, async |tx| {
            find(tx, &scope, asked.filter).await?;
            store::version::list(tx, asked.filter, below, asked.size.fetch()).await
        });
        let (versions, next_page_token) = page(&listing, asked.size, rows.await?, |row| row.number, Into::into);
        Ok(Response::new(ListStateVersionsResponse {
            versions,
            next_page_token,
        }))
    }

    async fn upload_state(
        &self,
        request: Request<Streaming<UploadStateRequest>>,
    ) -> Result<Response<UploadStateResponse>, Status> {
        let (scope, mut messages): (OrgScope, _) = admitted_stream(request)?;
        let mut first = messages.message().await?.ok_or_else(no_message)?;
        let Upload { id, lock, md5 } = Upload::try_from(&first)?;
        let found = self.backend.kit.db.look(&scope, async |tx| {
            let found = store::state::find(tx, id).await?;
            Ok((found, self.backend.limit_of(tx).await?))
        });
        let (found, limit) = found.await?;
        there(&scope, found, id)?;
        let place = Place {
            org: scope.org(),
            state: id,
            version: Uuid::new_v4(),
        };
        let mut arriving = Arriving::new(&self.backend.ring, place, limit, &self.backend.memory);
        arriving.push(&std::mem::take(&mut first.content)).await?;
        while let Some(message) = messages.message().await? {
            let mut violations = Violations::new();
            part(&message.content, &mut violations);
            violations.into_result()?;
            arriving.push(&message.content).await?;
        }
        let mut content = arriving.finish(md5).await?;
        let mut arguments = first.encode_to_vec();
        // Of the arguments only a keyed hash is kept.
        arguments.extend_from_slice(content.digest());
        repeats(&scope, &first.request_id, arguments)?;
        let force = may_force(&scope);
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            let (version, created) = self
                .backend
                .write(tx, &state, lock.as_ref(), &mut content, force)
                .await?;
            Ok(UploadStateResponse {
                version: Some(version.into()),
                created,
            })
        });
        Ok(reply.await?)
    }

    type DownloadStateStream = BoxStream<DownloadStateResponse>;

    async fn download_state(
        &self,
        request: Request<DownloadStateRequest>,
    ) -> Result<Response<Self::DownloadStateStream>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Download { id, number } = request.try_into()?;
        let reading = self.backend.kit.db.read(&scope, async |tx| {
            let state = find(tx, &scope, id).await?;
            tx.about(&state);
            let number = number.unwrap_or(state.latest_version);
            let version = store::version::find(tx, id, number).await?;
            let version = version.ok_or_else(|| Error::not_found("state_version", number))?;
            let reading = self.backend.read(tx, &state, version).await?;
            store::lock::update_seen(tx, id).await?;
            Ok(reading)
        });
        let reading = reading.await?;
        let mut version = Some(reading.version.clone().into());
        let parts = reading.parts().map(move |part| {
            let part = part.map_err(Status::from)?;
            Ok(DownloadStateResponse {
                version: version.take(),
                content: part.to_vec(),
            })
        });
        Ok(Response::new(Box::pin(parts)))
    }
}
