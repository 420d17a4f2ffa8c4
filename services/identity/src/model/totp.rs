//! The second factor: time-based one-time passwords (RFC 6238: SHA-1, 6 digits, 30 s) and recovery codes.
//!
//! A code works once: the step of the last accepted one is remembered, and no code of it or before it is taken again.

use hmac::{Hmac, KeyInit, Mac};
use kit::crypto::{KeyRing, constant_time_eq, random};
use kit::ids::UserId;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha1::Sha1;
use time::OffsetDateTime;

use super::Email;

/// How many recovery codes there are at a time.
const RECOVERY_CODES: usize = 10;

const STEP_SECONDS: i64 = 30;
const DIGITS: usize = 6;
/// How far the clocks of server and application may differ, in steps.
const DRIFT: i64 = 1;
/// RFC 4226 §4 recommends 160 bits.
const SECRET_SIZE: usize = 20;
/// 120 bits: 24 characters of base 32.
const RECOVERY_SIZE: usize = 15;
const RECOVERY_GROUP: usize = 6;
const RECOVERY_HASH: &str = "identity recovery code";
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What an authenticator application and the server share.
#[derive(Debug)]
pub(crate) struct TotpSecret(SecretSlice<u8>);

impl TotpSecret {
    /// A secret that nobody has.
    pub(crate) fn generate() -> Self {
        TotpSecret(random::<SECRET_SIZE>().to_vec().into())
    }

    /// What is stored: it opens for this user alone.
    pub(crate) fn seal(&self, ring: &KeyRing, user: UserId) -> Vec<u8> {
        ring.seal(self.0.expose_secret(), &seal_context(user))
    }

    /// The secret out of what [`TotpSecret::seal`] made of it.
    pub(crate) fn open(ring: &KeyRing, sealed: &[u8], user: UserId) -> Option<Self> {
        let secret = ring.open(sealed, &seal_context(user)).ok()?;
        Some(TotpSecret(secret.expose_secret().to_vec().into()))
    }

    /// The secret as applications take it: base 32 without padding.
    pub(crate) fn base32(&self) -> String {
        base32(self.0.expose_secret())
    }

    /// The secret as applications scan it (`otpauth://`, Google Authenticator's key URI format).
    pub(crate) fn uri(&self, email: &Email) -> String {
        format!(
            "otpauth://totp/Board3:{}?secret={}&issuer=Board3&algorithm=SHA1&digits={DIGITS}&period={STEP_SECONDS}",
            percent_encoded(email.as_str()),
            self.base32()
        )
    }

    /// The step that a code is of, if it is right at this time and none of its step or a later one was taken before.
    ///
    /// All candidates are compared, so that the time tells nothing.
    pub(crate) fn accept(&self, code: &Code, now: OffsetDateTime, last_step: Option<i64>) -> Option<i64> {
        let code = code.digits()?;
        let present = now.unix_timestamp().div_euclid(STEP_SECONDS);
        let mut accepted = None;
        for step in present - DRIFT..=present + DRIFT {
            let right = constant_time_eq(self.code_at(step).as_bytes(), code.as_bytes());
            if right && last_step.is_none_or(|last| step > last) {
                accepted = accepted.or(Some(step));
            }
        }
        accepted
    }

    /// RFC 4226 §5.3 with the step as counter.
    fn code_at(&self, step: i64) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(self.0.expose_secret()).expect("HMAC takes keys of every length");
        mac.update(&step.to_be_bytes());
        let hash = mac.finalize().into_bytes();
        let offset = usize::from(hash[19] & 0xf);
        let word = u32::from_be_bytes([hash[offset], hash[offset + 1], hash[offset + 2], hash[offset + 3]]);
        let code = (word & 0x7fff_ffff) % 10_u32.pow(DIGITS as u32);
        format!("{code:0DIGITS$}")
    }
}

fn seal_context(user: UserId) -> Vec<u8> {
    format!("identity totp secret|{user}").into_bytes()
}

/// A code as it was typed: of an application, or a recovery code.
#[derive(Debug)]
pub(crate) struct Code(SecretString);

impl Code {
    /// Takes any text; what is no code is right nowhere.
    pub(crate) fn new(text: &str) -> Self {
        Code(text.into())
    }

    /// Whether it has the form of an application's code.
    pub(crate) fn is_of_application(&self) -> bool {
        self.digits().is_some()
    }

