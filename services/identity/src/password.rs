//! Hashing and verifying passwords, off the async threads and a few at a time.
//!
//! `bcrypt(base64(HMAC-SHA-384(pepper, NFKC(password))))`: no password is cut at bcrypt's 72 bytes, and a stolen table
//! is worth nothing without the pepper. Verifying takes the same time whether or not there is an account.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use kit::{
    Error, Reason, Result,
    crypto::{Pepper, base62},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha384;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use crate::model::{Password, PasswordHash};

const SCHEME: &str = "bcrypt-hmac-sha384";
/// 12 takes a core about 0.3 s; tests make hundreds.
const COST: u32 = if cfg!(debug_assertions) { 4 } else { 12 };
/// How long a caller waits for a core; then the service carries as many logins as it can. Tests run beside many others.
const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 8 } else { 2 });

/// The only one who sees passwords.
pub(crate) struct Passwords {
    pepper: Pepper,
    pepper_id: String,
    /// Verified against where there is no account, so that its absence takes no less time.
    dummy: String,
    cores: Arc<Semaphore>,
    made: Arc<AtomicU64>,
}

impl Passwords {
    /// Hashes under this pepper, on all cores but one.
    pub(crate) async fn new(pepper: Pepper) -> Result<Self> {
        let id = pepper.hmac_sha256(b"board3 pepper id");
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1));
        let dummy = spawn_blocking(|| bcrypt::non_truncating_hash(base62(43), COST))
            .await
            .map_err(Error::internal)?;
        Ok(Passwords {
            pepper,
            pepper_id: id[..4].iter().map(|byte| format!("{byte:02x}")).collect(),
            dummy: dummy.map_err(Error::internal)?,
            cores: Arc::new(Semaphore::new(cores)),
            made: Arc::default(),
        })
    }

    /// How many hashes were made, of passwords that were set and of those that were tried.
    pub(crate) fn made(&self) -> Arc<AtomicU64> {
        self.made.clone()
    }

    /// What is stored of a password.
    ///
    /// # Errors
    /// OVERLOADED when no core is free in time.
    pub(crate) async fn hash(&self, password: &Password) -> Result<PasswordHash> {
        let core = self.core().await?;
        let input = self.input(password);
        let hash = spawn_blocking(move || {
            let hash = bcrypt::non_truncating_hash(input.expose_secret(), COST);
            drop(core);
            hash
        });
        let hash = hash.await.map_err(Error::internal)?.map_err(Error::internal)?;
        Ok(PasswordHash(format!("{SCHEME}${}${hash}", self.pepper_id)))
    }

    /// Whether a hash is of this password; without a hash it takes as long and answers `false`.
    ///
    /// # Errors
    /// OVERLOADED when no core is free in time.
    pub(crate) async fn verify(&self, password: &Password, known: Option<&PasswordHash>) -> Result<bool> {
        let core = self.core().await?;
        let input = self.input(password);
        let ours = known.and_then(|known| self.bcrypt_of(known));
        let there = ours.is_some();
        let hash = ours.unwrap_or(&self.dummy).to_owned();
        let verified = spawn_blocking(move || {
            let verified = bcrypt::non_truncating_verify(input.expose_secret(), &hash);
            drop(core);
            verified
        });
        Ok(verified.await.map_err(Error::internal)?.map_err(Error::internal)? && there)
    }

    /// The bcrypt part of a hash that was made under our scheme and pepper.
    fn bcrypt_of<'a>(&self, known: &'a PasswordHash) -> Option<&'a str> {
        let (scheme, rest) = known.0.split_once('$')?;
        let (pepper_id, hash) = rest.split_once('$')?;
        (scheme == SCHEME && pepper_id == self.pepper_id).then_some(hash)
    }

    /// 64 characters, whatever the password's length.
    fn input(&self, password: &Password) -> SecretString {
        let mut mac = Hmac::<Sha384>::new_from_slice(self.pepper.expose()).expect("HMAC takes keys of every length");
        mac.update(password.normalized().expose_secret().as_bytes());
        STANDARD.encode(mac.finalize().into_bytes()).into()
    }

    async fn core(&self) -> Result<OwnedSemaphorePermit> {
        match timeout(PATIENCE, self.cores.clone().acquire_owned()).await {
            Ok(permit) => {
                self.made.fetch_add(1, Ordering::Relaxed);
                permit.map_err(Error::internal)
            }
            Err(_) => Err(
                Error::new(Reason::Overloaded, "too many passwords are being verified; try again")
                    .retry_after(Duration::from_secs(2)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kit::Violations;

    use super::*;

    fn password(text: &str) -> Password {
        Password::parse("password", text.to_owned(), &mut Violations::new()).unwrap()
    }

    async fn passwords(pepper: &str) -> Passwords {
        Passwords::new(Pepper::parse(&pepper.repeat(32)).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_password_is_verified_whole_and_under_its_pepper() {
        let ours = passwords("5a").await;
        let long = "x".repeat(200);
        let hash = ours.hash(&password(&long)).await.unwrap();
        assert!(hash.0.starts_with("bcrypt-hmac-sha384$") && !hash.0.contains(&long[..8]));
        assert!(ours.verify(&password(&long), Some(&hash)).await.unwrap());
        assert!(!ours.verify(&password(&format!("{long}y")), Some(&hash)).await.unwrap());
        assert!(!ours.verify(&password(&long), None).await.unwrap());
        assert!(
            !passwords("5b")
                .await
                .verify(&password(&long), Some(&hash))
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn one_password_typed_on_two_keyboards_is_one() {
        let ours = passwords("5a").await;
        let hash = ours.hash(&password("caf\u{e9} au lait")).await.unwrap();
        assert!(
            ours.verify(&password("cafe\u{301} au lait"), Some(&hash))
                .await
                .unwrap()
        );
        assert!(!ours.verify(&password(" caf\u{e9} au lait"), Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_core_for_ever() {
        let ours = passwords("5a").await;
        let held = ours
            .cores
            .clone()
            .acquire_many_owned(u32::try_from(ours.cores.available_permits()).unwrap())
            .await
            .unwrap();
        let refused = ours.verify(&password("anything"), None).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::Overloaded);
        drop(held);
        assert!(!ours.verify(&password("anything"), None).await.unwrap());
    }
}
