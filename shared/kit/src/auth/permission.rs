//! Permissions: `<slice>.<resource>.<verb>`, granted by name or with `*` for whole segments.

use std::collections::BTreeSet;

use api::policy::PERMISSIONS;

/// What a principal may do: a set of names from the registry, wildcards already resolved.
///
/// Names that the registry does not know are not in it: unknown is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionSet(BTreeSet<&'static str>);

impl PermissionSet {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything that the grants cover.
    pub fn resolve<S: AsRef<str>>(grants: impl IntoIterator<Item = S>) -> Self {
        let mut set = BTreeSet::new();
        for grant in grants {
            set.extend(
                PERMISSIONS
                    .iter()
                    .copied()
                    .filter(|permission| covers(grant.as_ref(), permission)),
            );
        }
        PermissionSet(set)
    }

    /// Whether it holds a permission.
    pub fn holds(&self, permission: &str) -> bool {
        self.0.contains(permission)
    }

    /// What both hold.
    pub fn intersection(&self, other: &PermissionSet) -> PermissionSet {
        PermissionSet(self.0.intersection(&other.0).copied().collect())
    }

    /// What this holds and `other` does not: the escalation, if a holder of `other` were to grant this.
    pub fn beyond(&self, other: &PermissionSet) -> Vec<&'static str> {
        self.0.difference(&other.0).copied().collect()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

/// Whether a grant has the form of one: three segments, each a name or `*`.
pub fn is_grant(grant: &str) -> bool {
    let mut segments = 0;
    grant.split('.').all(|segment| {
        segments += 1;
        segment == "*" || (!segment.is_empty() && segment.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    }) && segments == 3
}

fn covers(grant: &str, permission: &str) -> bool {
    let (mut ours, mut asked) = (grant.split('.'), permission.split('.'));
    loop {
        match (ours.next(), asked.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == "*" || one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_a_whole_segment() {
        assert!(covers("designs.design.write", "designs.design.write"));
        assert!(covers("designs.*.read", "designs.version.read"));
        assert!(covers("*.*.*", "audit.audit_log.read"));
        assert!(!covers("designs.*", "designs.design.write"));
        assert!(!covers("designs.des*.write", "designs.design.write"));
        assert!(!covers("*", "designs.design.write"));
    }

    #[test]
    fn unknown_names_grant_nothing() {
        assert_eq!(
            PermissionSet::resolve(["designs.castle.write", "nonsense"]),
            PermissionSet::none()
        );
        assert!(PermissionSet::resolve(["*.*.*"]).holds("designs.design.publish"));
        assert!(is_grant("designs.*.read") && !is_grant("designs.*") && !is_grant("de*.x.y") && !is_grant(""));
    }
}
