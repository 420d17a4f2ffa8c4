//! One function per query; each runs in the transaction that it is given and sees what its scope may see.

pub(crate) mod api_key;
pub(crate) mod domain;
pub(crate) mod invitation;
pub(crate) mod lookup;
pub(crate) mod mail;
pub(crate) mod member;
pub(crate) mod organization;
pub(crate) mod own_view;
pub(crate) mod password;
pub(crate) mod reset;
pub(crate) mod role;
pub(crate) mod service_account;
pub(crate) mod session;
pub(crate) mod sign_up;
pub(crate) mod signing_key;
pub(crate) mod suspension;
pub(crate) mod totp;
pub(crate) mod user;

use kit::{Error, Reason, error::violates};

/// The caller's error for a unique constraint, or the database's own for any other failure.
fn taken(error: diesel::result::Error, unique: &[(&str, &'static str)]) -> Error {
    match unique.iter().find(|(constraint, _)| violates(&error, constraint)) {
        Some((_, field)) => exists(field),
        None => error.into(),
    }
}

pub(crate) fn exists(field: &'static str) -> Error {
    Error::new(
        Reason::ResourceExists,
        format!("this {} is taken", field.replace('_', " ")),
    )
    .with("field", field)
}
