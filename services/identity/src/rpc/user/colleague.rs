//! The members of an organization as users.

use api::identity::v1::{GetUserRequest, GetUserResponse, ListUsersRequest, ListUsersResponse};
use kit::{
    Error,
    auth::{OrgScope, admitted},
    page::Listing,
};
use tonic::{Request, Response, Status};

use crate::{
    rpc::Identity,
    store,
    wire::{self, Search},
};

pub(super) async fn get_user(
    identity: &Identity,
    request: Request<GetUserRequest>,
) -> Result<Response<GetUserResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let user = wire::user_asked_for(&request)?;
    let find = identity
        .db
        .read(&scope, async |tx| store::user::find_colleague(tx, user).await);
    let colleague = find.await?.ok_or_else(|| Error::not_found("user", user))?;
    Ok(Response::new(GetUserResponse {
        user: Some(colleague.into()),
    }))
}

pub(super) async fn list_users(
    identity: &Identity,
    request: Request<ListUsersRequest>,
) -> Result<Response<ListUsersResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let search = Search::try_from(request)?;
    let list = Listing::new(&identity.ring, "identity.ListUsers", scope.org().0, &search.query);
    let after: Option<String> = list.open(&search.page_token)?;
    let (query, after, size) = (search.query.as_str(), after.as_deref(), search.size);
    let find = identity.db.read(&scope, async |tx| {
        store::user::list_colleagues(tx, query, after, size).await
    });
    let page = list.page(find.await?, size, |last| last.profile.username.as_str().to_owned());
    let page = page.map(Into::into);
    Ok(Response::new(ListUsersResponse {
        users: page.items,
        next_page_token: page.next,
    }))
}
