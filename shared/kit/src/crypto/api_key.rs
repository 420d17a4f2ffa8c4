//! API keys: `b3_<env>_<12-character public id>_<43-character secret><6-character CRC-32>`.
//!
//! The prefix is for secret scanners, the checksum turns typing errors away without a lookup, and
//! the secret (256 bits) is kept nowhere: at rest there is an HMAC of it under a pepper.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::random::{BASE62, base62};
use super::{Pepper, constant_time_eq};

const ID: usize = 12;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;

/// A whole API key, secret included; shown once when it is made, and printed without its secret.
#[derive(Clone)]
pub struct ApiKey {
    text: SecretString,
    env: String,
    public_id: String,
}

/// The text has not the shape of an API key, or its checksum is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedApiKey;

impl fmt::Display for MalformedApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an API key")
    }
}

impl std::error::Error for MalformedApiKey {}

impl ApiKey {
    /// A new key for this environment (1 to 16 characters of `a-z0-9`).
    ///
    /// # Panics
    /// When `env` is none: it is configuration, checked at the start.
    #[must_use]
    pub fn generate(env: &str) -> ApiKey {
        assert!(is_env(env), "an environment is 1 to 16 characters of a-z0-9");
        let public_id = base62(ID);
        let mut text = format!("b3_{env}_{public_id}_{}", base62(SECRET));
        text.push_str(&checksum(&text));
        ApiKey {
            text: text.into(),
            env: env.to_owned(),
            public_id,
        }
    }

    /// Reads a key offline: shape and checksum, not whether it exists.
    ///
    /// # Errors
    /// [`MalformedApiKey`], always the same.
    pub fn parse(text: &str) -> Result<ApiKey, MalformedApiKey> {
        let mut parts = text.split('_');
        let (Some("b3"), Some(env), Some(public_id), Some(tail), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MalformedApiKey);
        };
        let well_formed = is_env(env)
            && is_base62(public_id, ID)
            && is_base62(tail, SECRET + CHECKSUM)
            && text.ends_with(&checksum(&text[..text.len() - CHECKSUM]));
        if !well_formed {
            return Err(MalformedApiKey);
        }
        Ok(ApiKey {
            text: text.into(),
            env: env.to_owned(),
            public_id: public_id.to_owned(),
        })
    }

    /// The environment that it was made for.
    #[must_use]
    pub fn env(&self) -> &str {
        &self.env
    }

    /// What finds the key's row; no secret.
    #[must_use]
    pub fn public_id(&self) -> &str {
        &self.public_id
    }

    /// The whole key, to be shown to its owner once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// What is stored: HMAC-SHA-256 of the secret under the pepper.
    #[must_use]
    pub fn digest(&self, pepper: &Pepper) -> [u8; 32] {
        let text = self.text.expose_secret().as_bytes();
        let secret = &text[text.len() - SECRET - CHECKSUM..text.len() - CHECKSUM];
        pepper.hmac_sha256(secret)
    }

    /// Whether `digest` was made of this key's secret, in constant time.
    #[must_use]
    pub fn verify(&self, pepper: &Pepper, digest: &[u8]) -> bool {
        constant_time_eq(&self.digest(pepper), digest)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey(b3_{}_{}_…)", self.env, self.public_id)
    }
}

fn is_env(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn is_base62(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// CRC-32 (IEEE) of all that stands before it, in six base-62 digits, the highest first.
fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [0; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_key_reads_back_and_verifies() {
        let key = ApiKey::generate("dev");
        let again = ApiKey::parse(key.expose()).unwrap();
        assert_eq!((again.env(), again.public_id()), ("dev", key.public_id()));
        assert_eq!(key.expose().len(), "b3_dev_".len() + 12 + 1 + 43 + 6);

        let pepper = Pepper::parse(&"5a".repeat(32)).unwrap();
        let digest = key.digest(&pepper);
        assert!(again.verify(&pepper, &digest));
        assert!(!ApiKey::generate("dev").verify(&pepper, &digest));
        assert!(!again.verify(&Pepper::parse(&"5b".repeat(32)).unwrap(), &digest));
        assert!(!again.verify(&pepper, &digest[..31]));
    }

    #[test]
    fn every_single_typing_error_is_refused_offline() {
        let key = ApiKey::generate("prod");
        let text = key.expose();
        for at in 0..text.len() {
            for other in ["0", "a", "Z", "_", "", "é"] {
                let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                if changed != text {
                    assert_eq!(ApiKey::parse(&changed).err(), Some(MalformedApiKey), "{at} {other}");
                }
            }
        }
        for text in ["", "b3", "b3_dev_", "____", "b3_dev_é_", "b4_dev_x_y"] {
            assert!(ApiKey::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_checksum_stays_what_it_was() {
        // zlib.crc32(b"123456789") = 0xcbf43926 = 3421780262
        assert_eq!(checksum("123456789"), "3jZRME");
    }

    #[test]
    fn the_secret_is_not_printed() {
        let key = ApiKey::generate("dev");
        let printed = format!("{key:?}");
        assert!(printed.contains(key.public_id()));
        assert!(!printed.contains(&key.expose()["b3_dev_123456789012_".len()..][..8]));
    }
}
