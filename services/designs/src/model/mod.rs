//! What the service speaks of: ids, validated values and rows.
//!
//! A value that exists is valid; `wire` is where values come from, and it reports everything that is wrong at once.

pub mod canvas;
pub mod design;
pub mod drift;
pub mod export;
pub mod resource;
pub mod template;
pub mod user;
pub mod version;

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::{
    Error, Result, Violations,
    ids::{Principal, UserId},
};
use std::io::Write;
use uuid::Uuid;

use crate::schema::sql_types::{DriftEnum, PrincipalEnum, ProviderEnum, StatusEnum};

kit::id! {
    /// A design.
    DesignId
}
kit::id! {
    /// A template.
    TemplateId
}
kit::id! {
    /// A resource of a design.
    ResourceId
}
kit::id! {
    /// A user or an API key; its [`PrincipalKind`] says which.
    PrincipalId
}

/// Declares a text newtype with the least and most characters it has.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $least:literal, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, diesel_derive_newtype::DieselNewType)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the text as the value of `field`. What breaks a rule leaves a violation, and must not be used.
            pub fn parse(field: &str, text: String, violations: &mut Violations) -> Self {
                violations.length(field, &text, $least, $most);
                Self(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }
    };
}

text! {
    /// A design's name: 1 to 200 characters.
    DesignName, 1, 200
}
text! {
    /// A description: at most 4,000 characters.
    Description, 0, 4_000
}
text! {
    /// What changed with a version: at most 1,000 characters.
    Message, 0, 1_000
}
text! {
    /// A template's name: 1 to 200 characters.
    TemplateName, 1, 200
}
text! {
    /// A template's category, or the one to filter by: at most 100 characters.
    Category, 0, 100
}
text! {
    /// An etag as it came in: at most 64 characters; any other text than the current etag is merely not current.
    Etag, 0, 64
}

impl Category {
    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Etag {
    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The etag of a revision.
    pub fn of(revision: i64) -> Etag {
        Etag(format!("r{revision}"))
    }
}

/// Declares an enum that is a type of PostgreSQL too.
macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident as $sql:ident { $($(#[$of:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
        #[serde(rename_all = "snake_case")]
        #[diesel(sql_type = $sql)]
        pub enum $name {
            $($(#[$of])* $variant),+
        }

        impl $name {
            /// Its name in PostgreSQL: lower-case letters and underscores.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text),+
                }
            }
        }

        impl ToSql<$sql, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(self.as_str().as_bytes())?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<$sql, Pg> for $name {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                match value.as_bytes() {
                    $(bytes if bytes == $text.as_bytes() => Ok($name::$variant),)+
                    other => Err(format!("{} is no {}", String::from_utf8_lossy(other), stringify!($name)).into()),
                }
            }
        }
    };
}

stored_enum! {
    /// The provider that something is drawn for.
    CloudProvider as ProviderEnum {
        /// Amazon Web Services.
        Aws = "aws",
        /// Microsoft Azure.
        Azure = "azure",
        /// Google Cloud.
        Gcp = "gcp",
        /// Only what Terraform has built in.
        Builtin = "builtin",
    }
}

stored_enum! {
    /// Where a design stands.
    DesignStatus as StatusEnum {
        /// Never published.
        Draft = "draft",
        /// Has a version.
        Published = "published",
        /// Put aside.
        Archived = "archived",
    }
}

stored_enum! {
    /// Who can make things.
    PrincipalKind as PrincipalEnum {
        /// A signed-in user.
        User = "user",
        /// An API key.
        ApiKey = "api_key",
    }
}

stored_enum! {
    /// What became of a resource; the later is the worse.
    #[derive(PartialOrd, Ord)]
    DriftKind as DriftEnum {
        /// An attribute has another value.
        Changed = "changed",
        /// The object is gone.
        Deleted = "deleted",
    }
}

/// Who made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// User or API key.
    pub kind: PrincipalKind,
    /// Its id.
    pub id: PrincipalId,
}

impl Author {
    /// The caller as an author.
    ///
    /// # Errors
    /// INTERNAL for services and nobody: the policies of the RPCs that make things admit neither.
    pub fn of(principal: Principal) -> Result<Author> {
        match principal {
            Principal::User(UserId(id)) => Ok(Author {
                kind: PrincipalKind::User,
                id: PrincipalId(id),
            }),
            Principal::ApiKey(id) => Ok(Author {
                kind: PrincipalKind::ApiKey,
                id: PrincipalId(id),
            }),
            Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => {
                Err(Error::internal(format!("{principal} makes no designs")))
            }
        }
    }
}

/// The organizations whose templates an organization reads: its own and the platform.
pub(crate) fn readers(org: kit::ids::OrgId) -> [Uuid; 2] {
    [org.0, kit::ids::OrgId::PLATFORM.0]
}

/// Times in caches: microseconds since 1970, which is what PostgreSQL keeps.
pub(crate) mod micros {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use time::{Duration, OffsetDateTime};

    /// Microseconds since 1970.
    pub(crate) fn of(time: OffsetDateTime) -> i64 {
        i64::try_from((time - OffsetDateTime::UNIX_EPOCH).whole_microseconds()).unwrap_or(i64::MAX)
    }

    /// The time so many microseconds after 1970.
    pub(crate) fn time(micros: i64) -> Option<OffsetDateTime> {
        OffsetDateTime::UNIX_EPOCH.checked_add(Duration::microseconds(micros))
    }

    pub(crate) fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        of(*time).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
        time(i64::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no time"))
    }
}
