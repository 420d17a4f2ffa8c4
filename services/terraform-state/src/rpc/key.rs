//! KeyService.

use std::{collections::BTreeMap, time::Duration};

use api::terraform_state::v1::{
    GetKeyStatusRequest, GetKeyStatusResponse, Key, RotateKeysRequest, RotateKeysResponse,
    key_service_server::KeyService,
};
use futures_util::stream;
use kit::{
    Error, Result,
    auth::scope::{OrgScope, admitted},
    db::Tx,
    ids::{OrgId, Principal},
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use crate::{
    backend::Backend,
    model::key::{Rotation, RotationId},
    rotate::{counts, total},
    store,
};

/// How often a rotation's progress is told.
const EVERY: Duration = Duration::from_millis(250);

/// Answers KeyService.
pub(crate) struct Keys {
    pub(crate) backend: Backend,
}

#[tonic::async_trait]
impl KeyService for Keys {
    async fn get_key_status(
        &self,
        request: Request<GetKeyStatusRequest>,
    ) -> Result<Response<GetKeyStatusResponse>, Status> {
        let (scope, GetKeyStatusRequest {}): (OrgScope, _) = admitted(request)?;
        let read = self.backend.kit.db.read(&scope, async |tx| {
            let counts = counts(&self.backend, scope.org(), tx).await?;
            Ok((counts, store::key::find_last(tx).await?))
        });
        let (counts, rotation) = read.await?;
        let counts: BTreeMap<String, (i64, i64)> = counts
            .into_iter()
            .map(|sealed| {
                let id = sealed.key_id.map(hex::encode).unwrap_or_default();
                (id, (sealed.versions, sealed.drift_values))
            })
            .collect();
        let ring: Vec<String> = self.backend.ring.ids().map(|id| id.to_string()).collect();
        let of_ring = ring.iter().enumerate().map(|(at, id)| {
            let (versions, drift_values) = counts.get(id).copied().unwrap_or_default();
            Key {
                id: id.clone(),
                primary: at == 0,
                held: true,
                versions,
                drift_values,
            }
        });
        let others = counts
            .iter()
            .filter(|(id, _)| !ring.contains(id))
            .map(|(id, (versions, drift_values))| Key {
                id: id.clone(),
                primary: false,
                held: false,
                versions: *versions,
                drift_values: *drift_values,
            });
        Ok(Response::new(GetKeyStatusResponse {
            keys: of_ring.chain(others).collect(),
            rotation: rotation.map(Into::into),
        }))
    }

    type RotateKeysStream = BoxStream<RotateKeysResponse>;

    async fn rotate_keys(
        &self,
        request: Request<RotateKeysRequest>,
    ) -> Result<Response<Self::RotateKeysStream>, Status> {
        let (scope, RotateKeysRequest { .. }): (OrgScope, _) = admitted(request)?;
        let key = self.backend.ring.current_id();
        let begun = self.backend.kit.db.write(&scope, async |tx| {
            store::key::end_others(tx, key).await?;
            let total = total(&self.backend, &counts(&self.backend, scope.org(), tx).await?);
            let rotation = match store::key::insert(tx, key, total).await? {
                Some(rotation) => rotation,
                None => store::key::find_last(tx)
                    .await?
                    .ok_or_else(|| Error::internal("a rotation neither runs nor can be started"))?,
            };
            tx.about(&rotation);
            Ok(RotateKeysResponse {
                rotation: Some(rotation.into()),
            })
        });
        let begun = begun.await?.into_inner();
        let id = begun.rotation.as_ref().and_then(|rotation| rotation.id.parse().ok());
        let id: RotationId = id.ok_or_else(|| Error::internal("a rotation has no id"))?;
        let following = Following {
            backend: self.backend.clone(),
            org: scope.org(),
            principal: scope.principal(),
            id,
        };
        let told = stream::try_unfold(
            (following, Some(begun), false),
            |(following, first, ended)| async move {
                if ended {
                    return Ok(None);
                }
                let answer = match first {
                    Some(first) => first,
                    None => following.next().await?,
                };
                let ended = answer
                    .rotation
                    .as_ref()
                    .is_none_or(|rotation| rotation.finished_at.is_some());
                Ok(Some((answer, (following, None, ended))))
            },
        );
        Ok(Response::new(Box::pin(told)))
    }
}

/// A rotation that a caller is told of.
struct Following {
    backend: Backend,
    org: OrgId,
    principal: Principal,
    id: RotationId,
}

impl Following {
    async fn next(&self) -> Result<RotateKeysResponse> {
        tokio::time::sleep(EVERY).await;
        let kit = &self.backend.kit;
        let scope = kit.scope();
        let found = kit.db.look(&scope, async |tx: &mut Tx| {
            tx.enter(self.org, self.principal).await?;
            store::key::find(tx, self.id).await
        });
        let rotation: Option<Rotation> = found.await?;
        let rotation = rotation.ok_or_else(|| Error::internal("a rotation is missing"))?;
        Ok(RotateKeysResponse {
            rotation: Some(rotation.into()),
        })
    }
}
