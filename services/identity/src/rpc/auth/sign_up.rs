//! Becoming a user: nothing exists before the address is proven.

use api::identity::v1::{SignUpRequest, SignUpResponse, VerifyEmailRequest, VerifyEmailResponse};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{NewAccount, RoleId},
    rpc::organization::insert_organization,
    store,
};
use api::events::v1::{UserChanged, event::Payload};
use kit::{
    auth::{PublicScope, admitted},
    ids::{OrgId, Principal},
};

pub(super) async fn sign_up(
    identity: &Identity,
    request: Request<SignUpRequest>,
) -> Result<Response<SignUpResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let new = NewAccount::try_from(request)?;
    let password_hash = identity.passwords.hash(&new.password).await?;
    let answer = identity.db.write(&scope, async |tx| {
        tx.enter(new.org, Principal::User(new.user)).await?;
        let slug = new.organization_slug.as_ref();
        insert_organization(tx, &new.organization_name, slug, "organization_slug").await?;
        store::user::insert(tx, &new, &password_hash).await?;
        store::member::insert(tx, new.user, OrgId::PLATFORM, RoleId::OWNER).await?;
        tx.about(&new);
        tx.tell(Payload::UserChanged(UserChanged {
            user_id: new.user.to_string(),
            first_name: new.first_name.as_str().to_owned(),
            last_name: new.last_name.as_str().to_owned(),
            version: 1,
        }));
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
