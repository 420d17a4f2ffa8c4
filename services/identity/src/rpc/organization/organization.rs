//! Organizations themselves.

use api::{
    events::v1::{UserChanged, event::Payload},
    identity::v1::{
        self, CreateOrganizationRequest, CreateOrganizationResponse, DeleteOrganizationRequest,
        DeleteOrganizationResponse, GetOrganizationRequest, GetOrganizationResponse, ListOrganizationsRequest,
        ListOrganizationsResponse, UndeleteOrganizationRequest, UndeleteOrganizationResponse,
        UpdateOrganizationRequest, UpdateOrganizationResponse,
    },
};
use kit::{
    Error, Reason, Result,
    auth::{OrgScope, UserScope, admitted},
    db::Tx,
    ids::{OrgId, Principal},
    page::Listing,
};
use tonic::{Request, Response, Status};

use super::{insert_organization, rights};
use crate::{
    model::{
        MOST_OWNED, NewOrganization, Organization, OrganizationChange, OrganizationKey, RESTORABLE, RoleId,
        from_microseconds, microseconds,
    },
    rpc::{Identity, ending::end_sessions, grants::tell_permissions_changed},
    store,
    wire::{self, timestamp},
};

pub(super) async fn create_organization(
    identity: &Identity,
    request: Request<CreateOrganizationRequest>,
) -> Result<Response<CreateOrganizationResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let new = NewOrganization::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let user = scope.user();
        let gone = || Error::new(Reason::SessionRevoked, "the session has ended");
        let owned = store::organization::count_owned(tx, user).await?.ok_or_else(gone)?;
        if owned >= MOST_OWNED {
            return Err(Error::violation(
                "name",
                format!("is of one too many: a user owns at most {MOST_OWNED}"),
            ));
        }
        tx.enter(new.id, Principal::User(user)).await?;
        insert_organization(tx, &new.name, new.slug.as_ref(), "slug").await?;
        store::member::insert(tx, user, OrgId::PLATFORM, RoleId::OWNER).await?;
        let profile = store::user::find(tx, user).await?.ok_or_else(gone)?;
        tx.tell(Payload::UserChanged(UserChanged {
            user_id: user.to_string(),
            first_name: profile.first_name.as_str().to_owned(),
            last_name: profile.last_name.as_str().to_owned(),
            version: profile.version,
        }));
        let organization = here(tx).await?;
        tx.about(&organization);
        Ok(CreateOrganizationResponse {
            organization: Some(shown(tx, organization).await?),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn get_organization(
    identity: &Identity,
    request: Request<GetOrganizationRequest>,
) -> Result<Response<GetOrganizationResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let key = OrganizationKey::try_from(request)?;
    let read = identity.db.read(&scope, async |tx| {
        let found = store::organization::find_entered(tx, scope.user(), &key).await?;
        let found = found.ok_or_else(|| Error::not_found("organization", key.text()))?;
        shown(tx, found).await
    });
    Ok(Response::new(GetOrganizationResponse {
        organization: Some(read.await?),
    }))
}

pub(super) async fn list_organizations(
    identity: &Identity,
    request: Request<ListOrganizationsRequest>,
) -> Result<Response<ListOrganizationsResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let size = wire::page_size(request.page_size)?;
    let (user, with_restorable) = (scope.user(), request.show_deleted);
    let list = Listing::new(&identity.ring, "identity.ListOrganizations", user.0, &with_restorable);
    let after = match list.open::<(i64, OrgId)>(&request.page_token)? {
        None => None,
        Some((joined_at, org)) => Some((from_microseconds(joined_at)?, org)),
    };
    let read = identity.db.read(&scope, async |tx| {
        let listed = store::organization::list_entered(tx, user, with_restorable, after, size).await?;
        let orgs: Vec<OrgId> = listed.iter().map(|(organization, _)| organization.org_id).collect();
        Ok((listed, store::domain::list(tx, &orgs).await?))
    });
    let (listed, domains) = read.await?;
    let page = list.page(listed, size, |(last, joined_at)| {
        (microseconds(*joined_at), last.org_id)
    });
    let page = page.map(|(organization, _)| {
        let own = domains.iter().filter(|(org, _)| *org == organization.org_id);
        let own = own.map(|(_, domain)| domain.clone()).collect();
        wire::organization(organization, own)
    });
    Ok(Response::new(ListOrganizationsResponse {
        organizations: page.items,
        next_page_token: page.next,
    }))
}

pub(super) async fn update_organization(
    identity: &Identity,
    request: Request<UpdateOrganizationRequest>,
) -> Result<Response<UpdateOrganizationResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let change = OrganizationChange::try_from(request)?;
    let answer = identity.db.write(&scope, async |tx| {
        rights(tx, &scope).await?;
        change.etag.expect(here(tx).await?.version, "organization")?;
        let organization = store::organization::update(tx, &change).await?;
        tx.about(&organization);
        Ok(UpdateOrganizationResponse {
            organization: Some(shown(tx, organization).await?),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn delete_organization(
    identity: &Identity,
    request: Request<DeleteOrganizationRequest>,
) -> Result<Response<DeleteOrganizationResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let etag = wire::organization_to_delete(request)?;
    let mut ended = Vec::new();
    let answer = identity.db.write(&scope, async |tx| {
        rights(tx, &scope).await?;
        etag.expect(here(tx).await?.version, "organization")?;
        let organization = store::organization::update_deleted(tx, true).await?;
        // Tokens are void by their sessions; those of keys hold nothing, as every service learns by asking anew.
        ended = end_sessions(tx, None).await?;
        tell_permissions_changed(tx).await?;
        tx.about(&organization);
        Ok(DeleteOrganizationResponse {
            restorable_until: organization.deleted_at.map(|at| timestamp(at + RESTORABLE)),
        })
    });
    let answer = answer.await?;
    identity.hide_all(&ended).await;
    Ok(answer)
}

pub(super) async fn undelete_organization(
    identity: &Identity,
    request: Request<UndeleteOrganizationRequest>,
) -> Result<Response<UndeleteOrganizationResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let org = wire::organization_to_restore(&request)?;
    let answer = identity.db.write(&scope, async |tx| {
        let user = scope.user();
        let not_found = || Error::not_found("organization", org);
        // Seen by the user's own membership; only then is the organization entered, and looked at again under its lock.
        let found = store::organization::find_restorable(tx, user, org).await?;
        found.ok_or_else(not_found)?;
        tx.enter(org, Principal::User(user)).await?;
        store::organization::lock(tx).await?;
        let found = store::organization::find_restorable(tx, user, org).await?;
        found.ok_or_else(not_found)?;
        let organization = store::organization::update_deleted(tx, false).await?;
        tell_permissions_changed(tx).await?;
        tx.about(&organization);
        Ok(UndeleteOrganizationResponse {
            organization: Some(shown(tx, organization).await?),
        })
    });
    Ok(answer.await?)
}

/// The transaction's organization, which is there.
pub(super) async fn here(tx: &mut Tx) -> Result<Organization> {
    let organization = store::organization::find(tx).await?;
    organization.ok_or_else(|| Error::internal("a transaction is in an organization that is not there"))
}

/// An organization as its members see it.
pub(super) async fn shown(tx: &mut Tx, organization: Organization) -> Result<v1::Organization> {
    let domains = store::domain::list(tx, &[organization.org_id]).await?;
    let domains = domains.into_iter().map(|(_, domain)| domain).collect();
    Ok(wire::organization(organization, domains))
}
