//! Notifications: what people of an organization should hear of, and which of them have.
//!
//! A notification is written once and never changes; that somebody read it is a row of its own.

use std::io::Write;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    prelude::{Insertable, Queryable, Selectable},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::{db::About, ids::Principal};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::schema::{notifications, types};

kit::id! {
    /// A notification; the id of the event that told of it.
    NotificationId
}

labelled! {
    /// What a notification tells of.
    NotificationKind {
        /// A check found drift in a state.
        DriftDetected = "drift_detected";
        /// An execution failed.
        ExecutionFailed = "execution_failed";
        /// Contact was lost with a runner that may have changed something.
        ExecutionOutcomeUnknown = "execution_outcome_unknown";
    }
}

/// One line for people: at most [`Title::MOST`] characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, diesel_derive_newtype::DieselNewType)]
pub struct Title(String);

impl Title {
    /// The most characters.
    pub const MOST: usize = 500;

    /// The text on one line, and cut where it is longer.
    pub fn of(text: &str) -> Title {
        let line = |c: char| if c.is_control() { ' ' } else { c };
        let mut title: String = text.chars().map(line).take(Self::MOST).collect();
        if text.chars().nth(Self::MOST).is_some() {
            title.pop();
            title.push('…');
        }
        Title(title)
    }
}

impl From<Title> for String {
    fn from(title: Title) -> String {
        title.0
    }
}

/// A notification's row without its organization.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = notifications, check_for_backend(Pg))]
pub struct Notification {
    /// Its id.
    pub id: NotificationId,
    /// What it tells of.
    pub kind: NotificationKind,
    /// It in one line.
    pub title: Title,
    /// The type of what it is about.
    pub resource_type: String,
    /// The id of what it is about.
    pub resource_id: String,
    /// The design it concerns.
    pub design_id: Option<Uuid>,
    /// When it happened, by the producer's clock.
    pub occurred_at: OffsetDateTime,
}

/// Somebody who reads notifications, as `notification_reads` knows them: `user:<id>`, `key:<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, diesel_derive_newtype::DieselNewType)]
#[serde(transparent)]
pub struct Reader(String);

impl From<Principal> for Reader {
    fn from(principal: Principal) -> Reader {
        Reader(principal.to_string())
    }
}

/// Whose list it is, and what the notifications in it have in common. Part of the list's page tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotificationFilter {
    /// Who asks.
    pub reader: Reader,
    /// Only what they have not read.
    pub unread_only: bool,
}

/// Notifications that somebody marks as read: without doubles, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked(pub Vec<NotificationId>);

impl About for Marked {
    const TYPE: &'static str = "notification";

    /// Empty where there are several: none of them is what the call was about.
    fn id(&self) -> String {
        match self.0.as_slice() {
            [one] => one.to_string(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_one_line_and_not_too_long() {
        assert_eq!(Title::of("a\r\nb\0c"), Title("a  b c".to_owned()));
        assert_eq!(Title::of(&"ä".repeat(500)), Title("ä".repeat(500)));
        assert_eq!(Title::of(&"ä".repeat(501)), Title("ä".repeat(499) + "…"));
    }
}
