//! Roles, members, and the rule that nobody gives what they do not hold.

use diesel::prelude::*;
use diesel_derive_newtype::DieselNewType;
use kit::{
    Error, Reason, Result, Violations,
    auth::PermissionSet,
    db::About,
    failpoint,
    ids::{OrgId, UserId},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Email, Name, Slug};

kit::id! {
    /// A role, of an organization or of the system.
    RoleId
}

impl RoleId {
    /// The system's owner, who holds everything there is and will be.
    pub(crate) const OWNER: RoleId = RoleId(Uuid::from_u128(0x00000000_0000_7000_8000_000000000001));
    /// The system's admin.
    pub(crate) const ADMIN: RoleId = RoleId(Uuid::from_u128(0x00000000_0000_7000_8000_000000000002));
}

/// A role that can be given in an organization.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = crate::schema::roles)]
pub(crate) struct Role {
    pub(crate) org_id: OrgId,
    pub(crate) id: RoleId,
    pub(crate) name: Name,
    pub(crate) description: Description,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
}

impl Role {
    /// Whether it is the system's, which no organization changes.
    pub(crate) fn is_system(&self) -> bool {
        self.org_id == OrgId::PLATFORM
    }

    /// The etag of the role as it is now.
    pub(crate) fn etag(&self) -> String {
        format!("r{}", self.version)
    }

    /// Refuses to change a role of the system, and whoever has seen another version than the current one.
    ///
    /// # Errors
    /// SYSTEM_ROLE, or ETAG_MISMATCH with the current etag.
    pub(crate) fn changes_from(&self, etag: Option<&str>) -> Result<()> {
        if self.is_system() {
            return Err(Error::new(
                Reason::SystemRole,
                "the roles of the system stay as they are",
            ));
        }
        if etag.is_some_and(|etag| etag != self.etag()) {
            return Err(
                Error::new(Reason::EtagMismatch, "the role has changed since; read it again")
                    .with("current_etag", self.etag()),
            );
        }
        Ok(())
    }
}

impl About for RoleId {
    const TYPE: &'static str = "role";
    fn id(&self) -> String {
        self.to_string()
    }
}

/// What something is for: at most 500 characters.
#[derive(Clone, Debug, PartialEq, Eq, DieselNewType)]
pub(crate) struct Description(String);

impl Description {
    pub(crate) fn parse(field: &str, text: String, violations: &mut Violations) -> Self {
        violations.length(field, &text, 0, 500);
        Description(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a role of an organization shall be.
#[derive(Debug)]
pub(crate) struct RoleContent {
    pub(crate) name: Name,
    pub(crate) description: Description,
    /// Sorted, each once.
    pub(crate) grants: Vec<String>,
}

/// Who stands in the way of a role's deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holders {
    pub(crate) members: i64,
    /// Those that are not disabled.
    pub(crate) service_accounts: i64,
    /// The open ones.
    pub(crate) invitations: i64,
}

impl Holders {
    /// Lets a role go that nobody has.
    ///
    /// # Errors
    /// ROLE_IN_USE with the counts.
    pub(crate) fn none(self) -> Result<()> {
        if self.members + self.service_accounts + self.invitations == 0 {
            return Ok(());
        }
        Err(Error::new(Reason::RoleInUse, "somebody has the role")
            .with("members", self.members.to_string())
            .with("service_accounts", self.service_accounts.to_string())
            .with("invitations", self.invitations.to_string()))
    }
}

/// A principal's place in an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) role: Name,
    pub(crate) held: Held,
}

/// A member of an organization, as colleagues see them.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct Member {
    pub(crate) user_id: UserId,
    pub(crate) email: Email,
    pub(crate) username: Slug,
    pub(crate) first_name: Name,
    pub(crate) last_name: Name,
    pub(crate) role_org_id: OrgId,
    pub(crate) role_id: RoleId,
    pub(crate) role: Name,
    pub(crate) joined_at: OffsetDateTime,
}

impl Member {
    /// Whether the member owns the organization.
    pub(crate) fn is_owner(&self) -> bool {
        (self.role_org_id, self.role_id) == (OrgId::PLATFORM, RoleId::OWNER)
    }
}

impl About for Member {
    const TYPE: &'static str = "member";
    fn id(&self) -> String {
        self.user_id.to_string()
    }
}

/// A user's place in an organization, as the user sees it.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct Membership {
    pub(crate) org_id: OrgId,
    pub(crate) organization: Name,
    pub(crate) slug: Slug,
    pub(crate) role_org_id: OrgId,
    pub(crate) role_id: RoleId,
    pub(crate) role: Name,
    pub(crate) joined_at: OffsetDateTime,
}

/// What a principal or a role holds at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    permissions: PermissionSet,
    /// As they are written: also what the registry does not know yet.
    grants: Vec<String>,
}

