//! The data key of a version, and the chunks that it seals.
//!
//! The key is random, seals nothing of another version, and stands sealed by the ring in the version's row. A rotation
//! seals it anew and touches no chunk.

use std::time::Duration;

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use kit::{
    Error, Reason, Result,
    crypto::{KeyRing, OpenError, SecretKey, constant_time_eq, random},
};
use secrecy::{ExposeSecret, SecretBox, SecretSlice};
use uuid::Uuid;

use super::{Place, corrupt};

/// The format of what is sealed here: zstd, then chunks under a data key.
const FORMAT: u8 = 1;
const NONCE: usize = 24;
const IDENTITY_CONTEXT: &str = "board3 terraform_state v1: identity of contents";

/// How the content of a version stands in its chunks; nothing that was sealed for another one opens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub(crate) place: Place,
    /// Random; another one whenever the chunks are others.
    pub(crate) id: Uuid,
    /// The version that the content is told by, if it is not whole.
    pub(crate) base: Option<i64>,
}

impl Body {
    fn of_chunk(&self, chunk: usize, last: bool) -> Vec<u8> {
        let Place { org, state, version } = self.place;
        let (id, base) = (self.id, self.base.unwrap_or(0));
        let end = if last { "last" } else { "more" };
        format!("terraform_state.state_chunks|{org}|{state}|{version}|{FORMAT}|{id}|{base}|{chunk}|{end}").into_bytes()
    }
}

/// The key of one version.
pub(crate) struct DataKey(SecretKey);

impl DataKey {
    pub(crate) fn new() -> Self {
        DataKey(SecretBox::init_with(random::<32>))
    }

    /// The key, sealed by the ring's current key to its organization, state, version and format; the key's id is bound
    /// by the ring itself.
    pub(crate) fn sealed(&self, ring: &KeyRing, place: &Place) -> Vec<u8> {
        ring.seal(self.0.expose_secret(), &place.of_key())
    }

    /// # Errors
    /// KEY_MISSING where the ring does not hold the key that sealed it, CONTENT_CORRUPT for all else.
    pub(crate) fn open(ring: &KeyRing, place: &Place, sealed: &[u8]) -> Result<DataKey> {
        let opened = ring.open(sealed, &place.of_key());
        let opened = opened.map_err(|error| refused(error, place, "the data key does not open in its place"))?;
        SecretBox::try_init_with(|| opened.expose_secret().try_into())
            .map(DataKey)
            .map_err(|_| corrupt("the data key has another length", place.state, place.version))
    }

    /// The same, sealed by the ring's current key.
    ///
    /// # Errors
    /// As [`DataKey::open`].
    pub(crate) fn resealed(ring: &KeyRing, place: &Place, sealed: &[u8]) -> Result<Vec<u8>> {
        // What does not open was damaged, and is not to look as if it were not.
        DataKey::open(ring, place, sealed)?;
        let resealed = ring.rewrap(sealed, &place.of_key());
        resealed.map_err(|error| refused(error, place, "the data key does not open in its place"))
    }

    /// A chunk, with the nonce before it.
    pub(crate) fn seal(&self, body: &Body, chunk: usize, last: bool, plain: &[u8]) -> Vec<u8> {
        let nonce = random::<NONCE>();
        let aad = body.of_chunk(chunk, last);
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad });
        let sealed = sealed.expect("no chunk comes near the cipher's limit of 256 GiB");
        [&nonce[..], &sealed].concat()
    }

    /// # Errors
    /// CONTENT_CORRUPT.
    pub(crate) fn unseal(&self, body: &Body, chunk: usize, last: bool, sealed: &[u8]) -> Result<SecretSlice<u8>> {
        let wrong = || {
            corrupt(
                "a chunk does not open in its place",
                body.place.state,
                body.place.version,
            )
        };
        let (nonce, msg) = sealed.split_first_chunk::<NONCE>().ok_or_else(wrong)?;
        let aad = body.of_chunk(chunk, last);
        let plain = self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg, aad: &aad });
        plain.map(SecretSlice::from).map_err(|_| wrong())
    }

    /// What a content is known by, under this key alone.
    pub(crate) fn identity(&self, told: &[u8]) -> [u8; 32] {
        let key = blake3::derive_key(IDENTITY_CONTEXT, self.0.expose_secret());
        *blake3::keyed_hash(&key, told).as_bytes()
    }

    /// Whether a content is known by this.
    pub(crate) fn identifies(&self, told: &[u8], identity: &[u8]) -> bool {
        constant_time_eq(&self.identity(told), identity)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.expose_secret().into())
    }
}

impl Place {
    fn of_key(&self) -> Vec<u8> {
        let Place { org, state, version } = self;
        format!("terraform_state.state_versions|{org}|{state}|{version}|{FORMAT}").into_bytes()
    }
}

/// Why something sealed by the ring does not open.
pub(super) fn refused(error: OpenError, place: &Place, what: &'static str) -> Error {
    match error {
        OpenError::UnknownKey(id) => Error::new(
            Reason::KeyMissing,
            "the state was sealed under a key that the service does not have",
        )
        .with("key_id", id.to_string())
        .retry_after(Duration::from_secs(30))
        .with_source(error),
        OpenError::Corrupt => corrupt(what, place.state, place.version),
    }
}
