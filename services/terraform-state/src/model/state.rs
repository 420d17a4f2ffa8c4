//! States: their names, what is asked for, and what is shown.

use diesel::prelude::{Queryable, Selectable};
use kit::db::About;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    Caller, DesignId, PrincipalId, PrincipalKind, StateId, lock::Lock, retention::Retention, version::Version,
};
use crate::schema::states;

/// The name of a state, unique in its organization; also its path below `/v1/states/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, diesel_derive_newtype::DieselNewType)]
#[serde(transparent)]
pub struct StateName(String);

impl StateName {
    /// What it must be.
    pub const RULE: &'static str = "must be 1 to 200 of A-Z, a-z, 0-9, _, ., - and /, starting and ending with a letter \
                                    or digit, without // and without a segment . or ..";

    /// The name, if it is one.
    pub fn parse(text: &str) -> Option<StateName> {
        let shaped = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/'));
        let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let ends = end(text.bytes().next()) && end(text.bytes().next_back());
        let segments = text.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        (shaped && ends && segments && text.len() <= 200).then(|| StateName(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<StateName> for String {
    fn from(name: StateName) -> String {
        name.0
    }
}

/// A state to make.
#[derive(Clone, Debug)]
pub struct NewState {
    /// Its name.
    pub name: StateName,
    /// The design it belongs to.
    pub design: Option<DesignId>,
}

/// Which states are asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StateFilter {
    /// Only those of this design.
    pub design: Option<DesignId>,
    /// Only names that start so.
    pub prefix: String,
    /// Only this one: all that a job sees.
    pub only: Option<String>,
}

/// A state as it stands in its row.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = states)]
pub struct State {
    /// Its id.
    pub id: StateId,
    /// Its name.
    pub name: StateName,
    /// The design it belongs to.
    pub design_id: Option<DesignId>,
    /// The number of its current version; 0 for one that was never written.
    pub latest_version: i64,
    /// The lock that was given back or taken away last.
    pub released_lock_id: Option<String>,
    /// Whether it was taken away.
    pub released_by_force: bool,
    /// What kind of caller did that.
    pub released_by_kind: Option<PrincipalKind>,
    /// The caller that did.
    pub released_by_id: Option<PrincipalId>,
    /// When.
    pub released_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last written.
    pub updated_at: OffsetDateTime,
    /// Which of its versions are kept.
    #[diesel(embed)]
    pub retention: Retention,
}

impl State {
    /// Who gave the last lock back or took it away.
    pub fn released_by(&self) -> Option<Caller> {
        let (kind, id) = self.released_by_kind.zip(self.released_by_id)?;
        Some(Caller { kind, id })
    }
}

impl About for State {
    const TYPE: &'static str = "state";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// A state with what is shown beside it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The state.
    pub state: State,
    /// Its current version.
    pub version: Option<Version>,
    /// Who holds it.
    pub lock: Option<Lock>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_that_means_one_thing() {
        for good in ["a", "prod", "team-1/net.work/eu_1", "A/b/C", &"x".repeat(200)] {
            assert!(StateName::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "a/./b",
            "..",
            "-a",
            "a-",
            "a b",
            "ä",
            "a%2Fb",
            "a?b",
            &"x".repeat(201),
        ] {
            assert!(StateName::parse(bad).is_none(), "{bad}");
        }
    }
}