impl Held {
    /// What these grants give.
    pub(crate) fn of<S: AsRef<str>>(grants: &[S]) -> Self {
        Held {
            permissions: PermissionSet::resolve(grants),
            grants: grants.iter().map(|grant| grant.as_ref().to_owned()).collect(),
        }
    }

    /// What both hold.
    pub(crate) fn cut_by(&self, other: &Held) -> Self {
        let pairs = self
            .grants
            .iter()
            .flat_map(|ours| other.grants.iter().map(move |theirs| (ours, theirs)));
        Held {
            permissions: self.permissions.intersection(&other.permissions),
            grants: pairs.filter_map(|(ours, theirs)| in_both(ours, theirs)).collect(),
        }
    }

    /// The permissions.
    pub(crate) fn permissions(&self) -> &PermissionSet {
        &self.permissions
    }

    /// The permissions, taken out.
    pub(crate) fn into_permissions(self) -> PermissionSet {
        self.permissions
    }

    /// Lets the holder give or take `other`: what it means now, and what it will mean once the registry knows more.
    /// Each grant must lie within one of the holder's.
    ///
    /// The switch `identity.escalation` lets everybody give everything, for tests.
    ///
    /// # Errors
    /// ESCALATION with what the holder lacks.
    pub(crate) fn may_give(&self, other: &Held) -> Result<()> {
        if failpoint::without("identity.escalation") {
            return Ok(());
        }
        let beyond = other.permissions.beyond(&self.permissions);
        if !beyond.is_empty() {
            return Err(escalation(&beyond.join(",")));
        }
        let covers = |ours: &String, grant: &String| in_both(ours, grant).as_ref() == Some(grant);
        let uncovered: Vec<&str> = other
            .grants
            .iter()
            .filter(|grant| !self.grants.iter().any(|ours| covers(ours, grant)))
            .map(String::as_str)
            .collect();
        if uncovered.is_empty() {
            Ok(())
        } else {
            Err(escalation(&uncovered.join(",")))
        }
    }
}

/// The grant of what two grants both mean, segment by segment; none if they have nothing in common.
fn in_both(one: &str, other: &str) -> Option<String> {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.split('.').collect(), other.split('.').collect());
    let segments = one.iter().zip(&other).map(|(&one, &other)| match (one, other) {
        ("*", same) | (same, "*") => Some(same),
        _ => (one == other).then_some(one),
    });
    let segments: Option<Vec<&str>> = segments.collect();
    segments
        .filter(|_| one.len() == other.len())
        .map(|segments| segments.join("."))
}

fn escalation(permissions: &str) -> Error {
    Error::new(Reason::Escalation, "nobody grants what they do not hold").with("permissions", permissions)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nobody_gives_what_they_do_not_hold() {
        let viewer = Held::of(&["designs.*.read"]);
        let editor = Held::of(&["designs.*.*"]);
        assert!(editor.may_give(&viewer).is_ok() && editor.may_give(&editor).is_ok());
        assert_eq!(viewer.may_give(&editor).unwrap_err().reason(), Reason::Escalation);
        assert!(editor.cut_by(&viewer).may_give(&editor).is_err());
    }

    #[test]
    fn all_that_is_known_is_less_than_everything() {
        let owner = Held::of(&["*.*.*"]);
        let names: Vec<&str> = owner.permissions().names().collect();
        let equal_today = Held::of(&names);
        assert!(equal_today.may_give(&owner).is_err());
        assert!(owner.may_give(&equal_today).is_ok() && owner.may_give(&owner).is_ok());
        assert!(owner.cut_by(&equal_today).may_give(&owner).is_err());
    }

    #[test]
    fn a_grant_that_means_nothing_yet_is_given_only_from_within_ones_own() {
        let owner = Held::of(&["*.*.*"]);
        let admin = Held::of(&["designs.*.*", "audit.*.read"]);
        let key = Held::of(&["*.*.read", "pipelines.run.write"]);
        let future = |grant: &str| Held::of(&[grant]);
        for (holder, grant, may) in [
            (&owner, "pipelines.*.*", true),
            (&admin, "pipelines.*.*", false),
            (&admin, "designs.castle.write", true),
            (&admin, "audit.*.*", false),
            (&key, "pipelines.*.read", true),
            (&key, "pipelines.run.*", false),
            (&key.cut_by(&owner), "pipelines.run.write", true),
            (&key.cut_by(&admin), "pipelines.run.write", false),
            (&key.cut_by(&admin), "designs.castle.read", true),
            (&Held::default(), "pipelines.*.*", false),
        ] {
            assert_eq!(holder.may_give(&future(grant)).is_ok(), may, "{holder:?} {grant}");
        }
    }
}
