//! Typed ids; a bare `Uuid` crosses no function boundary.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::error::Violations;

/// Declares an id newtype over a UUIDv7 with parsing, display and diesel support.
#[macro_export]
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, diesel_derive_newtype::DieselNewType)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new time-ordered id.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                $crate::ids::parse(text).map(Self)
            }
        }
    };
}

id! {
    /// An organization.
    OrgId
}
id! {
    /// A user.
    UserId
}

impl OrgId {
    /// The platform organization, which owns what belongs to nobody.
    pub const PLATFORM: OrgId = OrgId(Uuid::from_u128(0x00000000_0000_7000_8000_000000000000));
}

/// A UUID in its one canonical form: 36 lower-case characters with hyphens.
pub fn parse(text: &str) -> Result<Uuid, uuid::Error> {
    let id = Uuid::try_parse(text)?;
    let mut buffer = Uuid::encode_buffer();
    if id.hyphenated().encode_lower(&mut buffer) != text {
        // Other spellings of a UUID are refused, so that an id has one name.
        return Err(Uuid::try_parse("").expect_err("the empty string is no UUID"));
    }
    Ok(id)
}

/// Parses an id of a request; a malformed one becomes a violation of `field`.
pub fn required<T: FromStr>(field: &str, text: &str, violations: &mut Violations) -> Option<T> {
    match text.parse() {
        Ok(id) => Some(id),
        Err(_) if text.is_empty() => {
            violations.add(field, "is required");
            None
        }
        Err(_) => {
            violations.add(field, "must be a UUID in lower case with hyphens");
            None
        }
    }
}

/// Parses an id that may be left empty.
pub fn optional<T: FromStr>(field: &str, text: &str, violations: &mut Violations) -> Option<T> {
    if text.is_empty() {
        None
    } else {
        required(field, text, violations)
    }
}

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// A signed-in user.
    User(UserId),
    /// An API key, by its id.
    ApiKey(Uuid),
    /// A runner's job, by its id: one attempt at one stage, by its credential.
    Job(Uuid),
    /// A service of the suite, by its slice.
    Service(&'static str),
    /// Nobody known.
    Anonymous,
}

impl Principal {
    /// The user, if it is one.
    pub fn user(self) -> Option<UserId> {
        match self {
            Principal::User(user) => Some(user),
            Principal::ApiKey(_) | Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::User(id) => write!(f, "user:{id}"),
            Principal::ApiKey(id) => write!(f, "key:{id}"),
            Principal::Job(id) => write!(f, "job:{id}"),
            Principal::Service(slice) => write!(f, "service:{slice}"),
            Principal::Anonymous => f.write_str("anonymous"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = OrgId::new();
        assert_eq!(id.to_string().parse::<OrgId>().ok(), Some(id));
        assert!(
            id.to_string().to_uppercase().parse::<OrgId>().is_err()
                || !id.to_string().contains(|c: char| c.is_alphabetic())
        );
        assert!(format!("{{{id}}}").parse::<OrgId>().is_err());
        assert!(id.0.simple().to_string().parse::<OrgId>().is_err());
    }
}
