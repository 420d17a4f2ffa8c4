//! Accounts to be: sign-ups that wait for their address to be proven, and passwords that wait to be set anew.

use kit::{Error, Result, crypto::KeyRing, db::About};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use time::Duration;

use super::{Email, Name, NewAccount, PasswordHash, Slug};

kit::id! {
    /// A sign-up.
    SignUpId
}

kit::id! {
    /// A request to set a new password.
    ResetId
}

impl About for SignUpId {
    const TYPE: &'static str = "sign_up";
    fn id(&self) -> String {
        self.to_string()
    }
}

impl About for ResetId {
    const TYPE: &'static str = "password_reset";
    fn id(&self) -> String {
        self.to_string()
    }
}

/// How long a sign-up waits.
pub(crate) const SIGN_UP_LIFETIME: Duration = Duration::hours(24);
/// How long a request for a new password waits.
pub(crate) const RESET_LIFETIME: Duration = Duration::hours(1);

/// Everything that a user and their organization are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingAccount {
    pub(crate) email: Email,
    pub(crate) username: Slug,
    password_hash: Hash,
    pub(crate) first_name: Name,
    pub(crate) last_name: Name,
    pub(crate) organization_name: Name,
    /// None: made from the name.
    pub(crate) organization_slug: Option<Slug>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Hash(String);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl PendingAccount {
    /// The account of a sign-up, its password hashed.
    pub(crate) fn new(new: &NewAccount, hash: &PasswordHash) -> Self {
        PendingAccount {
            email: new.email.clone(),
            username: new.username.clone(),
            password_hash: Hash(hash.0.clone()),
            first_name: new.first_name.clone(),
            last_name: new.last_name.clone(),
            organization_name: new.organization_name.clone(),
            organization_slug: new.organization_slug.clone(),
        }
    }

    pub(crate) fn password_hash(&self) -> PasswordHash {
        PasswordHash(self.password_hash.0.clone())
    }

    /// What is stored of it until then: nobody who reads the table learns who is about to sign up.
    pub(crate) fn seal(&self, ring: &KeyRing, id: SignUpId) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(self).map_err(Error::internal)?;
        Ok(ring.seal(&text, &Self::context(id)))
    }

    pub(crate) fn open(ring: &KeyRing, id: SignUpId, sealed: &[u8]) -> Result<Self> {
        let text = ring.open(sealed, &Self::context(id)).map_err(Error::internal)?;
        serde_json::from_slice(text.expose_secret()).map_err(Error::internal)
    }

    fn context(id: SignUpId) -> Vec<u8> {
        format!("identity.sign_ups|{id}").into_bytes()
    }
}

/// What somebody has already of what a sign-up asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) email: bool,
    pub(crate) username: bool,
    pub(crate) slug: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kit::Violations;

    use super::*;

    #[test]
    fn a_waiting_account_opens_in_its_own_row_only_and_shows_nothing() {
        let (ring, id) = (KeyRing::ephemeral(), SignUpId::new());
        let mut violations = Violations::new();
        let name = |text: &str| Name::parse("name", text, &mut Violations::new()).unwrap();
        let account = PendingAccount {
            email: Email::parse("email", "ada@example.com", &mut violations).unwrap(),
            username: Slug::parse("username", "ada", &mut violations).unwrap(),
            password_hash: Hash("scheme$pepper$hash".to_owned()),
            first_name: name("Ada"),
            last_name: name("Lovelace"),
            organization_name: name("Engines"),
            organization_slug: None,
        };
        let sealed = account.seal(&ring, id).unwrap();
        assert_eq!(PendingAccount::open(&ring, id, &sealed).unwrap(), account);
        assert!(PendingAccount::open(&ring, SignUpId::new(), &sealed).is_err());
        assert!(!sealed.windows(3).any(|part| part == b"ada"));
        assert!(!format!("{account:?}").contains("scheme"));
    }
}
