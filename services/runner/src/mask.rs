//! Secrets in a stream of bytes, also where a secret comes in pieces.
//!
//! What may be the beginning of a secret is held back until it is known to be none.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};

const MASKED: &[u8] = b"[masked]";
/// Less than this of a secret's beginning gives nothing away.
const HARMLESS: usize = 8;

/// What must not be read.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<[Vec<u8>]>);

impl Secrets {
    /// The API key and a job's credential, plain and as HTTP's basic authorization carries it.
    pub(crate) fn of(api_key: &str, user: &str, job_credential: &str) -> Self {
        let basic = STANDARD.encode(format!("{user}:{job_credential}"));
        Self::from_texts([api_key, job_credential, &basic])
    }

    fn from_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets: Vec<Vec<u8>> = texts
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(|text| text.as_bytes().to_vec())
            .collect();
        // The longest first: one that begins with another is masked whole.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Secrets(secrets.into())
    }

    /// A whole text without them.
    pub(crate) fn masked(&self, text: &str) -> String {
        let mut stream = Masker::new(self.clone());
        let mut bytes = stream.push(text.as_bytes());
        bytes.extend(stream.finish());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Masks one stream.
pub(crate) struct Masker {
    secrets: Secrets,
    held: Vec<u8>,
}

impl Masker {
    /// Nothing read yet.
    pub(crate) fn new(secrets: Secrets) -> Self {
        Masker {
            secrets,
            held: Vec::new(),
        }
    }

    /// What can be shown after these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut shown = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            let begun = |secret: &&Vec<u8>| rest.len() < secret.len() && secret.starts_with(rest);
            if self.secrets.0.iter().any(|secret| begun(&secret)) {
                break;
            }
            match self.secrets.0.iter().find(|secret| rest.starts_with(secret)) {
                Some(secret) => {
                    shown.extend_from_slice(MASKED);
                    at += secret.len();
                }
                None => {
                    shown.push(rest[0]);
                    at += 1;
                }
            }
        }
        self.held.drain(..at);
        shown
    }

    /// What was held back, now that nothing follows; the better part of a secret is masked too.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if held.len() < HARMLESS { held } else { MASKED.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(text: &str, piece: usize) -> String {
        let secrets = Secrets::of("b3k_aaaaaaab", "job", "b3j_0123456789");
        let mut masker = Masker::new(secrets);
        let mut shown = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            shown.extend(masker.push(piece));
        }
        shown.extend(masker.finish());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn secrets_are_masked_wherever_the_stream_is_cut() {
        let basic = STANDARD.encode("job:b3j_0123456789");
        let text = format!(
            "a b3k_aaaaaaab, b3j_0123456789b3j_0123456789 and {basic}! b3j_ b3j_01234567x b3k_aaaab3k_aaaaaaab"
        );
        let expected = "a [masked], [masked][masked] and [masked]! b3j_ b3j_01234567x b3k_aaaa[masked]";
        for piece in 1..=text.len() {
            assert_eq!(streamed(&text, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_secret_shows_little_of_it() {
        assert_eq!(streamed("see b3j_012345678", 3), "see [masked]");
        assert_eq!(streamed("see b3j_", 3), "see b3j_");
    }
}
