//! The caller's own sessions, in every organization.

use api::identity::v1::{
    ListSessionsRequest, ListSessionsResponse, RevokeAllSessionsRequest, RevokeAllSessionsResponse,
    RevokeSessionRequest, RevokeSessionResponse, session_service_server::SessionService,
};
use kit::{
    Error,
    auth::{UserScope, admitted},
    ids::{OrgId, Principal},
    page::Listing,
};
use tonic::{Request, Response, Status};

use super::{
    Identity,
    session::{revoke, revoke_all},
};
use crate::{
    model::{Account, SessionId, from_microseconds, microseconds},
    store, wire,
};

#[tonic::async_trait]
impl SessionService for Identity {
    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let (scope, request): (UserScope, _) = admitted(request)?;
        let size = wire::page_size(request.page_size)?;
        let user = scope.user();
        let list = Listing::new(&self.ring, "identity.ListSessions", user.0, &());
        let after = match list.open::<(i64, SessionId)>(&request.page_token)? {
            None => None,
            Some((created_at, session)) => Some((from_microseconds(created_at)?, session)),
        };
        let read = self.db.read(&scope, async |tx| {
            let sessions = store::session::list_standing(tx, user, after, size).await?;
            Ok((sessions, store::member::exists(tx, OrgId::PLATFORM, user).await?))
        });
        let (sessions, of_platform) = read.await?;
        let page = list.page(sessions, size, |last| (microseconds(last.created_at), last.id));
        let page = page.map(|session| wire::session(session, SessionId(scope.session()), of_platform));
        Ok(Response::new(ListSessionsResponse {
            sessions: page.items,
            next_page_token: page.next,
        }))
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        let (scope, request): (UserScope, _) = admitted(request)?;
        let session = wire::session_to_revoke(&request)?;
        let user = scope.user();
        let answer = self.db.write(&scope, async |tx| {
            let org = store::session::find_org(tx, session, user).await?;
            let org = org.ok_or_else(|| Error::not_found("session", session))?;
            // Its organization's trail tells of it, and its rows are to be written there alone.
            tx.enter(org, Principal::User(user)).await?;
            revoke(tx, session).await?;
            tx.about(&session);
            Ok(RevokeSessionResponse {})
        });
        let answer = answer.await?;
        self.hide(session).await;
        Ok(answer)
    }

    async fn revoke_all_sessions(
        &self,
        request: Request<RevokeAllSessionsRequest>,
    ) -> Result<Response<RevokeAllSessionsResponse>, Status> {
        let (scope, request): (UserScope, _) = admitted(request)?;
        let user = scope.user();
        let kept = request.keep_current.then(|| SessionId(scope.session()));
        let mut ended = Vec::new();
        let answer = self.db.write(&scope, async |tx| {
            ended = revoke_all(tx, user, kept).await?;
            tx.enter(scope.org().unwrap_or(OrgId::PLATFORM), Principal::User(user))
                .await?;
            tx.about(&Account(user));
            Ok(RevokeAllSessionsResponse {
                revoked: i32::try_from(ended.len()).unwrap_or(i32::MAX),
            })
        });
        let answer = answer.await?;
        self.hide_all(&ended).await;
        Ok(answer)
    }
}
