//! LockService.

use api::terraform_state::v1::{
    ForceUnlockStateRequest, ForceUnlockStateResponse, LockStateRequest, LockStateResponse, UnlockStateRequest,
    UnlockStateResponse, lock_service_server::LockService,
};
use kit::{
    Result,
    auth::scope::{OrgScope, admitted},
};
use tonic::{Request, Response, Status};

use super::hold;
use crate::{
    backend::{self, Backend},
    wire::lock::{Release, Take, TakeAway},
};

/// Answers LockService.
pub(crate) struct Locks {
    pub(crate) backend: Backend,
}

#[tonic::async_trait]
impl LockService for Locks {
    async fn lock_state(&self, request: Request<LockStateRequest>) -> Result<Response<LockStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Take { id, lock } = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            let taken = backend::take(tx, &state, &lock).await?;
            Ok(LockStateResponse {
                lock: Some(taken.into()),
            })
        });
        Ok(reply.await?)
    }

    async fn unlock_state(
        &self,
        request: Request<UnlockStateRequest>,
    ) -> Result<Response<UnlockStateResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Release { id, lock } = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            backend::release(tx, &state, &lock).await?;
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
            backend::take_away(tx, &state, Some(&lock), &reason).await?;
            Ok(ForceUnlockStateResponse {})
        });
        Ok(reply.await?)
    }
}