    fn digits(&self) -> Option<&str> {
        let text = self.0.expose_secret();
        (text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
    }

    /// What is stored of this recovery code, under each key of the ring; none if it has not the form of one.
    ///
    /// Hyphens, spaces and case do not count: it was written on paper.
    pub(crate) fn recovery_hashes(&self, ring: &KeyRing, user: UserId) -> Vec<Vec<u8>> {
        let text = self.0.expose_secret();
        let kept: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
        let kept = kept.to_ascii_uppercase();
        if kept.len() != RECOVERY_SIZE * 8 / 5 || !kept.bytes().all(|byte| ALPHABET.contains(&byte)) {
            return Vec::new();
        }
        let input = recovery_input(user, &kept);
        ring.hashes(RECOVERY_HASH, &input).map(|hash| hash.to_vec()).collect()
    }
}

/// New recovery codes, for their owner and for the table.
pub(crate) struct RecoveryCodes {
    /// Four groups of six characters each, shown once.
    pub(crate) texts: Vec<String>,
    /// Keyed hashes of them.
    pub(crate) hashes: Vec<Vec<u8>>,
}

impl RecoveryCodes {
    /// Codes that nobody has.
    pub(crate) fn generate(ring: &KeyRing, user: UserId) -> Self {
        let codes: Vec<String> = (0..RECOVERY_CODES)
            .map(|_| base32(&random::<RECOVERY_SIZE>()))
            .collect();
        let hash = |code: &String| ring.keyed_hash(RECOVERY_HASH, &recovery_input(user, code)).to_vec();
        RecoveryCodes {
            hashes: codes.iter().map(hash).collect(),
            texts: codes.iter().map(|code| grouped(code)).collect(),
        }
    }
}

fn recovery_input(user: UserId, code: &str) -> Vec<u8> {
    format!("{user}|{code}").into_bytes()
}

fn grouped(code: &str) -> String {
    let mut text = String::with_capacity(code.len() + code.len() / RECOVERY_GROUP);
    for (at, c) in code.chars().enumerate() {
        if at > 0 && at % RECOVERY_GROUP == 0 {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// RFC 4648 §6 without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    for chunk in bytes.chunks(5) {
        let mut group = [0; 8];
        group[3..3 + chunk.len()].copy_from_slice(chunk);
        let group = u64::from_be_bytes(group);
        for at in 0..(chunk.len() * 8).div_ceil(5) {
            text.push(char::from(ALPHABET[(group >> (35 - 5 * at) & 31) as usize]));
        }
    }
    text
}

/// RFC 3986 §2.1: all but unreserved characters.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kit::Violations;

    use super::*;

    /// The secret of RFC 6238's test vectors for SHA-1.
    fn vector() -> TotpSecret {
        TotpSecret(b"12345678901234567890".to_vec().into())
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_6238_come_out() {
        // The RFC prints 8 digits; 6 are their end.
        for (seconds, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            let code = Code::new(&code[2..]);
            assert_eq!(
                vector().accept(&code, at(seconds), None),
                Some(seconds / 30),
                "{seconds}"
            );
        }
    }

    #[test]
    fn a_code_is_taken_one_step_early_or_late_and_no_further() {
        let code = Code::new(&vector().code_at(100));
        let accepted = |step: i64| vector().accept(&code, at(step * 30 + 29), None);
        assert_eq!(
            [98, 99, 100, 101, 102].map(accepted),
            [None, Some(100), Some(100), Some(100), None]
        );
    }

    #[test]
    fn no_code_of_the_last_accepted_step_or_before_is_taken() {
        let code = |step| Code::new(&vector().code_at(step));
        let accept = |step, last| vector().accept(&code(step), at(3_000), Some(last));
        assert_eq!(accept(100, 99), Some(100));
        assert_eq!(accept(100, 100), None);
        assert_eq!(accept(99, 100), None);
        assert_eq!(accept(101, 100), Some(101));
    }

    #[test]
    fn what_is_not_six_digits_is_no_code() {
        for text in ["", "12345", "1234567", "12345a", "１２３４５６", " 12345"] {
            let code = Code::new(text);
            assert!(!code.is_of_application(), "{text}");
            assert_eq!(vector().accept(&code, at(3_000), None), None, "{text}");
        }
    }

    #[test]
    fn a_secret_opens_for_its_user_alone() {
        let (ring, user) = (KeyRing::ephemeral(), UserId::new());
        let secret = TotpSecret::generate();
        let sealed = secret.seal(&ring, user);
        let plain = secret.0.expose_secret();
        assert!(!sealed.windows(plain.len()).any(|part| part == plain));
        assert_eq!(
            TotpSecret::open(&ring, &sealed, user).unwrap().base32(),
            secret.base32()
        );
        assert!(TotpSecret::open(&ring, &sealed, UserId::new()).is_none());
        assert!(TotpSecret::open(&KeyRing::ephemeral(), &sealed, user).is_none());
        assert_eq!(format!("{secret:?}").find(&secret.base32()), None);
    }

    #[test]
    fn base32_agrees_with_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_uri_names_the_account_and_holds_no_character_of_its_syntax() {
        let email = Email::parse("email", "ada+x&secret=y@example.com", &mut Violations::new()).unwrap();
        assert_eq!(
            vector().uri(&email),
            "otpauth://totp/Board3:ada%2Bx%26secret%3Dy%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Board3&algorithm=SHA1&digits=6&period=30"
        );
    }

    #[test]
    fn recovery_codes_are_ten_long_and_known_however_they_are_typed() {
        let (ring, user) = (KeyRing::ephemeral(), UserId::new());
        let codes = RecoveryCodes::generate(&ring, user);
        assert_eq!((codes.texts.len(), codes.hashes.len()), (10, 10));
        let mut distinct = codes.texts.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 10);
        for (text, hash) in codes.texts.iter().zip(&codes.hashes) {
            assert_eq!(text.len(), 24 + 3);
            for typed in [
                text.clone(),
                text.to_uppercase(),
                text.replace('-', " "),
                text.replace('-', ""),
            ] {
                assert_eq!(
                    Code::new(&typed).recovery_hashes(&ring, user),
                    std::slice::from_ref(hash),
                    "{typed}"
                );
            }
            assert_ne!(
                Code::new(text).recovery_hashes(&ring, UserId::new()),
                std::slice::from_ref(hash)
            );
        }
        for wrong in [
            "",
            "123456",
            "aaaaaa-aaaaaa-aaaaaa-aaaaa1",
            "aaaaaa-aaaaaa-aaaaaa-aaaaaaa",
        ] {
            assert!(Code::new(wrong).recovery_hashes(&ring, user).is_empty(), "{wrong}");
        }
    }
}
