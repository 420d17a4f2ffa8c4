//! Devices that have signed in before.
//!
//! A device token opens nothing: it tells a known device's attempts from a stranger's, so that strangers cannot use up
//! what the owner has. It ends with the password that it was given for, and after [`LIFETIME`].

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kit::{crypto::KeyRing, ids::UserId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::PasswordHash;

kit::id! {
    /// A device, as far as one account knows it.
    DeviceId
}

const LIFETIME: Duration = Duration::days(90);
const PREFIX: &str = "b3d_";
const PASSWORD: &str = "identity device token password";
const TAG: &str = "identity device token tag";
const HASH_SIZE: usize = 16;

/// `b3d_` and, in base64url, the user, the device, the time of issue, a keyed hash of the stored password, and a tag that
/// only the ring can make. Nothing of it is stored.
#[derive(Debug)]
pub(crate) struct DeviceToken {
    user: UserId,
    device: DeviceId,
    password: [u8; HASH_SIZE],
}

impl DeviceToken {
    /// The token of a device that has just signed in.
    pub(crate) fn issue(
        ring: &KeyRing,
        user: UserId,
        device: DeviceId,
        password: &PasswordHash,
        now: OffsetDateTime,
    ) -> String {
        let password = ring.keyed_hash(PASSWORD, password.0.as_bytes());
        let mut bytes = [
            user.0.as_bytes().as_slice(),
            device.0.as_bytes(),
            &now.unix_timestamp().to_be_bytes(),
            &password[..HASH_SIZE],
        ]
        .concat();
        let tag = ring.keyed_hash(TAG, &bytes);
        bytes.extend_from_slice(&tag[..HASH_SIZE]);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a token; `None` for what was never one of ours, and for one that is too old.
    pub(crate) fn parse(ring: &KeyRing, text: &str, now: OffsetDateTime) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (body, tag) = bytes.split_last_chunk::<HASH_SIZE>()?;
        let (user, rest) = body.split_first_chunk::<16>()?;
        let (device, rest) = rest.split_first_chunk::<16>()?;
        let (issued_at, password) = rest.split_first_chunk::<8>()?;
        let password = <[u8; HASH_SIZE]>::try_from(password).ok()?;
        let age = now.unix_timestamp().saturating_sub(i64::from_be_bytes(*issued_at));
        (ring.matches(TAG, body, tag) && age < LIFETIME.whole_seconds()).then(|| DeviceToken {
            user: UserId(Uuid::from_bytes(*user)),
            device: DeviceId(Uuid::from_bytes(*device)),
            password,
        })
    }

    /// The device, if it signed in to this account by the password that the account still has.
    pub(crate) fn device_of(&self, ring: &KeyRing, user: UserId, password: &PasswordHash) -> Option<DeviceId> {
        let known = self.user == user && ring.matches(PASSWORD, password.0.as_bytes(), &self.password);
        known.then_some(self.device)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_device_is_known_to_its_account_until_the_password_changes_or_ninety_days_are_over() {
        let ring = KeyRing::ephemeral();
        let (user, device, now) = (UserId::new(), DeviceId::new(), OffsetDateTime::UNIX_EPOCH);
        let password = PasswordHash("old".to_owned());
        let text = DeviceToken::issue(&ring, user, device, &password, now);
        let token = DeviceToken::parse(&ring, &text, now + LIFETIME - Duration::SECOND).unwrap();
        assert_eq!(token.device_of(&ring, user, &password), Some(device));
        assert_eq!(token.device_of(&ring, UserId::new(), &password), None);
        assert_eq!(token.device_of(&ring, user, &PasswordHash("new".to_owned())), None);
        assert!(DeviceToken::parse(&ring, &text, now + LIFETIME).is_none());
    }

    #[test]
    fn a_made_up_token_knows_nobody() {
        let ring = KeyRing::ephemeral();
        let now = OffsetDateTime::UNIX_EPOCH;
        let password = PasswordHash("hash".to_owned());
        let text = DeviceToken::issue(&ring, UserId::new(), DeviceId::new(), &password, now);
        assert!(DeviceToken::parse(&KeyRing::ephemeral(), &text, now).is_none());
        for wrong in ["", "b3d_", "b3r_AAAA", &text[1..], &format!("{text}AA")] {
            assert!(DeviceToken::parse(&ring, wrong, now).is_none(), "{wrong}");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&text[PREFIX.len()..]).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(changed));
            assert!(DeviceToken::parse(&ring, &changed, now).is_none(), "byte {at}");
        }
    }
}
