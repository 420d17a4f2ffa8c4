//! Sessions: one family of refresh tokens each, of which one is current.
//!
//! A refresh token works once. Repeated within [`GRACE`] by whoever lost the answer (or raced in another tab) it is
//! answered the same successor; later, or once the successor was used, it is taken for stolen and the session ends.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use diesel::prelude::*;
use kit::{
    crypto::{KeyRing, random},
    db::About,
    ids::{OrgId, UserId},
};
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

kit::id! {
    /// A session.
    SessionId
}

impl About for SessionId {
    const TYPE: &'static str = "session";
    fn id(&self) -> String {
        self.to_string()
    }
}

/// How long a session lives at the most.
pub(crate) const LIFETIME: Duration = Duration::days(30);
/// How long it lives without being refreshed.
pub(crate) const IDLE: Duration = Duration::days(7);
/// How long the predecessor of the current token is answered the current one.
pub(crate) const GRACE: Duration = Duration::seconds(10);

const PREFIX: &str = "b3r_";
const HASH: &str = "identity refresh token";
const TAG: &str = "identity refresh token tag";
const TAG_SIZE: usize = 16;

/// `b3r_` and, in base64url, the session's id, the generation, 256 random bits, and a tag that only the ring can make.
///
/// The tag tells a token of ours from a made-up one: nobody ends a session by guessing at its tokens.
#[derive(Debug)]
pub(crate) struct RefreshToken {
    session: SessionId,
    generation: i64,
    text: SecretString,
}

impl RefreshToken {
    /// A new token of a session.
    pub(crate) fn new(ring: &KeyRing, session: SessionId, generation: i64) -> Self {
        let mut bytes = [
            session.0.as_bytes().as_slice(),
            &generation.to_be_bytes(),
            &random::<32>(),
        ]
        .concat();
        let tag = ring.keyed_hash(TAG, &bytes);
        bytes.extend_from_slice(&tag[..TAG_SIZE]);
        RefreshToken {
            session,
            generation,
            text: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into(),
        }
    }

    /// Reads a token; `None` for what was never one of ours.
    pub(crate) fn parse(ring: &KeyRing, text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (body, tag) = bytes.split_last_chunk::<TAG_SIZE>()?;
        let (session, rest) = body.split_first_chunk::<16>()?;
        let (generation, secret) = rest.split_first_chunk::<8>()?;
        (secret.len() == 32 && ring.matches(TAG, body, tag)).then(|| RefreshToken {
            session: SessionId(Uuid::from_bytes(*session)),
            generation: i64::from_be_bytes(*generation),
            text: text.into(),
        })
    }

    /// The session it belongs to.
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    /// Which token of the session it is, counted from 1.
    pub(crate) fn generation(&self) -> i64 {
        self.generation
    }

    /// What is stored.
    pub(crate) fn hash(&self, ring: &KeyRing) -> Vec<u8> {
        ring.keyed_hash(HASH, self.expose().as_bytes()).to_vec()
    }

    /// The whole token, for its owner.
    pub(crate) fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// The token sealed, to be answered again to whoever repeats its predecessor in time.
    pub(crate) fn seal(&self, ring: &KeyRing) -> Vec<u8> {
        ring.seal(self.expose().as_bytes(), &seal_context(self.session, self.generation))
    }

    /// The successor of this token, out of what [`RefreshToken::seal`] made of it.
    pub(crate) fn open_successor(&self, ring: &KeyRing, sealed: &[u8]) -> Option<Self> {
        let plain = ring
            .open(sealed, &seal_context(self.session, self.generation + 1))
            .ok()?;
        Self::parse(ring, std::str::from_utf8(plain.expose_secret()).ok()?)
    }
}

fn seal_context(session: SessionId, generation: i64) -> Vec<u8> {
    format!("identity refresh successor|{session}|{generation}").into_bytes()
}

/// A session as its owner sees it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = crate::schema::sessions)]
pub(crate) struct Session {
    pub(crate) org_id: OrgId,
    pub(crate) id: SessionId,
    pub(crate) user_id: UserId,
    pub(crate) device: String,
    pub(crate) expires_at: OffsetDateTime,
}

/// A session that stands, as its owner's list shows it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = crate::schema::sessions)]
pub(crate) struct StandingSession {
    pub(crate) org_id: OrgId,
    pub(crate) id: SessionId,
    pub(crate) device: String,
    /// Where it was last continued from.
    pub(crate) address: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) last_seen_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
}

