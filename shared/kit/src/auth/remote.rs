//! Identity over gRPC, as the source of keys, permissions and sessions.

use api::identity::v1::{
    CheckSessionRequest, ExchangeApiKeyRequest, GetPermissionSetRequest, GetSigningKeysRequest, PrincipalKind,
    auth_service_client::AuthServiceClient,
};
use async_trait::async_trait;
use uuid::Uuid;

use super::{authority::Authority, permission::PermissionSet};
use crate::{
    error::{Error, Reason, Result},
    ids::{OrgId, Principal},
    rpc::client::{PeerChannel, Peers, peer_error},
};

/// Asks the identity service.
pub(crate) struct RemoteAuthority {
    identity: AuthServiceClient<PeerChannel>,
}

impl RemoteAuthority {
    pub(crate) fn new(peers: &Peers) -> Self {
        RemoteAuthority {
            identity: AuthServiceClient::new(peers.channel("identity")),
        }
    }
}

#[async_trait]
impl Authority for RemoteAuthority {
    async fn signing_keys(&self) -> Result<String> {
        let answer = self
            .identity
            .clone()
            .get_signing_keys(GetSigningKeysRequest {})
            .await
            .map_err(|s| peer_error("identity", s))?;
        Ok(answer.into_inner().key_set)
    }

    async fn permission_set(&self, org: OrgId, principal: Principal) -> Result<(PermissionSet, i64)> {
        let (kind, id) = wire(principal)?;
        let request = GetPermissionSetRequest {
            organization_id: org.to_string(),
            principal_kind: kind.into(),
            principal_id: id.to_string(),
        };
        let answer = self
            .identity
            .clone()
            .get_permission_set(request)
            .await
            .map_err(|s| peer_error("identity", s))?
            .into_inner();
        Ok((PermissionSet::resolve(&answer.permissions), answer.permission_version))
    }

    async fn session_active(&self, session: Uuid, principal: Principal, epoch: i64) -> Result<bool> {
        let (kind, id) = wire(principal)?;
        let request = CheckSessionRequest {
            session_id: session.to_string(),
            principal_kind: kind.into(),
            principal_id: id.to_string(),
            epoch,
        };
        let answer = self
            .identity
            .clone()
            .check_session(request)
            .await
            .map_err(|s| peer_error("identity", s))?;
        Ok(answer.into_inner().active)
    }

    async fn exchange_api_key(&self, key: &str) -> Result<String> {
        let request = ExchangeApiKeyRequest {
            api_key: key.to_owned(),
        };
        match self.identity.clone().exchange_api_key(request).await {
            Ok(answer) => Ok(answer.into_inner().access_token),
            Err(status)
                if matches!(
                    status.code(),
                    tonic::Code::Unauthenticated | tonic::Code::InvalidArgument
                ) =>
            {
                Err(Error::new(Reason::CredentialInvalid, "the credential is not valid").with_source(status))
            }
            Err(status) => Err(peer_error("identity", status)),
        }
    }
}

fn wire(principal: Principal) -> Result<(PrincipalKind, Uuid)> {
    match principal {
        Principal::User(id) => Ok((PrincipalKind::User, id.0)),
        Principal::ApiKey(id) => Ok((PrincipalKind::ApiKey, id)),
        Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => {
            Err(Error::internal("only users and API keys hold permissions"))
        }
    }
}
