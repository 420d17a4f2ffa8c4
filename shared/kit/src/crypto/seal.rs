//! Envelopes: a random data key seals the object, the ring's current key wraps the data key.
//!
//! ```text
//! version 1 | key id 4 | wrap nonce 24 | wrapped data key 48 | body nonce 24 | body …  (+ tag 16)
//! ```
//! The wrap authenticates version, key id and associated data; the body authenticates version and
//! associated data. Rotation replaces the first 77 bytes and leaves the body as it is.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretBox, SecretSlice, zeroize::Zeroizing};

use super::ring::{KeyId, KeyRing, RingKey};
use super::{SecretKey, random};

const VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;
const KEY_END: usize = 1 + 4;
const WRAP_END: usize = KEY_END + NONCE + 32 + TAG;
const SHORTEST: usize = WRAP_END + NONCE + TAG;

/// Why a sealed object does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// It was sealed under a key that the ring does not hold (any more).
    UnknownKey(KeyId),
    /// It was changed, cut, belongs somewhere else, or was never sealed by us.
    Corrupt,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::UnknownKey(id) => write!(f, "sealed under key {id}, which is not in the ring"),
            OpenError::Corrupt => f.write_str("sealed bytes are corrupt or belong elsewhere"),
        }
    }
}

impl std::error::Error for OpenError {}

impl KeyRing {
    /// Seals `plaintext` so that it opens only with the same `aad`: what the object is and where it
    /// stands (table, organization, id), so that rows cannot be swapped. Adds 117 bytes.
    #[must_use]
    pub fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
        let data_key: SecretKey = SecretBox::init_with(random::<32>);
        let nonce = random::<NONCE>();
        let mut sealed = Vec::with_capacity(SHORTEST + plaintext.len());
        wrap(self.current(), &data_key, aad, &mut sealed);
        sealed.extend_from_slice(&nonce);
        sealed.extend(encrypt(&data_key, &nonce, plaintext, &bound(b"", aad)));
        sealed
    }

    /// Opens what [`KeyRing::seal`] made with the same `aad` under any key of this ring.
    ///
    /// # Errors
    /// [`OpenError::UnknownKey`] when another ring sealed it; [`OpenError::Corrupt`] for all else.
    pub fn open(&self, sealed: &[u8], aad: &[u8]) -> Result<SecretSlice<u8>, OpenError> {
        let data_key = self.unwrap(sealed, aad)?;
        let (nonce, body) = sealed[WRAP_END..].split_at(NONCE);
        let plain = decrypt(&data_key, nonce, body, &bound(b"", aad)).ok_or(OpenError::Corrupt)?;
        Ok(SecretSlice::from(plain))
    }

    /// The same object with its data key wrapped by the current key; the body is copied, not opened.
    ///
    /// # Errors
    /// As [`KeyRing::open`], save that damage to the body goes unnoticed here.
    pub fn rewrap(&self, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, OpenError> {
        let data_key = self.unwrap(sealed, aad)?;
        let mut rewrapped = Vec::with_capacity(sealed.len());
        wrap(self.current(), &data_key, aad, &mut rewrapped);
        rewrapped.extend_from_slice(&sealed[WRAP_END..]);
        Ok(rewrapped)
    }

    /// The key that wraps this object's data key, as its header claims; `None` if it is no sealed object.
    #[must_use]
    pub fn sealed_under(sealed: &[u8]) -> Option<KeyId> {
        match sealed {
            [VERSION, a, b, c, d, ..] if sealed.len() >= SHORTEST => Some(KeyId([*a, *b, *c, *d])),
            _ => None,
        }
    }

    fn unwrap(&self, sealed: &[u8], aad: &[u8]) -> Result<SecretKey, OpenError> {
        let id = KeyRing::sealed_under(sealed).ok_or(OpenError::Corrupt)?;
        let key = self.find(id).ok_or(OpenError::UnknownKey(id))?;
        let (nonce, wrapped) = sealed[KEY_END..WRAP_END].split_at(NONCE);
        let bytes = decrypt(&key.wrapping, nonce, wrapped, &bound(&id.0, aad))
            .map(Zeroizing::new)
            .ok_or(OpenError::Corrupt)?;
        SecretBox::try_init_with(|| bytes.as_slice().try_into()).map_err(|_| OpenError::Corrupt)
    }
}

