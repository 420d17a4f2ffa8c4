//! Accounts: addresses, names and passwords.

use std::{collections::HashSet, sync::LazyLock};

use diesel::prelude::*;
use diesel_derive_newtype::DieselNewType;
use kit::{Violations, crypto::base62, ids::UserId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use unicode_normalization::UnicodeNormalization;

/// An e-mail address in lower case: two spellings of one address are one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DieselNewType)]
pub(crate) struct Email(String);

impl Email {
    pub(crate) fn parse(field: &str, text: &str, violations: &mut Violations) -> Option<Self> {
        let email = text.to_lowercase();
        let well_formed = (3..=254).contains(&email.chars().count())
            && email.matches('@').count() == 1
            && !email.starts_with('@')
            && !email.ends_with('@')
            && !email.chars().any(|c| c.is_whitespace() || c.is_control());
        violations.check(
            well_formed,
            field,
            "must be an e-mail address of 3 to 254 characters with one @",
        );
        well_formed.then_some(Email(email))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What user names and organization slugs are made of: 3 to 39 of `a-z`, `0-9` and inner `-`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DieselNewType)]
pub(crate) struct Slug(String);

impl Slug {
    /// Room for a suffix of five.
    const LONGEST_STEM: usize = 34;

    pub(crate) fn parse(field: &str, text: &str, violations: &mut Violations) -> Option<Self> {
        let well_formed = (3..=39).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        violations.check(well_formed, field, "must be 3 to 39 of a-z, 0-9 and inner -");
        well_formed.then(|| Slug(text.to_owned()))
    }

    /// The slug that an organization's name suggests.
    pub(crate) fn of_name(name: &Name) -> Self {
        let mut slug = String::new();
        for c in name.as_str().to_lowercase().chars() {
            if c.is_ascii_alphanumeric() {
                slug.push(c);
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
            if slug.len() == Self::LONGEST_STEM {
                break;
            }
        }
        let slug = slug.trim_end_matches('-');
        if slug.len() >= 3 {
            Slug(slug.to_owned())
        } else {
            Slug(format!("org-{slug}").trim_end_matches('-').to_owned())
        }
    }

    /// The slug with a short random ending, for when it is taken.
    pub(crate) fn with_suffix(&self) -> Self {
        let stem: String = self.0.chars().take(Self::LONGEST_STEM).collect();
        Slug(format!("{stem}-{}", base62(4).to_lowercase()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What somebody or something is called: 1 to 100 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DieselNewType)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn parse(field: &str, text: &str, violations: &mut Violations) -> Option<Self> {
        let blank = !text.is_empty() && text.trim().is_empty();
        violations.length(field, text, 1, 100);
        violations.check(!blank, field, "must not be blank");
        Some(Name(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The platform's own words, of which whoever guesses passwords here makes the first ones.
const PLATFORM_WORDS: [&str; 8] = [
    "board3",
    "board",
    "terraform",
    "opentofu",
    "infrastructure",
    "architecture",
    "pipeline",
    "platform",
];
/// So many characters a password must have beside them, if it has any of them.
const BESIDE_PLATFORM_WORDS: usize = 6;

/// A password as it was typed: never trimmed, never cut.
#[derive(Debug)]
pub(crate) struct Password(SecretString);

impl Password {
    /// A password to sign in with: anything that an account can have.
    pub(crate) fn parse(field: &str, text: String, violations: &mut Violations) -> Option<Self> {
        let points = text.chars().count();
        violations.check((1..=256).contains(&points), field, "must have 1 to 256 characters");
        Some(Password(text.into()))
    }

    /// A password to sign up with: long enough, on no list, more than the platform's words, and not the account's own name.
    pub(crate) fn choose(field: &str, text: String, own: &[Option<&str>], violations: &mut Violations) -> Option<Self> {
        static COMMON: LazyLock<HashSet<&str>> =
            LazyLock::new(|| include_str!("../common_passwords.txt").lines().collect());
        let points = text.chars().count();
        violations.check((8..=256).contains(&points), field, "must have 8 to 256 characters");
        let folded = text.nfkc().collect::<String>().to_lowercase();
        violations.check(
            !COMMON.contains(folded.as_str()),
            field,
            "is among the most common passwords",
        );
        let beside = PLATFORM_WORDS
            .iter()
            .fold(folded.clone(), |rest, word| rest.replace(word, ""));
        violations.check(
            beside == folded || beside.chars().count() >= BESIDE_PLATFORM_WORDS,
            field,
            "says little beside the platform's own words",
        );
        let named = own.iter().flatten().any(|name| folded == *name);
        violations.check(!named, field, "must not be the account's own name");
        Some(Password(text.into()))
    }

    /// Whether it is one of an account's own names.
    pub(crate) fn is_one_of(&self, names: &[&str]) -> bool {
        let folded = self.normalized().expose_secret().to_lowercase();
        names.iter().any(|name| folded == *name)
    }

    /// NFKC, so that one password typed on two keyboards is one password.
    pub(crate) fn normalized(&self) -> SecretString {
        self.0.expose_secret().nfkc().collect::<String>().into()
    }
}

/// `<scheme>$<pepper id>$<hash>`.
#[derive(Clone, DieselNewType)]
pub(crate) struct PasswordHash(pub(crate) String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Who signs up, and the organization that they found.
#[derive(Debug)]
pub(crate) struct NewAccount {
    pub(crate) email: Email,
    pub(crate) username: Slug,
    pub(crate) password: Password,
    pub(crate) first_name: Name,
    pub(crate) last_name: Name,
    pub(crate) organization_name: Name,
    /// None: made from the name.
    pub(crate) organization_slug: Option<Slug>,
}

/// A user, without anything secret.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = crate::schema::users)]
pub(crate) struct Profile {
    pub(crate) id: UserId,
    pub(crate) email: Email,
    pub(crate) username: Slug,
    pub(crate) first_name: Name,
    pub(crate) last_name: Name,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> Name {
        Name(text.to_owned())
    }

    #[test]
    fn a_name_suggests_a_slug_that_is_one() {
        for text in [
            "Acme",
            "Müller & Söhne GmbH",
            "日本",
            "a",
            "-",
            "x".repeat(100).as_str(),
            "a b".repeat(30).as_str(),
        ] {
            for slug in [Slug::of_name(&name(text)), Slug::of_name(&name(text)).with_suffix()] {
                let mut violations = Violations::new();
                assert_eq!(
                    Slug::parse("slug", slug.as_str(), &mut violations),
                    Some(slug.clone()),
                    "{text}: {slug:?}"
                );
            }
        }
        assert_eq!(Slug::of_name(&name("Acme, Inc.")).as_str(), "acme-inc");
        assert_eq!(Slug::of_name(&name("日本")).as_str(), "org");
    }

    #[test]
    fn addresses_are_compared_without_case_and_have_one_at() {
        let parse = |text: &str| Email::parse("email", text, &mut Violations::new());
        assert_eq!(parse("Ada@Example.COM"), parse("ada@example.com"));
        for wrong in [
            "",
            "ada",
            "@x",
            "ada@",
            "a@b@c",
            "a da@x",
            "ada@x\n",
            &format!("{}@x", "a".repeat(253)),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    fn refused(password: &str) -> bool {
        let mut violations = Violations::new();
        let own = [Some("ada@example.com"), Some("ada-the-first")];
        Password::choose("password", password.to_owned(), &own, &mut violations);
        !violations.is_empty()
    }

    #[test]
    fn the_platforms_own_words_are_no_password() {
        for wrong in [
            "board3board3",
            "Terraform2024!",
            "board3-terraform",
            "TERRAFORM",
            "ｔｅｒｒａｆｏｒｍ１２３",
        ] {
            assert!(refused(wrong), "{wrong}");
        }
        for right in ["keyboard and a cup", "terraform some mars"] {
            assert!(!refused(right), "{right}");
        }
    }

    #[test]
    fn a_password_is_not_the_accounts_own_name() {
        assert!(refused("Ada@Example.com") && refused("Ada-The-First"));
        assert!(!refused("ada@example.com, and more"));
    }

    #[test]
    fn passwords_are_counted_in_code_points_and_common_ones_are_refused() {
        for wrong in [
            "",
            "short",
            "password123",
            "PassWord123",
            "ｐａｓｓｗｏｒｄ１２３",
            &"x".repeat(257),
        ] {
            assert!(refused(wrong), "{wrong}");
        }
        for right in ["correct horse", "  spaces stay  ", &"日".repeat(8), &"🦀".repeat(256)] {
            assert!(!refused(right), "{right}");
        }
    }
}