/// A session's tokens, locked by the transaction that one of them is presented in.
#[derive(Clone, Debug, Queryable)]
pub(crate) struct Family {
    pub(crate) session: Session,
    pub(crate) generation: i64,
    pub(crate) token_hash: Vec<u8>,
    pub(crate) previous_hash: Option<Vec<u8>>,
    pub(crate) successor: Option<Vec<u8>>,
    /// Whether the last rotation is within [`GRACE`].
    pub(crate) fresh: bool,
    /// Neither revoked nor expired.
    pub(crate) active: bool,
}

/// What a presented token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presented {
    /// The current one: it gets a successor.
    Current,
    /// The one before, in time: it gets the same successor.
    Repeated,
    /// One that was used before: somebody holds a copy.
    Reused,
    /// Of a session that is over, or none of this family.
    Void,
}

impl Family {
    /// Judges a token that names this session.
    pub(crate) fn judge(&self, ring: &KeyRing, token: &RefreshToken) -> Presented {
        let is = |hash: &[u8]| ring.matches(HASH, token.expose().as_bytes(), hash);
        if !self.active {
            return Presented::Void;
        }
        if token.generation == self.generation && is(&self.token_hash) {
            return Presented::Current;
        }
        let predecessor = token.generation == self.generation - 1 && self.previous_hash.as_deref().is_some_and(is);
        if predecessor && self.fresh && self.successor.is_some() {
            return Presented::Repeated;
        }
        if token.generation < self.generation {
            Presented::Reused
        } else {
            Presented::Void
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A family and all tokens that it ever gave out, the first one first.
    struct Model {
        ring: KeyRing,
        family: Family,
        given: Vec<RefreshToken>,
    }

    impl Model {
        fn new() -> Self {
            let ring = KeyRing::ephemeral();
            let id = SessionId::new();
            let first = RefreshToken::new(&ring, id, 1);
            let session = Session {
                org_id: OrgId::new(),
                id,
                user_id: UserId::new(),
                device: String::new(),
                expires_at: OffsetDateTime::UNIX_EPOCH,
            };
            let token_hash = first.hash(&ring);
            let family = Family {
                session,
                generation: 1,
                token_hash,
                previous_hash: None,
                successor: None,
                fresh: false,
                active: true,
            };
            Model {
                ring,
                family,
                given: vec![first],
            }
        }

        fn present(&mut self, nth: usize) -> Presented {
            let presented = self.family.judge(&self.ring, &self.given[nth]);
            match presented {
                Presented::Current => {
                    let next = RefreshToken::new(&self.ring, self.family.session.id, self.family.generation + 1);
                    self.family.generation += 1;
                    self.family.previous_hash =
                        Some(std::mem::replace(&mut self.family.token_hash, next.hash(&self.ring)));
                    self.family.successor = Some(Vec::new());
                    self.family.fresh = true;
                    self.given.push(next);
                }
                Presented::Reused => self.family.active = false,
                Presented::Repeated | Presented::Void => {}
            }
            presented
        }
    }

    #[test]
    fn whatever_the_order_a_family_has_one_leaf_and_a_stale_token_ends_it() {
        for seed in 0..2_000_u64 {
            let mut model = Model::new();
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut draw = |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below as u64) as usize
            };
            for _ in 0..12 {
                if draw(3) == 0 {
                    // Ten seconds pass.
                    model.family.fresh = false;
                }
                let nth = draw(model.given.len());
                let (last, fresh, active) = (model.given.len() - 1, model.family.fresh, model.family.active);
                let expected = match last - nth {
                    _ if !active => Presented::Void,
                    0 => Presented::Current,
                    1 if fresh => Presented::Repeated,
                    _ => Presented::Reused,
                };
                assert_eq!(model.present(nth), expected, "seed {seed}: {nth} of {last}");
                let leaves = model
                    .given
                    .iter()
                    .filter(|t| model.family.judge(&model.ring, t) == Presented::Current)
                    .count();
                assert_eq!(leaves, usize::from(model.family.active));
            }
        }
    }

    #[test]
    fn a_made_up_token_is_none_and_ends_nothing() {
        let ring = KeyRing::ephemeral();
        let session = SessionId::new();
        let token = RefreshToken::new(&ring, session, 4);
        let read = RefreshToken::parse(&ring, token.expose()).unwrap();
        assert_eq!((read.session(), read.generation()), (session, 4));
        let forged = RefreshToken::new(&KeyRing::ephemeral(), session, 3);
        assert!(RefreshToken::parse(&ring, forged.expose()).is_none());
        for wrong in [
            "",
            "b3r_",
            "b3i_AAAA",
            &token.expose()[1..],
            &format!("{}AA", token.expose()),
        ] {
            assert!(RefreshToken::parse(&ring, wrong).is_none(), "{wrong}");
        }
    }
}
