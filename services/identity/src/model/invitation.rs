//! Invitations, and the tokens that stand for them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use diesel::prelude::*;
use kit::{
    crypto::{KeyRing, random},
    db::About,
    ids::{OrgId, Principal, UserId},
};
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{ApiKeyId, Email, RoleId};

kit::id! {
    /// An invitation.
    InvitationId
}

impl About for InvitationId {
    const TYPE: &'static str = "invitation";
    fn id(&self) -> String {
        self.to_string()
    }
}

/// How long an invitation lives.
pub(crate) const LIFETIME: Duration = Duration::days(7);

const PREFIX: &str = "b3i_";
const CONTEXT: &str = "identity invitation";

/// `b3i_` and, in base64url, the invitation's id and 256 random bits.
#[derive(Debug)]
pub(crate) struct InvitationToken {
    id: InvitationId,
    text: SecretString,
}

impl InvitationToken {
    /// The token of a new invitation.
    pub(crate) fn new(id: InvitationId) -> Self {
        let bytes = [id.0.as_bytes().as_slice(), &random::<32>()].concat();
        InvitationToken {
            id,
            text: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into(),
        }
    }

    /// Reads a token; whether it is one that was given out, only its hash tells.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (id, secret) = bytes.split_first_chunk::<16>()?;
        (secret.len() == 32).then(|| InvitationToken {
            id: InvitationId(Uuid::from_bytes(*id)),
            text: text.into(),
        })
    }

    /// The invitation that it says it is for.
    pub(crate) fn id(&self) -> InvitationId {
        self.id
    }

    /// What is stored.
    pub(crate) fn hash(&self, ring: &KeyRing) -> Vec<u8> {
        ring.keyed_hash(CONTEXT, self.expose().as_bytes()).to_vec()
    }

    /// Whether this hash was made of it.
    pub(crate) fn matches(&self, ring: &KeyRing, hash: &[u8]) -> bool {
        ring.matches(CONTEXT, self.expose().as_bytes(), hash)
    }

    /// The whole token, to be shown once.
    pub(crate) fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

/// Whom to invite as what.
#[derive(Debug)]
pub(crate) struct NewInvitation {
    pub(crate) id: InvitationId,
    pub(crate) email: Email,
    pub(crate) role: String,
    pub(crate) expires_at: OffsetDateTime,
}

/// An invitation, locked by the transaction that accepts it.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct Invitation {
    pub(crate) id: InvitationId,
    pub(crate) email: Email,
    pub(crate) role_org_id: OrgId,
    pub(crate) role_id: RoleId,
    pub(crate) token_hash: Vec<u8>,
    inviter_user_id: Option<UserId>,
    inviter_key_id: Option<ApiKeyId>,
    /// Neither accepted nor expired.
    pub(crate) open: bool,
}

impl Invitation {
    /// Who invited, and must still be able to invite and to give the role.
    pub(crate) fn inviter(&self) -> Principal {
        match (self.inviter_user_id, self.inviter_key_id) {
            (Some(user), _) => Principal::User(user),
            (None, Some(key)) => Principal::ApiKey(key.0),
            (None, None) => Principal::Anonymous,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_names_its_invitation_and_matches_its_own_hash_only() {
        let ring = KeyRing::ephemeral();
        let id = InvitationId::new();
        let token = InvitationToken::new(id);
        let read = InvitationToken::parse(token.expose()).unwrap();
        assert_eq!(read.id(), id);
        assert!(read.matches(&ring, &token.hash(&ring)));
        assert!(!InvitationToken::new(id).matches(&ring, &token.hash(&ring)));
        for wrong in [
            "",
            "b3i_",
            "b3r_AAAA",
            &token.expose()[1..],
            &format!("{}AA", token.expose()),
        ] {
            assert!(InvitationToken::parse(wrong).is_none(), "{wrong}");
        }
    }
}
