//! The domains that an organization has proven to own.

use api::identity::v1::{
    RemoveDomainRequest, RemoveDomainResponse, RequestDomainVerificationRequest, RequestDomainVerificationResponse,
    VerifyDomainRequest, VerifyDomainResponse,
};
use kit::{
    Error, Result, Violations,
    auth::{OrgScope, admitted},
    db::Tx,
    failpoint,
};
use tonic::{Request, Response, Status};

use super::{
    organization::{here, shown},
    rights,
};
use crate::{
    model::{DOMAIN_LIFETIME, Domain, DomainVerificationId, EmailToken, Letter, MOST_DOMAINS, Mail, Purpose, now},
    rpc::Identity,
    store,
    wire::{self, email_token_invalid, timestamp},
};

pub(super) async fn request_domain_verification(
    identity: &Identity,
    request: Request<RequestDomainVerificationRequest>,
) -> Result<Response<RequestDomainVerificationResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let asked = wire::domain_to_verify(&request)?;
    let domain = asked.domain;
    let answer = identity.db.write(&scope, async |tx| {
        rights(tx, &scope).await?;
        room_for(tx, &domain).await?;
        let expires_at = now() + DOMAIN_LIFETIME;
        // Whoever asks too often for a domain is answered the same, and nobody's mailbox is flooded: the messages to all
        // mailboxes of a domain are counted as one's.
        if identity.post.may_send(&asked.counted).await {
            let id = DomainVerificationId::new();
            let token = EmailToken::new(Purpose::Domain, id.0);
            store::domain::insert_verification(tx, id, &domain, &token.hash(&identity.ring), expires_at).await?;
            let letter = Letter::DomainVerification {
                domain: domain.as_str().to_owned(),
                token: token.into_text(),
            };
            store::mail::enqueue(tx, &identity.ring, &Mail::new(asked.mailbox.clone(), letter)).await?;
        }
        tx.about(&domain);
        Ok(RequestDomainVerificationResponse {
            expires_at: Some(timestamp(expires_at)),
        })
    });
    let answer = answer.await?;
    identity.post.ring();
    Ok(answer)
}

pub(super) async fn verify_domain(
    identity: &Identity,
    request: Request<VerifyDomainRequest>,
) -> Result<Response<VerifyDomainResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let token = wire::email_token(Purpose::Domain, &request.token, Violations::new())?;
    let id = DomainVerificationId(token.id());
    let answer = identity.db.write(&scope, async |tx| {
        // Another organization sees no such row.
        let asked = store::domain::find_verification(tx, id).await?;
        let asked = asked.ok_or_else(email_token_invalid)?;
        if !asked.open || !token.matches(&identity.ring, &asked.token_hash) {
            return Err(email_token_invalid());
        }
        if let Some(former) = store::domain::claim(tx, &asked.domain).await? {
            tx.acted_in(former, "LoseDomain", &asked.domain);
        }
        failpoint::hit_in("identity.domain_claimed", asked.domain.as_str()).await?;
        rights(tx, &scope).await?;
        room_for(tx, &asked.domain).await?;
        // Who claims the domain at the same moment has waited since the claim: a token that is gone by now was used.
        let used = store::domain::delete_verifications(tx, &asked.domain).await?;
        if !used.contains(&id) {
            return Err(email_token_invalid());
        }
        tx.about(&asked.domain);
        let organization = here(tx).await?;
        Ok(VerifyDomainResponse {
            organization: Some(shown(tx, organization).await?),
        })
    });
    Ok(answer.await?)
}

pub(super) async fn remove_domain(
    identity: &Identity,
    request: Request<RemoveDomainRequest>,
) -> Result<Response<RemoveDomainResponse>, Status> {
    let (scope, request): (OrgScope, _) = admitted(request)?;
    let domain = wire::domain_to_remove(&request)?;
    let answer = identity.db.write(&scope, async |tx| {
        rights(tx, &scope).await?;
        if !store::domain::delete(tx, &domain).await? {
            return Err(Error::not_found("domain", domain.as_str()));
        }
        let organization = store::organization::update_version(tx).await?;
        tx.about(&domain);
        Ok(RemoveDomainResponse {
            organization: Some(shown(tx, organization).await?),
        })
    });
    Ok(answer.await?)
}

/// Lets an organization have one more domain, or one that it has already.
async fn room_for(tx: &mut Tx, domain: &Domain) -> Result<()> {
    let org = tx.org();
    let own = store::domain::list(tx, &[org]).await?;
    let others = own.iter().filter(|(_, own)| own != domain).count();
    if others < MOST_DOMAINS {
        return Ok(());
    }
    let most = format!("is one too many: an organization has at most {MOST_DOMAINS}");
    Err(Error::violation("domain", most))
}
