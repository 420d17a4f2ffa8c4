//! States: their names, what is asked for, and what is shown.

use std::collections::BTreeMap;

use diesel::prelude::{Queryable, Selectable};
use kit::{Error, Reason, Result, db::About};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

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

/// What an organization sorts its states by: at most 64 keys with a value each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The most of them.
    pub const MOST: usize = 64;
    /// What a key must be.
    pub const KEY: &'static str =
        "must be 1 to 63 of A-Z, a-z, 0-9, _, ., - and /, starting with a letter or digit, and unique";
    /// What a value must be.
    pub const VALUE: &'static str = "must be at most 128 of A-Z, a-z, 0-9, _, ., - and /";

    /// Adds a label: whether its key, and whether its value, is one.
    pub fn add(&mut self, key: String, value: String) -> (bool, bool) {
        let letters = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/'))
        };
        let starts = key.starts_with(|c: char| c.is_ascii_alphanumeric());
        let good_key = starts && key.len() <= 63 && letters(&key) && !self.0.contains_key(&key);
        let good_value = value.len() <= 128 && letters(&value);
        if good_key && good_value && self.0.len() < Self::MOST {
            self.0.insert(key, value);
        }
        (good_key, good_value)
    }

    /// As their column holds them.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self.0)
    }

    /// Each key and value.
    pub fn into_pairs(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter()
    }
}

impl From<serde_json::Value> for Labels {
    fn from(json: serde_json::Value) -> Labels {
        // The service alone writes the column.
        Labels(serde_json::from_value(json).unwrap_or_default())
    }
}

/// What tells one revision of a state from another: at most 64 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// An etag as it came in; any other text than the current etag is merely not current.
    pub fn parse(text: String) -> Option<Etag> {
        (text.chars().count() <= 64).then_some(Etag(text))
    }

    /// The etag of a revision.
    pub fn of(revision: i64) -> Etag {
        Etag(format!("r{revision}"))
    }

    /// Refuses a caller who has seen another revision of this than the current one, which has this etag.
    ///
    /// # Errors
    /// ETAG_MISMATCH with the current etag.
    pub fn expect(self, seen: &Etag, of: &str) -> Result<()> {
        if *seen == self {
            return Ok(());
        }
        let changed = format!("the {of} has changed since");
        Err(Error::new(Reason::EtagMismatch, changed).with("current_etag", self.0))
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Etag> for String {
    fn from(etag: Etag) -> String {
        etag.0
    }
}

/// What of a state is to become something else.
#[derive(Clone, Debug, Default)]
pub struct StateChange {
    /// Its labels.
    pub labels: Option<Labels>,
    /// Its design, or none.
    pub design: Option<Option<DesignId>>,
    /// Which of its versions are kept.
    pub retention: Option<Retention>,
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
    /// Only those that are locked, or only the others.
    pub locked: Option<bool>,
    /// Only those whose holder was last heard of longer ago than this.
    #[serde(serialize_with = "milliseconds")]
    pub silent_for: Option<Duration>,
    /// The deleted ones instead of the others.
    pub deleted: bool,
}

fn milliseconds<S: serde::Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.whole_milliseconds()).serialize(to)
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
    /// What the organization sorts it by.
    #[diesel(deserialize_as = serde_json::Value)]
    pub labels: Labels,
    /// Grows with each change of its labels, design and deletion.
    pub revision: i64,
    /// When it was deleted.
    pub deleted_at: Option<OffsetDateTime>,
    /// The greatest serial that it ever had.
    pub greatest_serial: i64,
    /// What its listed resources are known by.
    pub resources_hash: Option<Vec<u8>>,
    /// How many resources are not listed.
    pub unlisted_resources: i32,
}

impl State {
    /// The current etag.
    pub fn etag(&self) -> Etag {
        Etag::of(self.revision)
    }

    /// Refuses a caller who has seen another revision than the current one.
    ///
    /// # Errors
    /// ETAG_MISMATCH with the current etag.
    pub fn expect(&self, etag: &Etag) -> Result<()> {
        self.etag().expect(etag, "state")
    }

    /// Refuses what is deleted.
    ///
    /// # Errors
    /// STATE_DELETED.
    pub fn there(&self) -> Result<()> {
        match self.deleted_at {
            None => Ok(()),
            Some(_) => Err(Error::new(Reason::StateDeleted, "the state is deleted")),
        }
    }

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

    #[test]
    fn labels_are_few_and_plain() {
        let mut labels = Labels::default();
        let mut add = |key: &str, value: &str| labels.add(key.to_owned(), value.to_owned());
        assert_eq!(add("team/env", "prod-1.eu"), (true, true));
        assert_eq!(add("x", ""), (true, true));
        for key in ["", "-a", "a b", "ü", "x", &"k".repeat(64)] {
            assert_eq!(add(key, "v"), (false, true), "{key}");
        }
        for value in ["ü", "a b", &"v".repeat(129)] {
            assert_eq!(add("new", value), (true, false), "{value}");
        }
        assert_eq!(Labels::from(labels.json()), labels);
        let pairs: Vec<_> = labels.into_pairs().collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(pairs, [(text("team/env"), text("prod-1.eu")), (text("x"), text(""))]);
    }
}
