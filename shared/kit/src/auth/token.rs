//! PASETO v4.public tokens: access tokens of callers, and the services' own 60-second tokens.
//!
//! The footer is exactly `{"kid":"k4.pid.…"}` and only picks the key; a key never comes from a token.
//! The implicit assertion tells apart environments and kinds of token, so that one kind never passes for another.

use std::time::{Duration, SystemTime};

use pasetors::{
    Public,
    keys::{AsymmetricPublicKey, AsymmetricSecretKey},
    paserk::{FormatAsPaserk, Id},
    token::UntrustedToken,
    version4::{PublicToken, V4},
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::ids::{OrgId, Principal, UserId};

/// How long an access token lives.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(300);
/// How long a service's token lives.
pub const SERVICE_LIFETIME: Duration = Duration::from_secs(60);
/// How long a set of keys is believed; a fresh one is fetched every minute.
pub const KEY_SET_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How far clocks may differ; never applied to the expiry.
pub const SKEW: Duration = Duration::from_secs(30);

/// A key that signs tokens.
pub struct SigningKey {
    secret: AsymmetricSecretKey<V4>,
    public: PublicKey,
}

/// A key that verifies tokens.
#[derive(Clone, Debug)]
pub struct PublicKey {
    key: AsymmetricPublicKey<V4>,
    id: String,
}

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessClaims {
    /// Who calls: a user or an API key.
    pub principal: Principal,
    /// In which organization; none for a user without one.
    pub org: Option<OrgId>,
    /// The session, or the API key's id.
    pub session: Uuid,
    /// The user's epoch: tokens of older epochs are void.
    pub epoch: i64,
    /// The version of the organization's permissions when the token was made.
    pub permission_version: i64,
    /// When it ends.
    pub expires_at: SystemTime,
}

/// The keys that access tokens verify against, as the root key's signature vouches for them.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// Grows with each change.
    pub version: i64,
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// When the set is too old to be believed.
    pub expires_at: SystemTime,
}

/// Why a token is refused; the caller is told only that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not of our form.
    Malformed,
    /// Signed with a key that is not known.
    UnknownKey,
    /// Forged, or of another environment or kind.
    Forged,
    /// Over, or not yet begun.
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Access {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<OrgId>,
    sid: Uuid,
    ep: i64,
    pv: i64,
    exp: String,
    nbf: String,
    iat: String,
}

#[derive(Serialize, Deserialize)]
struct Service {
    svc: String,
    exp: String,
    nbf: String,
    iat: String,
}

#[derive(Serialize, Deserialize)]
struct Keys {
    ver: i64,
    keys: Vec<String>,
    exp: String,
    iat: String,
}

impl SigningKey {
    /// The key of an Ed25519 seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(*seed));
        let secret = AsymmetricSecretKey::<V4>::from(pair.sk.as_ref()).expect("an Ed25519 secret key has 64 bytes");
        let public = AsymmetricPublicKey::<V4>::from(pair.pk.as_ref()).expect("an Ed25519 public key has 32 bytes");
        SigningKey {
            secret,
            public: PublicKey::new(public),
        }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// PASERK `k4.pid.…`.
    pub fn key_id(&self) -> &str {
        &self.public.id
    }

    /// PASERK `k4.public.…`.
    pub fn public_key(&self) -> String {
        self.public.paserk()
    }

    /// An access token.
    pub fn sign_access(&self, environment: &str, claims: &AccessClaims) -> String {
        let now = SystemTime::now();
        self.sign(
            &Access {
                sub: claims.principal.to_string(),
                org: claims.org,
                sid: claims.session,
                ep: claims.epoch,
                pv: claims.permission_version,
                exp: written(claims.expires_at),
                nbf: written(now - Duration::from_secs(5)),
                iat: written(now),
            },
            &assertion(environment, "access"),
        )
    }

    /// A service's own token.
    pub fn sign_service(&self, environment: &str, slice: &str) -> String {
        let now = SystemTime::now();
        let claims = Service {
            svc: slice.to_owned(),
            exp: written(now + SERVICE_LIFETIME),
            nbf: written(now - Duration::from_secs(5)),
            iat: written(now),
        };
        self.sign(&claims, &assertion(environment, "service"))
    }

    /// The set of keys that access tokens verify against, vouched for by this key, the root.
    pub fn sign_keys(&self, environment: &str, set: &KeySet) -> String {
        let claims = Keys {
            ver: set.version,
            keys: set.keys.iter().map(PublicKey::paserk).collect(),
            exp: written(set.expires_at),
            iat: written(SystemTime::now()),
        };
        self.sign(&claims, &assertion(environment, "keys"))
    }

    fn sign(&self, claims: &impl Serialize, assertion: &str) -> String {
        let message = serde_json::to_vec(claims).expect("claims are plain strings and numbers");
        let footer = format!("{{\"kid\":\"{}\"}}", self.public.id);
        PublicToken::sign(
            &self.secret,
            &message,
            Some(footer.as_bytes()),
            Some(assertion.as_bytes()),
        )
        .expect("a message that is not empty can be signed")
    }
}

