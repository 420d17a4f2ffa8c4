//! LockService.

use api::terraform_state::v1::{
    ForceUnlockStateRequest, ForceUnlockStateResponse, GetLockRequest, GetLockResponse, ListLockHistoryRequest,
    ListLockHistoryResponse, ListLocksRequest, ListLocksResponse, LockStateRequest, LockStateResponse,
    UnlockStateRequest, UnlockStateResponse, lock_service_server::LockService,
};
use kit::{
    Error, Reason, Result,
    auth::scope::{OrgScope, admitted},
};
use tonic::{Request, Response, Status};

use super::{find, hold, listing};
use crate::{
    backend::{
        Backend,
        lock::{bound_execution, hold_job, release, take, take_away},
    },
    jobs::Jobs,
    model::{
        StateId,
        lock::{Held, LockFilter, Standing},
        micros,
    },
    store,
    wire::{
        list::{Asked, page},
        lock::{Release, Take, TakeAway, asked},
    },
};

/// Answers LockService.
pub(crate) struct Locks {
    pub(crate) backend: Backend,
    /// Who knows how jobs stand.
    pub(crate) jobs: Jobs,
}

#[tonic::async_trait]
impl LockService for Locks {
    async fn get_lock(&self, request: Request<GetLockRequest>) -> Result<Response<GetLockResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = asked(&request)?;
        let held = self.backend.kit.db.read(&scope, async |tx| {
            let state = find(tx, &scope, id).await?;
            let lock = store::lock::find(tx, id).await?;
            Ok(lock.map(|lock| Held {
                state: id,
                name: state.name,
                lock,
                standing: Standing::NoJob,
            }))
        });
        let mut held: Vec<Held> = held.await?.into_iter().collect();
        self.jobs.fill(&scope, &mut held).await;
        Ok(Response::new(GetLockResponse {
            lock: held.pop().map(Into::into),
        }))
    }

    async fn list_locks(&self, request: Request<ListLocksRequest>) -> Result<Response<ListLocksResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let mut asked: Asked<LockFilter> = request.try_into()?;
        asked.filter.only = scope.bound("state").map(str::to_owned);
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let rows = self.backend.kit.db.read(&scope, async |tx| {
            store::lock::list(tx, &asked.filter, after, asked.size.fetch()).await
        });
        let mut rows = rows.await?;
        self.jobs.fill(&scope, &mut rows).await;
        let cursor = |held: &Held| (micros(held.lock.created_at), held.state);
        let (locks, next_page_token) = page(&listing, asked.size, rows, cursor, Into::into);
        Ok(Response::new(ListLocksResponse { locks, next_page_token }))
    }

    async fn list_lock_history(
        &self,
        request: Request<ListLockHistoryRequest>,
    ) -> Result<Response<ListLockHistoryResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<Option<StateId>> = request.try_into()?;
        if asked.filter.is_none() && scope.bound("state").is_some() {
            let refused = Error::new(
                Reason::CallerNotAllowed,
                "a job reads the history of its own state alone",
            );
            return Err(refused.into());
        }
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let below = listing.open(&asked.token)?;
        let rows = self.backend.kit.db.read(&scope, async |tx| {
            if let Some(id) = asked.filter {
                find(tx, &scope, id).await?;
            }
            store::lock::list_past(tx, asked.filter, below, asked.size.fetch()).await
        });
        let (past_locks, next_page_token) = page(&listing, asked.size, rows.await?, |past| past.id, Into::into);
        Ok(Response::new(ListLockHistoryResponse {
            past_locks,
            next_page_token,
        }))
    }

    async fn lock_state(&self, request: Request<LockStateRequest>) -> Result<Response<LockStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Take { id, lock } = request.try_into()?;
        let execution = bound_execution(&scope)?;
        let mut tried = false;
        loop {
            let reply = self.backend.kit.db.write(&scope, async |tx| {
                hold_job(tx).await?;
                let state = hold(tx, &scope, id).await?;
                let taken = take(tx, &state, &lock, execution).await?;
                Ok(LockStateResponse {
                    lock: Some(taken.into()),
                })
            });
            match reply.await {
                Err(error) if self.backend.settled(&error, &mut tried).await => {}
                reply => return Ok(reply?),
            }
        }
    }

    async fn unlock_state(
        &self,
        request: Request<UnlockStateRequest>,
    ) -> Result<Response<UnlockStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Release { id, lock } = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            release(tx, &state, &lock, true).await?;
            Ok(UnlockStateResponse {})
        });
        Ok(reply.await?)
    }

    async fn force_unlock_state(
        &self,
        request: Request<ForceUnlockStateRequest>,
    ) -> Result<Response<ForceUnlockStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let TakeAway { id, lock, reason } = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            take_away(tx, &state, Some(&lock), &reason, true).await?;
            Ok(ForceUnlockStateResponse {})
        });
        Ok(reply.await?)
    }
}
