//! A ring of 32-byte keys: one current, which makes; and retired ones, which only open and recognise.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretBox};

use super::{SecretKey, constant_time_eq, parse_key};

/// Four bytes that name a key without telling anything about it; shown as eight hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One key of the ring, with what is derived from it: the key itself is used for nothing directly.
pub(super) struct RingKey {
    pub(super) id: KeyId,
    pub(super) wrapping: SecretKey,
    root: SecretKey,
}

impl RingKey {
    fn new(root: SecretKey) -> RingKey {
        let fingerprint = derive("board3 key ring v1: fingerprint", &root);
        let [a, b, c, d, ..] = *fingerprint.expose_secret();
        RingKey {
            id: KeyId([a, b, c, d]),
            wrapping: derive("board3 key ring v1: wrap data keys", &root),
            root,
        }
    }

    fn keyed_hash(&self, context: &str, bytes: &[u8]) -> [u8; 32] {
        let key = derive(&format!("board3 key ring v1: hash: {context}"), &self.root);
        *blake3::keyed_hash(key.expose_secret(), bytes).as_bytes()
    }
}

fn derive(context: &str, root: &SecretKey) -> SecretKey {
    SecretBox::init_with(|| blake3::derive_key(context, root.expose_secret()))
}

/// The keys of one purpose, cheap to clone.
///
/// To rotate: start with the new key as current and the old one among the retired, rewrap or rehash
/// what the old one made, and start again without it.
#[derive(Clone)]
pub struct KeyRing(Arc<[RingKey]>);

impl KeyRing {
    /// Reads the current key and the retired ones (separated by commas, perhaps none) from hex.
    ///
    /// # Errors
    /// Says what is wrong and with which key, without repeating any of it.
    pub fn parse(current_hex: &str, retired_csv: &str) -> Result<KeyRing, String> {
        let mut keys = vec![RingKey::new(parse_key(current_hex.trim())?)];
        let retired = retired_csv.split(',').map(str::trim);
        for (at, text) in retired.filter(|text| !text.is_empty()).enumerate() {
            let named = |problem: &str| format!("retired key {}: {problem}", at + 1);
            let key = RingKey::new(parse_key(text).map_err(|problem| named(&problem))?);
            if keys.iter().any(|known| known.id == key.id) {
                return Err(named("is in the ring already"));
            }
            keys.push(key);
        }
        Ok(KeyRing(keys.into()))
    }

    /// A ring of one random key that dies with the process.
    #[must_use]
    pub fn ephemeral() -> KeyRing {
        KeyRing([RingKey::new(SecretBox::init_with(super::random::<32>))].into())
    }

    /// The key that seals and hashes from now on.
    #[must_use]
    pub fn current_id(&self) -> KeyId {
        self.current().id
    }

    /// The ids of its keys, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.iter().map(|key| key.id)
    }

    /// Keyed BLAKE3 of `bytes` under the current key; hashes of different contexts have nothing in common.
    ///
    /// A later ring makes another hash: store it to compare with [`KeyRing::matches`], and look up
    /// by each of [`KeyRing::hashes`].
    #[must_use]
    pub fn keyed_hash(&self, context: &str, bytes: &[u8]) -> [u8; 32] {
        self.current().keyed_hash(context, bytes)
    }

    /// The hash of `bytes` under each key of the ring, the current one first.
    pub fn hashes<'a>(&'a self, context: &'a str, bytes: &'a [u8]) -> impl Iterator<Item = [u8; 32]> + 'a {
        self.0.iter().map(move |key| key.keyed_hash(context, bytes))
    }

    /// Whether any key of the ring gives this hash, or a hash that starts with it if it is shorter
    /// (at least 16 bytes: below that nothing matches).
    #[must_use]
    pub fn matches(&self, context: &str, bytes: &[u8], hash: &[u8]) -> bool {
        (16..=32).contains(&hash.len())
            && self
                .hashes(context, bytes)
                .any(|known| constant_time_eq(&known[..hash.len()], hash))
    }

    pub(super) fn current(&self) -> &RingKey {
        &self.0[0]
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&RingKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing")?;
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const NEW: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    #[test]
    fn wrong_keys_are_named_and_not_shown() {
        let problem = |current: &str, retired: &str| KeyRing::parse(current, retired).unwrap_err();
        assert_eq!(problem("abcdef0123", ""), "must be 64 hex digits (32 bytes), has 10");
        assert_eq!(problem("", ""), "must be 64 hex digits (32 bytes), has 0");
        assert_eq!(
            problem(&OLD.replace('4', "é"), ""),
            "must be 64 hex digits (32 bytes), character 10 is none"
        );
        assert_eq!(
            problem(NEW, &format!("{OLD},12")),
            "retired key 2: must be 64 hex digits (32 bytes), has 2"
        );
        assert_eq!(problem(NEW, NEW), "retired key 1: is in the ring already");
    }

    #[test]
    fn a_ring_is_printed_by_its_key_ids() {
        let ring = KeyRing::parse(NEW, &format!(" {OLD} , ")).unwrap();
        let printed = format!("{ring:?}");
        assert!(printed.contains(&ring.current_id().to_string()), "{printed}");
        assert_eq!(ring.ids().next(), Some(ring.current_id()));
        assert_eq!(ring.ids().count(), 2);
        assert!(printed.len() < 40 && !printed.contains("0102"), "{printed}");
    }

    #[test]
    fn the_derivations_stay_what_they_were() {
        // Made by another implementation; stored hashes and sealed rows depend on them.
        let ring = KeyRing::parse(OLD, "").unwrap();
        assert_eq!(ring.current_id().to_string(), "b230a113");
        assert_eq!(
            hex::encode(ring.keyed_hash("test", b"bytes")),
            "ffa933266aa163ebf6df64ff3c9efb599217ab472db05c0eee719eb9463d0760"
        );
    }

    #[test]
    fn hashes_survive_rotation_and_keep_contexts_apart() {
        let before = KeyRing::parse(OLD, "").unwrap();
        let hash = before.keyed_hash("refresh", b"token");
        let after = KeyRing::parse(NEW, OLD).unwrap();
        assert!(after.matches("refresh", b"token", &hash));
        assert!(after.matches("refresh", b"token", &hash[..16]));
        assert!(!after.matches("refresh", b"token", &hash[..15]));
        assert!(!after.matches("refresh", b"token", b""));
        assert!(!after.matches("invitation", b"token", &hash));
        assert!(!after.matches("refresh", b"tokem", &hash));
        assert_ne!(after.keyed_hash("refresh", b"token"), hash);
        assert!(!KeyRing::parse(NEW, "").unwrap().matches("refresh", b"token", &hash));
    }
}
