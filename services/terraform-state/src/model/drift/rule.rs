//! Rules: what checks ignore for a time, and how bad drift is.

use diesel::{
    pg::Pg,
    prelude::{Insertable, Queryable, Selectable},
};
use kit::{db::About, ids::OrgId};
use time::OffsetDateTime;

use super::{DriftKind, Severity, plan::Finding};
use crate::{
    model::{PrincipalId, PrincipalKind, StateId},
    schema::drift_rules,
};

kit::id! {
    /// A rule; later ones are greater.
    DriftRuleId
}

/// The most rules of an organization.
pub(crate) const MOST_RULES: i64 = 500;

/// What a caller says of a rule.
#[derive(Clone, Debug)]
pub struct NewRule {
    /// The state it is for; `None` for all.
    pub state: Option<StateId>,
    /// Pattern of addresses.
    pub address: String,
    /// Pattern of types.
    pub resource_type: String,
    /// Pattern of paths.
    pub path: String,
    /// What became of the resource; `None` for either.
    pub kind: Option<DriftKind>,
    /// What it gives; `None` where it ignores.
    pub severity: Option<Severity>,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
}

/// A rule's row.
#[derive(Clone, Debug, Insertable, Queryable, Selectable)]
#[diesel(table_name = drift_rules, check_for_backend(Pg))]
pub struct Rule {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: DriftRuleId,
    /// The state it is for; `None` for all.
    pub state_id: Option<StateId>,
    /// Pattern of addresses; empty for all.
    pub address: String,
    /// Pattern of types; empty for all.
    pub resource_type: String,
    /// Pattern of paths; empty for all.
    pub path: String,
    /// What became of the resource; `None` for either.
    pub kind: Option<DriftKind>,
    /// What it gives; `None` where it ignores.
    pub severity: Option<Severity>,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// What kind of caller made it.
    pub author_kind: PrincipalKind,
    /// Who made it.
    pub author_id: PrincipalId,
    /// When.
    pub created_at: OffsetDateTime,
}

impl About for Rule {
    const TYPE: &'static str = "drift_rule";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl Rule {
    fn fits(&self, finding: &Finding) -> bool {
        let text = |pattern: &str, text: &str| pattern.is_empty() || matches(pattern, text);
        self.kind.is_none_or(|kind| kind == finding.kind)
            && text(&self.resource_type, finding.resource_type.as_str())
            && text(&self.address, finding.address.as_str())
            && text(&self.path, &finding.path)
    }
}

/// What is to be thought of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) severity: Severity,
    pub(crate) ignored: bool,
}

/// By the rules that are in force, newest first.
pub(crate) fn judge(rules: &[Rule], finding: &Finding) -> Judgement {
    let mut fitting = rules.iter().filter(|rule| rule.fits(finding));
    let given = fitting.clone().find_map(|rule| rule.severity);
    Judgement {
        severity: given.unwrap_or_else(|| severity(finding.resource_type.as_str(), finding.kind, &finding.path)),
        ignored: fitting.any(|rule| rule.severity.is_none()),
    }
}

/// Whether a text is as a pattern says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Roots of attributes that say nothing of what a resource does.
const IDLE: [&str; 10] = [
    "tags",
    "tags_all",
    "labels",
    "effective_labels",
    "terraform_labels",
    "annotations",
    "description",
    "comment",
    "etag",
    "fingerprint",
];
/// Parts of types by which safety is touched whatever changes.
const GUARDS: [&str; 17] = [
    "security_group",
    "firewall",
    "network_acl",
    "iam",
    "role",
    "policy",
    "public_access",
    "encryption",
    "kms",
    "key_vault",
    "secret",
    "certificate",
    "waf",
    "access_key",
    "bucket_acl",
    "user",
    "permission",
];
/// Parts of attributes by which safety is touched whatever the type.
const GUARDING: [&str; 20] = [
    "ingress",
    "egress",
    "cidr",
    "security_group",
    "policy",
    "role",
    "acl",
    "public",
    "encrypt",
    "kms",
    "sse",
    "tls",
    "ssl",
    "password",
    "secret",
    "token",
    "principal",
    "permission",
    "protection",
    "logging",
];

/// How bad drift is where no rule says so.
fn severity(resource_type: &str, kind: DriftKind, path: &str) -> Severity {
    if kind == DriftKind::Deleted {
        return Severity::Critical;
    }
    let path = path.to_lowercase();
    let root = path.split(['[', '.']).next().unwrap_or_default();
    let timed = ["_at", "_time", "_date", "timestamp", "last_modified", "last_updated"];
    if IDLE.contains(&root) || timed.iter().any(|end| root.ends_with(end)) {
        return Severity::Info;
    }
    let words = |text: &str, part: &str| format!("_{}_", text.replace(['.', '[', ']', '"', '-'], "_")).contains(part);
    let guarded = GUARDS
        .iter()
        .any(|part| words(&resource_type.to_lowercase(), &format!("_{part}")));
    if guarded || GUARDING.iter().any(|part| words(&path, &format!("_{part}"))) {
        return Severity::Critical;
    }
    Severity::Warning
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*", "any"),
            ("aws_*", "aws_vpc"),
            ("*.web[*]", "module.a.aws_instance.web[0]"),
            ("a*b*c", "a--b-b--c"),
            ("tags*", "tags[\"ä\"]"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "ab"),
            ("a*", "ba"),
            ("*a", "ab"),
            ("a*b*c", "a-c"),
            ("ab*b", "ab"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn safety_is_critical_and_labels_are_of_little_interest() {
        for (resource_type, path, expected) in [
            ("aws_instance", "tags[\"Name\"]", Severity::Info),
            ("aws_security_group", "tags_all[\"Name\"]", Severity::Info),
            ("aws_lambda_function", "last_modified", Severity::Info),
            ("aws_security_group", "ingress[0].from_port", Severity::Critical),
            ("aws_iam_role", "max_session_duration", Severity::Critical),
            (
                "aws_s3_bucket_public_access_block",
                "block_public_acls",
                Severity::Critical,
            ),
            ("aws_db_instance", "publicly_accessible", Severity::Critical),
            ("aws_db_instance", "storage_encrypted", Severity::Critical),
            ("aws_s3_bucket", "acl", Severity::Critical),
            ("aws_instance", "instance_type", Severity::Warning),
            ("aws_sqs_queue", "visibility_timeout_seconds", Severity::Warning),
        ] {
            assert_eq!(
                severity(resource_type, DriftKind::Changed, path),
                expected,
                "{resource_type} {path}"
            );
        }
        assert_eq!(severity("aws_vpc", DriftKind::Deleted, ""), Severity::Critical);
    }
}
