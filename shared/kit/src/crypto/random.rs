//! Randomness from the operating system, and nothing else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(super) const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `N` bytes that nobody can guess.
///
/// # Panics
/// When the operating system has no randomness to give: no program should go on then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// An opaque token of `N` random bytes in base64url without padding (32 bytes make 43 characters).
#[must_use]
pub fn token<const N: usize>() -> String {
    URL_SAFE_NO_PAD.encode(random::<N>())
}

/// `length` random characters out of `0-9A-Za-z`, each 5.95 bits, none likelier than another.
#[must_use]
pub fn base62(length: usize) -> String {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        // 248 is the largest multiple of 62 in a byte: what lies above would favour the first eight.
        let fair = random::<64>().into_iter().filter(|byte| *byte < 248);
        let chars = fair.map(|byte| char::from(BASE62[usize::from(byte % 62)]));
        text.extend(chars.take(length - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_promised_length_and_alphabet() {
        assert_eq!(token::<32>().len(), 43);
        for length in [0, 1, 12, 43, 200] {
            let text = base62(length);
            assert_eq!(text.len(), length);
            assert!(text.bytes().all(|byte| BASE62.contains(&byte)));
        }
        assert_ne!(base62(43), base62(43));
    }

    #[test]
    fn every_base62_character_appears_about_equally_often() {
        let mut seen = [0_i32; 128];
        for byte in base62(62_000).bytes() {
            seen[usize::from(byte)] += 1;
        }
        for byte in BASE62 {
            let count = seen[usize::from(*byte)];
            assert!((800..1200).contains(&count), "{byte} came {count} times");
        }
    }
}
