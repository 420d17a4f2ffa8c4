//! Comparing and hashing secrets: in constant time, and never without a key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

use super::{SecretKey, parse_key};

/// Whether two byte strings are equal, in a time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    // Comparing `blake3::Hash` is constant-time by its contract, and takes any length.
    left.len() == right.len() && blake3::hash(left) == blake3::hash(right)
}

/// A key that the database does not hold, mixed into every hash that it does.
pub struct Pepper(SecretKey);

impl Pepper {
    /// Reads 64 hex digits.
    ///
    /// # Errors
    /// Says what is wrong, without repeating the text.
    pub fn parse(hex_digits: &str) -> Result<Pepper, String> {
        parse_key(hex_digits).map(Pepper)
    }

    /// HMAC-SHA-256 (RFC 2104) of `message` under this pepper.
    #[must_use]
    pub fn hmac_sha256(&self, message: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("HMAC takes keys of every length");
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// The key itself, for constructions that are not HMAC-SHA-256.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hmac_agrees_with_an_independent_implementation() {
        // printf 'what do ya want for nothing?' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b×32
        let pepper = Pepper::parse(&"0b".repeat(32)).unwrap();
        assert_eq!(
            hex::encode(pepper.hmac_sha256(b"what do ya want for nothing?")),
            "c3f2649c34ea24e4d62a2c7e868bbea0233c9d4c2cc300794db76aa18d6822d8"
        );
    }

    #[test]
    fn equality_looks_at_every_byte_and_at_the_length() {
        assert!(constant_time_eq(b"", b""));
        assert!(constant_time_eq(b"secret", b"secret"));
        assert!(!constant_time_eq(b"secret", b"secreT"));
        assert!(!constant_time_eq(b"secret", b"secret\0"));
    }
}
