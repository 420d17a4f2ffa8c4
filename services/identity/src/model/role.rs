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
    /// `*.*.*`: also what the registry will know one day.
    everything: bool,
}

impl Held {
    const EVERYTHING: &'static str = "*.*.*";

    /// What these grants give.
    pub(crate) fn of<S: AsRef<str>>(grants: &[S]) -> Self {
        Held {
            permissions: PermissionSet::resolve(grants),
            everything: grants.iter().any(|grant| grant.as_ref() == Self::EVERYTHING),
        }
    }

    /// What both hold.
    pub(crate) fn cut_by(&self, other: &Held) -> Self {
        Held {
            permissions: self.permissions.intersection(&other.permissions),
            everything: self.everything && other.everything,
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

    /// Lets the holder give or take `other` for good: also what its wildcards will mean one day.
    ///
    /// # Errors
    /// ESCALATION with what the holder lacks.
    pub(crate) fn may_give(&self, other: &Held) -> Result<()> {
        self.may_let_use(other)?;
        if other.everything && !self.everything {
            Err(escalation(Self::EVERYTHING))
        } else {
            Ok(())
        }
    }

    /// Lets the holder hand `other` to a key, whose wildcards are cut by what the holder has at the time of use.
    ///
    /// # Errors
    /// ESCALATION with what the holder lacks.
    pub(crate) fn may_let_use(&self, other: &Held) -> Result<()> {
        let beyond = other.permissions.beyond(&self.permissions);
        if beyond.is_empty() {
            Ok(())
        } else {
            Err(escalation(&beyond.join(",")))
        }
    }
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
}
