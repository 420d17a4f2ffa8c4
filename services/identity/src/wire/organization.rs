//! Organizations and their domains.

use api::identity::v1::{
    self, CreateOrganizationRequest, DeleteOrganizationRequest, DomainMailbox, GetOrganizationRequest,
    RemoveDomainRequest, RequestDomainVerificationRequest, UndeleteOrganizationRequest, UpdateOrganizationRequest,
    get_organization_request::Key,
};
use kit::{
    Error, Result, Violations,
    ids::{self, OrgId},
    mask::Mask,
};

use super::timestamp;
use crate::model::{
    Domain, DomainClaim, Etag, Mailbox, Name, NewOrganization, Organization, OrganizationChange, OrganizationKey, Slug,
};

impl TryFrom<CreateOrganizationRequest> for NewOrganization {
    type Error = Error;

    fn try_from(request: CreateOrganizationRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let name = Name::parse("name", &request.name, &mut violations);
        let slug = match request.slug.as_str() {
            "" => None,
            slug => Slug::parse("slug", slug, &mut violations),
        };
        let id = OrgId::new();
        violations.finish(name.map(|name| NewOrganization { id, name, slug }))
    }
}

impl TryFrom<GetOrganizationRequest> for OrganizationKey {
    type Error = Error;

    fn try_from(request: GetOrganizationRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let key = match request.key {
            Some(Key::Id(id)) => ids::required("id", &id, &mut violations).map(OrganizationKey::Id),
            Some(Key::Slug(slug)) => Slug::parse("slug", &slug, &mut violations).map(OrganizationKey::Slug),
            Some(Key::Domain(domain)) => Domain::parse("domain", &domain, &mut violations).map(OrganizationKey::Domain),
            None => {
                violations.add("key", "must be an id, a slug or a domain");
                None
            }
        };
        violations.finish(key)
    }
}

impl TryFrom<UpdateOrganizationRequest> for OrganizationChange {
    type Error = Error;

    fn try_from(request: UpdateOrganizationRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let mask = Mask::parse(request.update_mask.as_ref(), &["name", "slug"], &mut violations);
        violations.check(request.organization.is_some(), "organization", "is required");
        let new = request.organization.unwrap_or_default();
        let masked = |field: &str| mask.as_ref().is_some_and(|mask| mask.has(field));
        let name = masked("name").then(|| Name::parse("organization.name", &new.name, &mut violations));
        let slug = masked("slug").then(|| Slug::parse("organization.slug", &new.slug, &mut violations));
        let etag = Etag::required("etag", request.etag, &mut violations);
        violations.finish(etag.map(|etag| OrganizationChange {
            etag,
            name: name.flatten(),
            slug: slug.flatten(),
        }))
    }
}

pub(crate) fn organization_to_delete(request: DeleteOrganizationRequest) -> Result<Etag> {
    let mut violations = Violations::new();
    let etag = Etag::required("etag", request.etag, &mut violations);
    violations.finish(etag)
}

pub(crate) fn organization_to_restore(request: &UndeleteOrganizationRequest) -> Result<OrgId> {
    let mut violations = Violations::new();
    let org = ids::required("organization_id", &request.organization_id, &mut violations);
    violations.finish(org)
}

/// The domain to prove, and the mailbox that proves it.
pub(crate) fn domain_to_verify(request: &RequestDomainVerificationRequest) -> Result<DomainClaim> {
    let mut violations = Violations::new();
    let domain = Domain::parse("domain", &request.domain, &mut violations);
    let mailbox = match DomainMailbox::try_from(request.mailbox) {
        Ok(DomainMailbox::Unspecified | DomainMailbox::Postmaster) => Some(Mailbox::Postmaster),
        Ok(DomainMailbox::Hostmaster) => Some(Mailbox::Hostmaster),
        Ok(DomainMailbox::Webmaster) => Some(Mailbox::Webmaster),
        Err(_) => {
            violations.add("mailbox", "must be a mailbox that is known");
            None
        }
    };
    let claim = domain.zip(mailbox).and_then(|(domain, mailbox)| {
        let addresses = mailbox.at(&domain).zip(Mailbox::Postmaster.at(&domain));
        violations.check(addresses.is_some(), "domain", "is too long to have a mailbox");
        addresses.map(|(mailbox, counted)| DomainClaim {
            domain,
            mailbox,
            counted,
        })
    });
    violations.finish(claim)
}

pub(crate) fn domain_to_remove(request: &RemoveDomainRequest) -> Result<Domain> {
    let mut violations = Violations::new();
    let domain = Domain::parse("domain", &request.domain, &mut violations);
    violations.finish(domain)
}

/// An organization with its domains, sorted.
pub(crate) fn organization(organization: Organization, domains: Vec<Domain>) -> v1::Organization {
    v1::Organization {
        id: organization.org_id.to_string(),
        name: organization.name.as_str().to_owned(),
        slug: organization.slug.as_str().to_owned(),
        domains: domains.iter().map(|domain| domain.as_str().to_owned()).collect(),
        created_at: Some(timestamp(organization.created_at)),
        deleted_at: organization.deleted_at.map(timestamp),
        etag: Etag::of(organization.version).into(),
    }
}
