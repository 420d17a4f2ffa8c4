//! Callers that are no persons.

use api::identity::v1::{
    CreateServiceAccountRequest, CreateServiceAccountResponse, DisableServiceAccountRequest,
    DisableServiceAccountResponse, ListServiceAccountsRequest, ListServiceAccountsResponse,
};
use kit::{
    Error,
    auth::{OrgScope, admitted},
    db::Tx,
    page::Listing,
};
use tonic::{Request, Response, Status};

use super::key::tell_ended;
use crate::{
    model::{NewServiceAccount, ServiceAccount, ServiceAccountId},
    rpc::{
        Identity,
        grants::{caller, find_role},
    },
    store, wire,
};

pub(super) async fn create_service_account(
    identity: &Identity,
    request: Request<CreateServiceAccountRequest>,
) -> Result<Response<CreateServiceAccountResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let new = NewServiceAccount::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let caller = caller(tx, &scope).await?;
        let role = find_role(tx, &new.role).await?;
        caller.may_give(&store::role::held_by_role(tx, role.org_id, role.id).await?)?;
        store::service_account::insert(tx, &new, &role).await?;
        tx.about(&new.id);
        Ok(CreateServiceAccountResponse {
            service_account: Some(find(tx, new.id).await?.into()),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn list_service_accounts(
    identity: &Identity,
    request: Request<ListServiceAccountsRequest>,
) -> Result<Response<ListServiceAccountsResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let size = wire::page_size(request.page_size)?;
    let list = Listing::new(&identity.ring, "identity.ListServiceAccounts", scope.org().0, &());
    let after: Option<String> = list.open(&request.page_token)?;
    let accounts = identity
        .db
        .read(&scope, async |tx| store::service_account::list(tx, after, size).await)
        .await?;
    let page = list.page(accounts, size, |last| last.name.as_str().to_owned());
    let page = page.map(Into::into);
    Ok(Response::new(ListServiceAccountsResponse {
        service_accounts: page.items,
        next_page_token: page.next,
    }))
}

pub(super) async fn disable_service_account(
    identity: &Identity,
    request: Request<DisableServiceAccountRequest>,
) -> Result<Response<DisableServiceAccountResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let id = wire::service_account_id(&request.service_account_id)?;
    let answer = identity.db.write(&scope, async |tx| {
        // Keys are made under the same lock: none is made for it that is not revoked here.
        store::organization::lock(tx).await?;
        if store::service_account::disable(tx, id).await? {
            for key in store::api_key::revoke_all(tx, id).await? {
                tell_ended(tx, key);
            }
        }
        let account = find(tx, id).await?;
        tx.about(&account.id);
        Ok(DisableServiceAccountResponse {
            service_account: Some(account.into()),
        })
    });
    Ok(answer.await?)
}

async fn find(tx: &mut Tx, id: ServiceAccountId) -> kit::Result<ServiceAccount> {
    store::service_account::find(tx, id)
        .await?
        .ok_or_else(|| Error::not_found("service_account", id))
}