impl PublicKey {
    fn new(key: AsymmetricPublicKey<V4>) -> Self {
        let mut id = String::new();
        Id::from(&key).fmt(&mut id).expect("writing to a string does not fail");
        PublicKey { key, id }
    }

    /// Parses PASERK `k4.public.…`.
    pub fn parse(paserk: &str) -> Option<Self> {
        AsymmetricPublicKey::<V4>::try_from(paserk).ok().map(Self::new)
    }

    /// PASERK `k4.pid.…`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// PASERK `k4.public.…`.
    pub fn paserk(&self) -> String {
        let mut text = String::new();
        self.key.fmt(&mut text).expect("writing to a string does not fail");
        text
    }

    /// What a caller's access token says, if it is one of this key and environment and of now.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify_access(&self, environment: &str, token: &str) -> Result<AccessClaims, Refused> {
        let claims: Access = self.verify(token, &assertion(environment, "access"))?;
        let expires_at = in_time(&claims.exp, &claims.nbf)?;
        let (kind, id) = claims.sub.split_once(':').ok_or(Refused::Malformed)?;
        let id = crate::ids::parse(id).map_err(|_| Refused::Malformed)?;
        let principal = match kind {
            "user" => Principal::User(UserId(id)),
            "key" => Principal::ApiKey(id),
            _ => return Err(Refused::Malformed),
        };
        Ok(AccessClaims {
            principal,
            org: claims.org,
            session: claims.sid,
            epoch: claims.ep,
            permission_version: claims.pv,
            expires_at,
        })
    }

    /// The slice that a service's token names.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify_service(&self, environment: &str, token: &str) -> Result<String, Refused> {
        let claims: Service = self.verify(token, &assertion(environment, "service"))?;
        in_time(&claims.exp, &claims.nbf)?;
        Ok(claims.svc)
    }

    /// The set of keys that a text holds, if this key, the root, vouches for it in this environment.
    ///
    /// Whether it is over or older than another is the caller's to judge.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify_keys(&self, environment: &str, text: &str) -> Result<KeySet, Refused> {
        if key_id(text)? != self.id {
            return Err(Refused::UnknownKey);
        }
        key_set(self.verify(text, &assertion(environment, "keys"))?)
    }

    fn verify<T: for<'de> Deserialize<'de>>(&self, token: &str, assertion: &str) -> Result<T, Refused> {
        let untrusted = UntrustedToken::<Public, V4>::try_from(token).map_err(|_| Refused::Malformed)?;
        let trusted = PublicToken::verify(&self.key, &untrusted, None, Some(assertion.as_bytes()))
            .map_err(|_| Refused::Forged)?;
        serde_json::from_str(trusted.payload()).map_err(|_| Refused::Malformed)
    }
}

/// What a text says of keys, whoever signed it: only for tests that take the signature away.
pub(super) fn unverified_keys(text: &str) -> Result<KeySet, Refused> {
    let untrusted = UntrustedToken::<Public, V4>::try_from(text).map_err(|_| Refused::Malformed)?;
    key_set(serde_json::from_slice(untrusted.untrusted_payload()).map_err(|_| Refused::Malformed)?)
}

fn key_set(claims: Keys) -> Result<KeySet, Refused> {
    let keys: Option<_> = claims.keys.iter().map(|key| PublicKey::parse(key)).collect();
    Ok(KeySet {
        version: claims.ver,
        keys: keys.ok_or(Refused::Malformed)?,
        expires_at: moment(&claims.exp)?,
    })
}

/// The id of the key that a token says it is signed with; nothing of it is trusted yet.
pub fn key_id(token: &str) -> Result<String, Refused> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut parts = token.split('.');
    let (Some("v4"), Some("public"), Some(_), Some(footer), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refused::Malformed);
    };
    // {"kid":"k4.pid. + 44 characters + "} = 61 bytes, 82 characters of base64.
    if footer.len() > 90 {
        return Err(Refused::Malformed);
    }
    let footer = URL_SAFE_NO_PAD.decode(footer).map_err(|_| Refused::Malformed)?;
    let footer = std::str::from_utf8(&footer).map_err(|_| Refused::Malformed)?;
    let id = footer
        .strip_prefix("{\"kid\":\"")
        .and_then(|rest| rest.strip_suffix("\"}"))
        .ok_or(Refused::Malformed)?;
    let body = id.strip_prefix("k4.pid.").ok_or(Refused::Malformed)?;
    if body.len() != 44
        || !body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return Err(Refused::Malformed);
    }
    Ok(id.to_owned())
}

fn assertion(environment: &str, kind: &str) -> String {
    format!("board3|{environment}|{kind}|v1")
}

fn written(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .expect("times of this age have a form in RFC 3339")
}

fn moment(text: &str) -> Result<SystemTime, Refused> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(SystemTime::from)
        .map_err(|_| Refused::Malformed)
}

fn in_time(exp: &str, nbf: &str) -> Result<SystemTime, Refused> {
    let (exp, nbf) = (moment(exp)?, moment(nbf)?);
    let now = SystemTime::now();
    if now >= exp || nbf > now + SKEW {
        Err(Refused::Expired)
    } else {
        Ok(exp)
    }
}

#[cfg(test)]
mod tests;
