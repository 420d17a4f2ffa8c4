//! The keys that access tokens are signed with: where each stands, and what must become of it.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    prelude::*,
    serialize::{self, IsNull, Output, ToSql},
    sql_types::Text,
};
use kit::{
    auth::token::{ACCESS_LIFETIME, SKEW},
    db::About,
};
use std::io::Write;
use time::{Duration, OffsetDateTime};

/// How long a key signs before another comes by itself.
const REPLACED_AFTER: Duration = Duration::days(30);
/// How long a retired key is believed: as long as a token that it signed last, on the slowest clock.
const BELIEVED_FOR: Duration = Duration::seconds((ACCESS_LIFETIME.as_secs() + SKEW.as_secs()).cast_signed());

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub(crate) enum KeyState {
    Pending,
    Active,
    Retired,
    Revoked,
}

impl KeyState {
    fn name(self) -> &'static str {
        match self {
            KeyState::Pending => "pending",
            KeyState::Active => "active",
            KeyState::Retired => "retired",
            KeyState::Revoked => "revoked",
        }
    }
}

impl ToSql<Text, Pg> for KeyState {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.name().as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Text, Pg> for KeyState {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let known = [Self::Pending, Self::Active, Self::Retired, Self::Revoked];
        let text = value.as_bytes();
        let state = known.into_iter().find(|state| state.name().as_bytes() == text);
        state.ok_or_else(|| "no state of a signing key".into())
    }
}

/// A key; its seed is sealed, and gone once it signs nothing more.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = crate::schema::signing_keys)]
pub(crate) struct SigningKey {
    pub(crate) number: i64,
    #[diesel(column_name = kid)]
    pub(crate) id: String,
    pub(crate) public_key: String,
    pub(crate) seed: Option<Vec<u8>>,
    pub(crate) state: KeyState,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) activates_at: OffsetDateTime,
    pub(crate) retired_at: Option<OffsetDateTime>,
}

impl About for SigningKey {
    const TYPE: &'static str = "signing_key";
    fn id(&self) -> String {
        self.id.clone()
    }
}

/// The keys that are believed at a moment of the database's clock, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// Of the set; 0 before the first key.
    pub(crate) version: i64,
    pub(crate) now: OffsetDateTime,
    pub(crate) keys: Vec<SigningKey>,
}

/// What must become of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A new key that signs at once: there is none.
    Begin,
    /// A new key, to take over as soon as it is known.
    Replace,
    /// It signs from here on.
    Activate(String),
    /// It signs nothing more, and its tokens are good until they end.
    Retire(String),
    /// All its tokens have ended.
    Drop(String),
}

impl Standing {
    fn of(&self, state: KeyState) -> impl DoubleEndedIterator<Item = &SigningKey> {
        self.keys.iter().filter(move |key| key.state == state)
    }

    /// The key that signs.
    pub(crate) fn active(&self) -> Option<&SigningKey> {
        self.of(KeyState::Active).next()
    }

    /// How long until something must happen of itself; none if that is far off.
    pub(crate) fn next_in(&self) -> Option<Duration> {
        self.of(KeyState::Pending).map(|key| key.activates_at - self.now).min()
    }

    /// What is due, in order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let due = self
            .of(KeyState::Pending)
            .rfind(|key| key.activates_at <= self.now)
            .or_else(|| self.of(KeyState::Pending).next().filter(|_| self.active().is_none()));
        match (due, self.active()) {
            (Some(due), _) => {
                let before = self.keys.iter().filter(|key| match key.state {
                    KeyState::Active => true,
                    KeyState::Pending => key.number < due.number,
                    KeyState::Retired | KeyState::Revoked => false,
                });
                steps.extend(before.map(|key| Step::Retire(key.id.clone())));
                steps.push(Step::Activate(due.id.clone()));
            }
            (None, None) => steps.push(Step::Begin),
            (None, Some(active)) => {
                let worn = active.activates_at + REPLACED_AFTER <= self.now;
                if worn && self.of(KeyState::Pending).next().is_none() {
                    steps.push(Step::Replace);
                }
            }
        }
        let over = self
            .of(KeyState::Retired)
            .filter(|key| key.retired_at.is_some_and(|at| at + BELIEVED_FOR <= self.now));
        steps.extend(over.map(|key| Step::Drop(key.id.clone())));
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-03-01 12:00 UTC);

    fn key(number: i64, state: KeyState, activates_in: Duration) -> SigningKey {
        SigningKey {
            number,
            id: number.to_string(),
            public_key: String::new(),
            seed: None,
            state,
            created_at: NOW,
            activates_at: NOW + activates_in,
            retired_at: None,
        }
    }

    fn retired(number: i64, ago: Duration) -> SigningKey {
        SigningKey {
            retired_at: Some(NOW - ago),
            ..key(number, KeyState::Retired, Duration::days(-31))
        }
    }

    fn steps(keys: &[SigningKey]) -> Vec<Step> {
        let standing = Standing {
            version: 1,
            now: NOW,
            keys: keys.to_vec(),
        };
        standing.steps()
    }

    fn id(number: i64) -> String {
        number.to_string()
    }

    #[test]
    fn the_first_key_signs_at_once_and_one_that_signs_is_left_alone() {
        use KeyState::{Active, Pending};
        assert_eq!(steps(&[]), [Step::Begin]);
        assert_eq!(steps(&[key(1, Active, Duration::ZERO)]), []);
        let waiting = [key(1, Active, Duration::days(-40)), key(2, Pending, Duration::SECOND)];
        assert_eq!(steps(&waiting), []);
    }

    #[test]
    fn a_key_takes_over_when_its_time_has_come_and_the_newest_of_several_does() {
        use KeyState::{Active, Pending};
        let keys = [
            key(1, Active, Duration::days(-1)),
            key(2, Pending, -Duration::SECOND),
            key(3, Pending, Duration::ZERO),
            key(4, Pending, Duration::SECOND),
        ];
        assert_eq!(
            steps(&keys),
            [Step::Retire(id(1)), Step::Retire(id(2)), Step::Activate(id(3))]
        );
    }

    #[test]
    fn where_none_signs_the_one_that_is_known_longest_does_at_once() {
        let keys = [
            key(2, KeyState::Pending, Duration::SECOND),
            key(3, KeyState::Pending, Duration::MINUTE),
        ];
        assert_eq!(steps(&keys), [Step::Activate(id(2))]);
    }

    #[test]
    fn a_key_of_thirty_days_is_replaced_once() {
        use KeyState::{Active, Pending};
        let almost = Duration::SECOND - REPLACED_AFTER;
        assert_eq!(steps(&[key(1, Active, almost)]), []);
        assert_eq!(steps(&[key(1, Active, -REPLACED_AFTER)]), [Step::Replace]);
        let replaced = [key(1, Active, -REPLACED_AFTER), key(2, Pending, Duration::MINUTE)];
        assert_eq!(steps(&replaced), []);
    }

    #[test]
    fn a_retired_key_is_believed_as_long_as_its_last_token_may_live() {
        let active = key(3, KeyState::Active, Duration::ZERO);
        let keys = [
            retired(1, Duration::seconds(330)),
            retired(2, Duration::seconds(329)),
            active,
        ];
        assert_eq!(steps(&keys), [Step::Drop(id(1))]);
    }
}
