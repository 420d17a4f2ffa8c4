//! Keys and what is done with them: sealing, keyed hashing, API keys, random tokens.
//!
//! Secrets live in [`secrecy`] types from the moment they are made, so none is ever printed by `Debug`.

mod api_key;
mod hash;
mod random;
mod ring;
mod seal;

pub use api_key::{ApiKey, MalformedApiKey};
pub use hash::{Pepper, constant_time_eq};
pub use random::{base62, random, token};
pub use ring::{KeyId, KeyRing};
pub use seal::OpenError;

use secrecy::SecretBox;

/// A secret of 32 bytes that is wiped when dropped and never printed.
pub type SecretKey = SecretBox<[u8; 32]>;

/// Reads 64 hex digits as a key.
///
/// # Errors
/// Says what is wrong with the text (`must be 64 hex digits (32 bytes), has 10`) without repeating any of it.
pub fn parse_key(hex_digits: &str) -> Result<SecretKey, String> {
    if let Some(at) = hex_digits.chars().position(|c| !c.is_ascii_hexdigit()) {
        return Err(format!(
            "must be 64 hex digits (32 bytes), character {} is none",
            at + 1
        ));
    }
    if hex_digits.len() != 64 {
        let has = hex_digits.len();
        return Err(format!("must be 64 hex digits (32 bytes), has {has}"));
    }
    SecretBox::try_init_with(|| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex_digits, &mut bytes).map(|()| bytes)
    })
    .map_err(|_| "must be 64 hex digits (32 bytes)".to_owned())
}
