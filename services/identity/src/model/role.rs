//! Roles, members, and the rule that nobody gives what they do not hold.

use diesel::prelude::*;
use kit::{
    Error, Reason, Result,
    auth::PermissionSet,
    db::About,
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
}

/// A role that can be given in an organization.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = crate::schema::roles)]
pub(crate) struct Role {
    pub(crate) org_id: OrgId,
    pub(crate) id: RoleId,
    pub(crate) name: Name,
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
    /// # Errors
    /// ESCALATION with what the holder lacks.
    pub(crate) fn may_give(&self, other: &Held) -> Result<()> {
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