fn wrap(key: &RingKey, data_key: &SecretKey, aad: &[u8], out: &mut Vec<u8>) {
    let nonce = random::<NONCE>();
    out.push(VERSION);
    out.extend_from_slice(&key.id.0);
    out.extend_from_slice(&nonce);
    let aad = bound(&key.id.0, aad);
    out.extend(encrypt(&key.wrapping, &nonce, data_key.expose_secret(), &aad));
}

/// The associated data of one layer; `id` has a fixed length per layer, so no two inputs meet.
fn bound(id: &[u8], aad: &[u8]) -> Vec<u8> {
    [&[VERSION], id, aad].concat()
}

fn encrypt(key: &SecretKey, nonce: &[u8; NONCE], msg: &[u8], aad: &[u8]) -> Vec<u8> {
    XChaCha20Poly1305::new(key.expose_secret().into())
        .encrypt(&XNonce::from(*nonce), Payload { msg, aad })
        .expect("no object comes near the cipher's limit of 256 GiB")
}

fn decrypt(key: &SecretKey, nonce: &[u8], msg: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let nonce: [u8; NONCE] = nonce.try_into().ok()?;
    XChaCha20Poly1305::new(key.expose_secret().into())
        .decrypt(&XNonce::from(nonce), Payload { msg, aad })
        .ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const NEW: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    fn opened(ring: &KeyRing, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, OpenError> {
        ring.open(sealed, aad).map(|plain| plain.expose_secret().to_vec())
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let ring = KeyRing::ephemeral();
        for plain in [&b""[..], b"x", &[7; 100_000]] {
            let sealed = ring.seal(plain, b"designs/1");
            assert_eq!(sealed.len(), plain.len() + 117);
            assert_eq!(opened(&ring, &sealed, b"designs/1").unwrap(), plain);
            assert_eq!(opened(&ring, &sealed, b"designs/2"), Err(OpenError::Corrupt));
            assert_eq!(opened(&ring, &sealed, b""), Err(OpenError::Corrupt));
        }
        assert_ne!(ring.seal(b"x", b""), ring.seal(b"x", b""));
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let ring = KeyRing::ephemeral();
        let sealed = ring.seal(b"the plan", b"here");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open(&changed, b"here").is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(ring.open(&sealed[..length], b"here").is_err(), "length {length}");
        }
        let longer = [&sealed[..], b"\0"].concat();
        assert_eq!(opened(&ring, &longer, b"here"), Err(OpenError::Corrupt));
    }

    #[test]
    fn a_header_does_not_fit_another_body() {
        let ring = KeyRing::ephemeral();
        let (one, two) = (ring.seal(b"one", b"here"), ring.seal(b"two", b"here"));
        let mixed = [&one[..WRAP_END], &two[WRAP_END..]].concat();
        assert_eq!(opened(&ring, &mixed, b"here"), Err(OpenError::Corrupt));
    }

    #[test]
    fn rotation_rewraps_without_touching_the_body() {
        let before = KeyRing::parse(OLD, "").unwrap();
        let during = KeyRing::parse(NEW, OLD).unwrap();
        let after = KeyRing::parse(NEW, "").unwrap();
        let sealed = before.seal(b"state", b"here");
        assert_eq!(opened(&during, &sealed, b"here").unwrap(), b"state");
        assert_eq!(
            opened(&after, &sealed, b"here"),
            Err(OpenError::UnknownKey(before.current_id()))
        );
        assert_eq!(during.rewrap(&sealed, b"there"), Err(OpenError::Corrupt));

        let rewrapped = during.rewrap(&sealed, b"here").unwrap();
        assert_eq!(rewrapped[WRAP_END..], sealed[WRAP_END..]);
        assert_eq!(KeyRing::sealed_under(&rewrapped), Some(after.current_id()));
        assert_eq!(opened(&after, &rewrapped, b"here").unwrap(), b"state");
    }

    #[test]
    fn an_object_sealed_by_the_first_version_still_opens() {
        let ring = KeyRing::parse(OLD, "").unwrap();
        let sealed = hex::decode("01b230a113000102030405060708090a0b0c0d0e0f10111213141516174bb96769315fbf8c3b0d1e63856faef0d1c8130c2a7bd1715186bfe154228ff41da90c9e09728f72673557091e459c656465666768696a6b6c6d6e6f707172737475767778797a7bf3d7644baff5acbbfe94b45c0edadfac52fc80e5").unwrap();
        assert_eq!(opened(&ring, &sealed, b"here").unwrap(), b"kept");
    }
}
