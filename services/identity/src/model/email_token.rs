//! Tokens that are sent by e-mail: whoever has one has the address.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kit::crypto::{KeyRing, random};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

/// What a token is good for, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Becoming a member.
    Invitation,
    /// Becoming a user.
    SignUp,
    /// Setting a new password.
    PasswordReset,
    /// Owning an e-mail domain.
    #[allow(dead_code)]
    Domain,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Purpose::Invitation => "b3i_",
            Purpose::SignUp => "b3v_",
            Purpose::PasswordReset => "b3p_",
            Purpose::Domain => "b3d_",
        }
    }

    fn context(self) -> &'static str {
        match self {
            Purpose::Invitation => "identity invitation",
            Purpose::SignUp => "identity sign-up",
            Purpose::PasswordReset => "identity password reset",
            Purpose::Domain => "identity domain",
        }
    }
}

/// Its purpose's prefix and, in base64url, the id of what it is for and 256 random bits: 68 characters.
#[derive(Debug)]
pub(crate) struct EmailToken {
    purpose: Purpose,
    id: Uuid,
    text: SecretString,
}

impl EmailToken {
    /// A new token for the row with this id.
    pub(crate) fn new(purpose: Purpose, id: Uuid) -> Self {
        let bytes = [id.as_bytes().as_slice(), &random::<32>()].concat();
        EmailToken {
            purpose,
            id,
            text: format!("{}{}", purpose.prefix(), URL_SAFE_NO_PAD.encode(bytes)).into(),
        }
    }

    /// Reads a token; whether it is one that was given out, only its hash tells.
    pub(crate) fn parse(purpose: Purpose, text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(purpose.prefix())?).ok()?;
        let (id, secret) = bytes.split_first_chunk::<16>()?;
        (secret.len() == 32).then(|| EmailToken {
            purpose,
            id: Uuid::from_bytes(*id),
            text: text.into(),
        })
    }

    /// The row that it says it is for.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// What is stored.
    pub(crate) fn hash(&self, ring: &KeyRing) -> Vec<u8> {
        ring.keyed_hash(self.purpose.context(), self.expose().as_bytes())
            .to_vec()
    }

    /// Whether this hash was made of it.
    pub(crate) fn matches(&self, ring: &KeyRing, hash: &[u8]) -> bool {
        ring.matches(self.purpose.context(), self.expose().as_bytes(), hash)
    }

    /// The whole token, to be sent or shown once.
    pub(crate) fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// The whole token, for a message.
    pub(crate) fn into_text(self) -> SecretString {
        self.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALL: [Purpose; 4] = [
        Purpose::Invitation,
        Purpose::SignUp,
        Purpose::PasswordReset,
        Purpose::Domain,
    ];

    #[test]
    fn a_token_names_its_row_and_matches_its_own_hash_only() {
        let ring = KeyRing::ephemeral();
        let id = Uuid::now_v7();
        for purpose in ALL {
            let token = EmailToken::new(purpose, id);
            let read = EmailToken::parse(purpose, token.expose()).unwrap();
            assert_eq!((read.id(), read.expose().len()), (id, 68));
            assert!(read.matches(&ring, &token.hash(&ring)));
            assert!(!EmailToken::new(purpose, id).matches(&ring, &token.hash(&ring)));
            for wrong in [
                "",
                purpose.prefix(),
                "b3r_AAAA",
                &token.expose()[1..],
                &format!("{}AA", token.expose()),
            ] {
                assert!(EmailToken::parse(purpose, wrong).is_none(), "{wrong}");
            }
        }
    }

    #[test]
    fn a_token_is_good_for_its_own_purpose_only() {
        let ring = KeyRing::ephemeral();
        for (one, other) in ALL.into_iter().flat_map(|one| ALL.map(|other| (one, other))) {
            let token = EmailToken::new(one, Uuid::now_v7());
            assert_eq!(EmailToken::parse(other, token.expose()).is_some(), one == other);
            let renamed = token.expose().replacen(one.prefix(), other.prefix(), 1);
            let renamed = EmailToken::parse(other, &renamed).unwrap();
            assert_eq!(renamed.matches(&ring, &token.hash(&ring)), one == other);
        }
    }
}
