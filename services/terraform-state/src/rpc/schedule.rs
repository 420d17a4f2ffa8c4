//! DriftScheduleService.

use api::terraform_state::v1::{
    CreateDriftScheduleRequest, CreateDriftScheduleResponse, DeleteDriftScheduleRequest, DeleteDriftScheduleResponse,
    GetDriftScheduleRequest, GetDriftScheduleResponse, ListDriftSchedulesRequest, ListDriftSchedulesResponse,
    UpdateDriftScheduleRequest, UpdateDriftScheduleResponse, drift_schedule_service_server::DriftScheduleService,
};
use kit::{
    Error, Result,
    auth::scope::{OrgScope, admitted},
    service::Kit,
};
use tonic::{Request, Response, Status};

use super::{find, listing};
use crate::{
    model::{
        Caller,
        schedule::{MOST_SCHEDULES, Schedule, ScheduleFilter, ScheduleId, Shown},
    },
    store,
    wire::{
        list::{Asked, page},
        schedule::{New, One, Update, shown},
    },
};

/// Answers DriftScheduleService.
pub(crate) struct Schedules {
    pub(crate) kit: Kit,
}

fn missing(id: ScheduleId) -> Error {
    Error::not_found("drift_schedule", id)
}

#[tonic::async_trait]
impl DriftScheduleService for Schedules {
    async fn create_drift_schedule(
        &self,
        request: Request<CreateDriftScheduleRequest>,
    ) -> Result<Response<CreateDriftScheduleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let New { state, terms } = request.try_into()?;
        let reply = self.kit.db.write(&scope, async |tx| {
            find(tx, &scope, state).await?;
            if store::schedule::count(tx).await? >= MOST_SCHEDULES {
                return Err(Error::violation("drift_schedule", "is one too many: there are 10,000"));
            }
            let author = Caller::of(tx.principal())?;
            let now = store::now(tx).await?;
            let schedule = Schedule {
                org_id: tx.org(),
                id: ScheduleId::new(),
                state_id: state,
                pipeline_id: terms.pipeline_id,
                cron: terms.cron.clone(),
                time_zone: terms.time_zone.clone(),
                window_seconds: terms.window_seconds,
                jitter_seconds: terms.jitter_seconds,
                paused: terms.paused,
                due_at: None,
                run_at: None,
                run_before: None,
                last_run_id: None,
                author_kind: author.kind,
                author_id: author.id,
                revision: 1,
                created_at: now,
                updated_at: now,
            }
            .due_after(now);
            store::schedule::insert(tx, &schedule).await?;
            tx.about(&schedule);
            Ok(CreateDriftScheduleResponse {
                drift_schedule: Some(shown((schedule, None))),
            })
        });
        Ok(reply.await?)
    }

    async fn get_drift_schedule(
        &self,
        request: Request<GetDriftScheduleRequest>,
    ) -> Result<Response<GetDriftScheduleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let One(id) = request.try_into()?;
        let found = self.kit.db.read(&scope, async |tx| {
            scope.within("state", "")?;
            store::schedule::find(tx, id).await
        });
        let schedule = found.await?.ok_or_else(|| missing(id))?;
        Ok(Response::new(GetDriftScheduleResponse {
            drift_schedule: Some(shown(schedule)),
        }))
    }

    async fn list_drift_schedules(
        &self,
        request: Request<ListDriftSchedulesRequest>,
    ) -> Result<Response<ListDriftSchedulesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<ScheduleFilter> = request.try_into()?;
        let listing = listing(&self.kit.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let rows = self.kit.db.read(&scope, async |tx| {
            match asked.filter.state {
                Some(id) => drop(find(tx, &scope, id).await?),
                None => scope.within("state", "")?,
            }
            store::schedule::list(tx, &asked.filter, after, asked.size.fetch()).await
        });
        let cursor = |(schedule, _): &Shown| schedule.id;
        let (drift_schedules, next_page_token) = page(&listing, asked.size, rows.await?, cursor, shown);
        Ok(Response::new(ListDriftSchedulesResponse {
            drift_schedules,
            next_page_token,
        }))
    }

    async fn update_drift_schedule(
        &self,
        request: Request<UpdateDriftScheduleRequest>,
    ) -> Result<Response<UpdateDriftScheduleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Update { id, etag, change } = request.try_into()?;
        let reply = self.kit.db.write(&scope, async |tx| {
            scope.within("state", "")?;
            let before = store::schedule::lock(tx, id).await?.ok_or_else(|| missing(id))?;
            tx.about(&before);
            before.expect(&etag)?;
            let author = Caller::of(tx.principal())?;
            let now = store::now(tx).await?;
            let revision = before.revision + 1;
            let schedule = Schedule {
                author_kind: author.kind,
                author_id: author.id,
                revision,
                updated_at: now,
                ..before.changed(change.clone())
            };
            store::schedule::update(tx, &schedule.due_after(now)).await?;
            let now = store::schedule::find(tx, id).await?;
            Ok(UpdateDriftScheduleResponse {
                drift_schedule: now.map(shown),
            })
        });
        Ok(reply.await?)
    }

    async fn delete_drift_schedule(
        &self,
        request: Request<DeleteDriftScheduleRequest>,
    ) -> Result<Response<DeleteDriftScheduleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let One(id) = request.try_into()?;
        let reply = self.kit.db.write(&scope, async |tx| {
            scope.within("state", "")?;
            let schedule = store::schedule::delete(tx, id).await?;
            tx.about(&schedule.ok_or_else(|| missing(id))?);
            Ok(DeleteDriftScheduleResponse {})
        });
        Ok(reply.await?)
    }
}
