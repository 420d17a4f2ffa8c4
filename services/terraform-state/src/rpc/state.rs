//! StateService.

use api::terraform_state::v1::{
    CreateStateRequest, CreateStateResponse, DeleteStateRequest, DeleteStateResponse, DiffStateVersionsRequest,
    DiffStateVersionsResponse, DownloadStateRequest, DownloadStateResponse, GetOutputsRequest, GetOutputsResponse,
    GetStateRequest, GetStateResponse, ListStateResourcesRequest, ListStateResourcesResponse, ListStateVersionsRequest,
    ListStateVersionsResponse, ListStatesRequest, ListStatesResponse, Output, RevealOutputsRequest,
    RevealOutputsResponse, RollbackStateRequest, RollbackStateResponse, State, StateDiff, StateVersion,
    UndeleteStateRequest, UndeleteStateResponse, UpdateStateRequest, UpdateStateResponse, UploadStateRequest,
    UploadStateResponse, state_service_server::StateService,
};
use futures_util::StreamExt;
use kit::{
    Error, Reason, Result, Violations,
    auth::scope::{OrgScope, admitted, admitted_stream, repeats},
    crypto::KeyRing,
    db::Tx,
};
use prost::Message;
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use uuid::Uuid;

use super::{find, hold, listing, no_message, there};
use crate::{
    backend::{Backend, bound_design, may_force, reachable, reading::Reading, touchable},
    content::{Arriving, Place},
    history::{self, unlocked},
    model::{
        StateId, VersionKind,
        difference::{Layout, outputs},
        resource::{Resource, ResourceFilter},
        state::{NewState, Shown, StateFilter},
    },
    store,
    wire::{
        difference::{Compare, End, Rollback, diff, output},
        list::{Asked, page},
        state::{Delete, Download, Update, Upload, part},
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
            rows.retain(|shown| reachable(&scope, &shown.state).is_ok());
            Ok(rows)
        });
        let cursor = |shown: &Shown| shown.state.name.as_str().to_owned();
        let (states, next_page_token) = page(&listing, asked.size, rows.await?, cursor, Into::into);
        Ok(Response::new(ListStatesResponse {
            states,
            next_page_token,
        }))
    }

    async fn update_state(
        &self,
        request: Request<UpdateStateRequest>,
    ) -> Result<Response<UpdateStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Update { id, etag, change } = request.try_into()?;
        if let Some(Some(design)) = change.design {
            scope.within("design", &design.to_string())?;
            self.backend.learn(&scope, design).await?;
        }
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let before = hold(tx, &scope, id).await?;
            before.expect(&etag)?;
            if let Some(design) = change.design
                && design != before.design_id
            {
                if let Some(bound) = bound_design(&scope)? {
                    return Err(Error::new(
                        Reason::CallerNotAllowed,
                        format!("a job's state stays with its design ({bound})"),
                    ));
                }
                if let Some(design) = design
                    && !store::design::exists(tx, design).await?
                {
                    return Err(Error::not_found("design", design));
                }
            }
            store::state::update(tx, id, &change).await?;
            if change.retention.is_some_and(|retention| retention != before.retention) {
                store::compaction::insert(tx, id, self.backend.compact_after).await?;
            }
            Ok(UpdateStateResponse {
                state: shown(tx, id).await?,
            })
        });
        Ok(reply.await?)
    }

    async fn delete_state(
        &self,
        request: Request<DeleteStateRequest>,
    ) -> Result<Response<DeleteStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Delete { id, etag } = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            if !etag.is_empty() {
                state.expect(&etag)?;
            }
            unlocked(tx, &state).await?;
            store::state::update_deleted(tx, id, true).await?;
            Ok(DeleteStateResponse {})
        });
        Ok(reply.await?)
    }

    async fn undelete_state(
        &self,
        request: Request<UndeleteStateRequest>,
    ) -> Result<Response<UndeleteStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = StateId::try_from(request)?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let deleted = store::state::lock_deleted(tx, id).await?;
            let deleted = deleted.ok_or_else(|| Error::not_found("state", id))?;
            reachable(&scope, &deleted)?;
            tx.about(&deleted);
            store::state::update_deleted(tx, id, false).await?;
            Ok(UndeleteStateResponse {
                state: shown(tx, id).await?,
            })
        });
        Ok(reply.await?)
    }

    async fn get_outputs(&self, request: Request<GetOutputsRequest>) -> Result<Response<GetOutputsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let (version, outputs) = self.outputs(&scope, request.try_into()?, false).await?;
        Ok(Response::new(GetOutputsResponse { version, outputs }))
    }

    async fn reveal_outputs(
        &self,
        request: Request<RevealOutputsRequest>,
    ) -> Result<Response<RevealOutputsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let (version, outputs) = self.outputs(&scope, request.try_into()?, true).await?;
        Ok(Response::new(RevealOutputsResponse { version, outputs }))
    }

    async fn list_state_resources(
        &self,
        request: Request<ListStateResourcesRequest>,
    ) -> Result<Response<ListStateResourcesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let mut asked: Asked<ResourceFilter> = request.try_into()?;
        asked.filter.only = scope.bound("state").map(str::to_owned);
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let after = listing.open::<(String, StateId)>(&asked.token)?;
        let rows = self.backend.kit.db.read(&scope, async |tx| {
            if let Some(state) = asked.filter.state {
                find(tx, &scope, state).await?;
            }
            store::resource::list(tx, &asked.filter, after.clone(), asked.size.fetch()).await
        });
        let cursor = |resource: &Resource| (resource.address.clone(), resource.state);
        let (resources, next_page_token) = page(&listing, asked.size, rows.await?, cursor, Into::into);
        Ok(Response::new(ListStateResourcesResponse {
            resources,
            next_page_token,
        }))
    }

    async fn rollback_state(
        &self,
        request: Request<RollbackStateRequest>,
    ) -> Result<Response<RollbackStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Rollback = request.try_into()?;
        if asked.dry_run {
            return Ok(Response::new(self.rehearse(&scope, &asked).await?));
        }
        let target = self.backend.kit.db.look(&scope, async |tx| {
            let state = find(tx, &scope, asked.id).await?;
            let (version, serial) = history::target(tx, &state, asked.number, asked.accept_unsafe_plans).await?;
            Ok((self.backend.read(tx, &state, version).await?, state, serial))
        });
        let (reading, state, serial) = target.await?;
        let mut restored = self.backend.restored(&scope, &state, reading, serial).await?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, asked.id).await?;
            history::may_return(tx, &state, &asked, restored.current).await?;
            let content = &mut restored.content;
            let version = self.backend.append(tx, &state, VersionKind::Rollback, content).await?;
            Ok(RollbackStateResponse {
                serial: version.serial,
                version: Some(version.into()),
                diff: None,
            })
        });
        Ok(reply.await?)
    }

    async fn diff_state_versions(
        &self,
        request: Request<DiffStateVersionsRequest>,
    ) -> Result<Response<DiffStateVersionsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Compare { from, to, prefix } = request.try_into()?;
        let readings = self.backend.kit.db.read(&scope, async |tx| {
            let before = find(tx, &scope, from.state).await?;
            let after = find(tx, &scope, to.state).await?;
            tx.about(&before);
            let was = history::version(tx, &before, from.number).await?;
            let is = history::version(tx, &after, to.number).await?;
            history::open_to_us(&was, "from_version")?;
            history::open_to_us(&is, "to_version")?;
            let before = self.backend.read(tx, &before, was).await?;
            Ok((before, self.backend.read(tx, &after, is).await?))
        });
        let (before, after) = readings.await?;
        let (was, is) = (before.version.clone(), after.version.clone());
        let diff = self.compared(&scope, before, after, prefix).await?;
        Ok(Response::new(DiffStateVersionsResponse {
            from: Some(was.into()),
            to: Some(is.into()),
            diff: Some(diff),
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

impl States {
    /// The outputs of a version, all of them revealed or none that may be a secret.
    async fn outputs(&self, scope: &OrgScope, of: End, reveal: bool) -> Result<(Option<StateVersion>, Vec<Output>)> {
        let reading = self.backend.kit.db.read(scope, async |tx| {
            let state = find(tx, scope, of.state).await?;
            tx.about(&state);
            let version = history::version(tx, &state, of.number).await?;
            history::open_to_us(&version, "version")?;
            self.backend.read(tx, &state, version).await
        });
        let reading = reading.await?;
        let version = reading.version.clone();
        let written = reading.outputs().await?;
        let outputs = outputs(written.expose_secret()).ok_or_else(history::odd_outputs)?;
        let shown = outputs.into_iter().map(|named| output(named, reveal)).collect();
        Ok((Some(version.into()), shown))
    }

    /// What a rollback would change.
    async fn rehearse(&self, scope: &OrgScope, asked: &Rollback) -> Result<RollbackStateResponse> {
        let readings = self.backend.kit.db.read(scope, async |tx| {
            let state = find(tx, scope, asked.id).await?;
            tx.about(&state);
            history::may_return(tx, &state, asked, state.latest_version).await?;
            let (target, serial) = history::target(tx, &state, asked.number, asked.accept_unsafe_plans).await?;
            let current = history::version(tx, &state, None).await?;
            if target.resource_count < 0 || current.resource_count < 0 {
                return Ok((serial, None));
            }
            let current = self.backend.read(tx, &state, current).await?;
            Ok((serial, Some((current, self.backend.read(tx, &state, target).await?))))
        });
        let (serial, readings) = readings.await?;
        let diff = match readings {
            Some((current, target)) => Some(self.compared(scope, current, target, String::new()).await?),
            None => None,
        };
        Ok(RollbackStateResponse {
            version: None,
            serial,
            diff,
        })
    }

    async fn compared(&self, scope: &OrgScope, before: Reading, after: Reading, prefix: String) -> Result<StateDiff> {
        let pair = self.backend.pair(before, after).await?;
        let keys = (self.backend.ring.clone(), scope.org());
        let told =
            move |before: &Layout<'_>, after: &Layout<'_>, ring: &KeyRing, org| diff(before, after, &prefix, ring, org);
        pair.compare(keys, told).await
    }
}

/// A state as it is shown.
async fn shown(tx: &mut Tx, id: StateId) -> Result<Option<State>> {
    Ok(store::state::find_shown(tx, id).await?.map(Into::into))
}
