//! Organizations and the domains that they own.

use diesel::prelude::*;
use diesel_derive_newtype::DieselNewType;
use kit::{Violations, db::About, ids::OrgId};
use time::{Duration, OffsetDateTime};

use super::{Email, Etag, Name, Slug};

/// How long a deleted organization can be restored. Its rows are kept after that too, but nobody brings it back.
pub(crate) const RESTORABLE: Duration = Duration::days(30);

/// The most organizations that a user owns, those that can be restored among them.
pub(crate) const MOST_OWNED: i64 = 100;

/// How long the token for a domain lives.
pub(crate) const DOMAIN_LIFETIME: Duration = Duration::hours(24);

/// The most domains of an organization.
pub(crate) const MOST_DOMAINS: usize = 100;

/// An organization, deleted or not.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = crate::schema::organizations)]
pub(crate) struct Organization {
    pub(crate) org_id: OrgId,
    pub(crate) name: Name,
    pub(crate) slug: Slug,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) deleted_at: Option<OffsetDateTime>,
}

impl About for Organization {
    const TYPE: &'static str = "organization";
    fn id(&self) -> String {
        self.org_id.to_string()
    }
}

/// The organization to make.
#[derive(Debug)]
pub(crate) struct NewOrganization {
    pub(crate) id: OrgId,
    pub(crate) name: Name,
    /// None: made from the name.
    pub(crate) slug: Option<Slug>,
}

/// What an organization is found by.
#[derive(Debug)]
pub(crate) enum OrganizationKey {
    Id(OrgId),
    Slug(Slug),
    Domain(Domain),
}

impl OrganizationKey {
    pub(crate) fn text(&self) -> String {
        match self {
            OrganizationKey::Id(id) => id.to_string(),
            OrganizationKey::Slug(slug) => slug.as_str().to_owned(),
            OrganizationKey::Domain(domain) => domain.as_str().to_owned(),
        }
    }
}

/// Changes to an organization that was seen at an etag.
#[derive(Debug)]
pub(crate) struct OrganizationChange {
    pub(crate) etag: Etag,
    pub(crate) name: Option<Name>,
    pub(crate) slug: Option<Slug>,
}

/// A DNS name in lower case: at least two labels of `a-z`, `0-9` and inner `-`, the last of them no number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, DieselNewType)]
pub(crate) struct Domain(String);

impl Domain {
    pub(crate) fn parse(field: &str, text: &str, violations: &mut Violations) -> Option<Self> {
        let domain = text.to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = domain.rsplit('.').next().unwrap_or_default();
        let well_formed = domain.len() <= 253
            && domain.contains('.')
            && domain.split('.').all(label)
            && !last.bytes().all(|b| b.is_ascii_digit());
        violations.check(
            well_formed,
            field,
            "must be a DNS name of at least two labels and at most 253 ASCII characters",
        );
        well_formed.then_some(Domain(domain))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl About for Domain {
    const TYPE: &'static str = "domain";
    fn id(&self) -> String {
        self.0.clone()
    }
}

/// The mailboxes of RFC 2142 that only the owner of a domain reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mailbox {
    Postmaster,
    Hostmaster,
    Webmaster,
}

impl Mailbox {
    /// Its address at a domain; none where that would be too long for an address.
    pub(crate) fn at(self, domain: &Domain) -> Option<Email> {
        let name = match self {
            Mailbox::Postmaster => "postmaster",
            Mailbox::Hostmaster => "hostmaster",
            Mailbox::Webmaster => "webmaster",
        };
        let address = format!("{name}@{}", domain.as_str());
        Email::parse("domain", &address, &mut Violations::new())
    }
}

kit::id! {
    /// A token that was sent for a domain.
    DomainVerificationId
}

/// A domain to prove.
#[derive(Debug)]
pub(crate) struct DomainClaim {
    pub(crate) domain: Domain,
    /// Where the token goes.
    pub(crate) mailbox: Email,
    /// The one mailbox by which the messages to all of the domain's are counted.
    pub(crate) counted: Email,
}

/// A domain that waits for its token.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct DomainVerification {
    pub(crate) domain: Domain,
    pub(crate) token_hash: Vec<u8>,
    /// Not expired.
    pub(crate) open: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_dns_name_compared_without_case() {
        let parse = |text: &str| Domain::parse("domain", text, &mut Violations::new());
        assert_eq!(parse("Example.COM"), parse("example.com"));
        let longest = format!(
            "{}.com",
            ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(57)].join(".")
        );
        assert_eq!(longest.len(), 253);
        for right in ["a.bc", "1.example.com", "xn--mller-kva.example", longest.as_str()] {
            assert!(parse(right).is_some(), "{right}");
        }
        for wrong in [
            "",
            "com",
            ".com",
            "example.com.",
            "a..b",
            "-a.com",
            "a-.com",
            "a_b.com",
            "müller.de",
            "exa mple.com",
            "a@example.com",
            "127.0.0.1",
            "example.com\n",
            &format!("{}.com", "a".repeat(64)),
            &format!("x{longest}"),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn mailboxes_are_those_of_the_domain() {
        let domain = Domain("example.com".to_owned());
        let addresses = [Mailbox::Postmaster, Mailbox::Hostmaster, Mailbox::Webmaster]
            .map(|mailbox| mailbox.at(&domain).map(|address| address.as_str().to_owned()));
        let addresses: Vec<String> = addresses.into_iter().flatten().collect();
        assert_eq!(
            addresses,
            [
                "postmaster@example.com",
                "hostmaster@example.com",
                "webmaster@example.com"
            ]
        );
    }
}
