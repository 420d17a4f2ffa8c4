//! The caller's own sessions.

use api::identity::v1::{
    ListSessionsRequest, ListSessionsResponse, RevokeAllSessionsRequest, RevokeAllSessionsResponse,
    RevokeSessionRequest, RevokeSessionResponse, session_service_server::SessionService,
};
use tonic::{Request, Response, Status};

use super::Identity;

#[tonic::async_trait]
impl SessionService for Identity {
    async fn list_sessions(
        &self,
        _request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn revoke_session(
        &self,
        _request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn revoke_all_sessions(
        &self,
        _request: Request<RevokeAllSessionsRequest>,
    ) -> Result<Response<RevokeAllSessionsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}
