//! Becoming a user: nothing exists before the address is proven.

use api::identity::v1::{SignUpRequest, SignUpResponse, VerifyEmailRequest, VerifyEmailResponse};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{NewAccount, RoleId, Slug},
    store,
};
use api::events::v1::{UserChanged, event::Payload};
use kit::{
    Error, Result,
    auth::{PublicScope, admitted},
    db::Tx,
    ids::{OrgId, Principal},
};

/// How often another slug is tried for an organization that named none.
const SLUG_TRIES: usize = 8;

pub(super) async fn sign_up(
    identity: &Identity,
    request: Request<SignUpRequest>,
) -> Result<Response<SignUpResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let new = NewAccount::try_from(request)?;
    let password_hash = identity.passwords.hash(&new.password).await?;
    let answer = identity.db.write(&scope, async |tx| {
        tx.enter(new.org, Principal::User(new.user)).await?;
        let slug = insert_organization(tx, &new).await?;
        store::user::insert(tx, &new, &password_hash).await?;
        store::member::insert(tx, new.user, OrgId::PLATFORM, RoleId::OWNER).await?;
        tx.about(&new);
        tx.tell(Payload::UserChanged(UserChanged {
            user_id: new.user.to_string(),
            first_name: new.first_name.as_str().to_owned(),
            last_name: new.last_name.as_str().to_owned(),
            version: 1,
        }));
        let _ = slug;
        Ok(SignUpResponse { expires_at: None })
    });
    Ok(answer.await?)
}

pub(super) async fn verify_email(
    _identity: &Identity,
    _request: Request<VerifyEmailRequest>,
) -> Result<Response<VerifyEmailResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

/// Makes the organization under the slug that it names, or else under the first free one that its name suggests.
async fn insert_organization(tx: &mut Tx, new: &NewAccount) -> Result<Slug> {
    let name = &new.organization_name;
    let taken = || store::exists("organization_slug");
    if let Some(slug) = &new.organization_slug {
        return if store::organization::insert(tx, name, slug).await? {
            Ok(slug.clone())
        } else {
            Err(taken())
        };
    }
    let stem = Slug::of_name(name);
    let mut slug = stem.clone();
    for _ in 0..SLUG_TRIES {
        if store::organization::insert(tx, name, &slug).await? {
            return Ok(slug);
        }
        slug = stem.with_suffix();
    }
    Err(taken())
}
