//! Which sets of keys are believed, and what asking for them costs.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU32};

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::{
    auth::{
        PermissionSet,
        token::{KEY_SET_LIFETIME, SigningKey},
    },
    ids::{OrgId, Principal},
};

/// An identity that answers what it is told to, and counts how often.
struct Asked {
    answer: Mutex<String>,
    keys: AtomicU32,
    away: AtomicBool,
}

#[async_trait]
impl Authority for Asked {
    async fn signing_keys(&self) -> Result<String> {
        self.keys.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.away.load(Ordering::SeqCst) {
            return Err(unanswered("away"));
        }
        Ok(self.answer.lock().unwrap().clone())
    }
    async fn permission_set(&self, _: OrgId, _: Principal) -> Result<(PermissionSet, i64)> {
        Ok((PermissionSet::none(), 0))
    }
    async fn session_active(&self, _: Uuid, _: Principal, _: i64) -> Result<bool> {
        Ok(false)
    }
    async fn exchange_api_key(&self, _: &str) -> Result<String> {
        Err(unanswered("no keys here"))
    }
}

fn root() -> SigningKey {
    SigningKey::from_seed(&[8; 32])
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn known(keys: &Keys, seed: u8) -> bool {
    keys.known(key(seed).key_id()).is_some()
}

fn set(version: i64, seeds: &[u8]) -> KeySet {
    KeySet {
        version,
        keys: seeds.iter().map(|seed| key(*seed).public().clone()).collect(),
        expires_at: SystemTime::now() + KEY_SET_LIFETIME,
    }
}

/// Keys that have fetched nothing yet, the identity that they ask, and how it tells of a new set.
fn desk() -> (Arc<Asked>, Arc<Keys>, watch::Sender<i64>) {
    let asked = Arc::new(Asked {
        answer: Mutex::new(root().sign_keys("dev", &set(5, &[7]))),
        keys: AtomicU32::new(0),
        away: AtomicBool::new(false),
    });
    let told = watch::Sender::new(0);
    let keys = Keys::new(asked.clone(), "dev".into(), root().public().clone(), told.subscribe());
    (asked, Arc::new(keys), told)
}

#[tokio::test]
async fn made_up_key_ids_ask_identity_once_however_many_there_are() {
    let (asked, keys, _told) = desk();
    for number in 0..50 {
        assert!(keys.find(&format!("k4.pid.{number}")).await.unwrap().is_none());
    }
    assert_eq!(asked.keys.load(Ordering::SeqCst), 1);
    assert!(keys.find(key(7).key_id()).await.unwrap().is_some());
}

#[tokio::test]
async fn with_identity_away_an_unknown_key_is_a_matter_of_availability_and_a_known_one_goes_on() {
    let (asked, keys, _told) = desk();
    asked.away.store(true, Ordering::SeqCst);
    for _ in 0..50 {
        let refused = keys.find(key(7).key_id()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
    }
    assert_eq!(asked.keys.load(Ordering::SeqCst), 1);
    asked.away.store(false, Ordering::SeqCst);
    keys.refresh().await.unwrap();
    assert!(keys.find(key(7).key_id()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_set_is_refused_and_the_known_one_stays_unless_the_check_is_taken_away() {
    let over = KeySet {
        expires_at: SystemTime::now() - Duration::from_secs(1),
        ..set(6, &[9])
    };
    let genuine = root().sign_keys("dev", &set(6, &[9]));
    // A set with one more key under the signature of the genuine one.
    let (payload, signed) = (
        root().sign_keys("dev", &set(6, &[9, 10])),
        genuine.split('.').collect::<Vec<_>>(),
    );
    let forged = {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let body = |text: &str| URL_SAFE_NO_PAD.decode(text.split('.').nth(2).unwrap()).unwrap();
        let (payload, genuine) = (body(&payload), body(&genuine));
        let mixed = [&payload[..payload.len() - 64], &genuine[genuine.len() - 64..]].concat();
        format!("v4.public.{}.{}", URL_SAFE_NO_PAD.encode(mixed), signed[3])
    };
    for (what, text, switch) in [
        ("forged", forged, "keys.signature"),
        (
            "of another root",
            key(11).sign_keys("dev", &set(6, &[9])),
            "keys.signature",
        ),
        (
            "of another environment",
            root().sign_keys("prod", &set(6, &[9])),
            "keys.signature",
        ),
        ("rolled back", root().sign_keys("dev", &set(4, &[9])), "keys.rollback"),
        ("over", root().sign_keys("dev", &over), "keys.expiry"),
    ] {
        let (asked, keys, _told) = desk();
        keys.refresh().await.unwrap();
        *asked.answer.lock().unwrap() = text;
        let refused = keys.refresh().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{what}");
        assert!(known(&keys, 7) && !known(&keys, 9), "{what}");
        assert!(
            keys.figures().fetched().contains(&("why=\"refused\"".to_owned(), 1.0)),
            "{what}"
        );

        let _off = failpoint::switch_off(switch);
        keys.refresh().await.unwrap();
        let taken = keys.read().keys.contains_key(key(9).key_id());
        assert!(taken, "{what}: nothing else refuses it");
    }
    for malformed in [String::new(), "k4.public.x".to_owned(), genuine.replace("v4.", "v3.")] {
        let (asked, keys, _told) = desk();
        *asked.answer.lock().unwrap() = malformed;
        assert!(keys.refresh().await.is_err() && !keys.ready());
    }
}

#[tokio::test]
async fn the_same_version_again_and_a_newer_one_are_taken_and_a_set_ends_with_its_time() {
    let (asked, keys, _told) = desk();
    keys.refresh().await.unwrap();
    keys.refresh().await.unwrap();
    *asked.answer.lock().unwrap() = root().sign_keys("dev", &set(6, &[9]));
    keys.refresh().await.unwrap();
    assert!(!known(&keys, 7) && known(&keys, 9));
    assert_eq!((keys.figures().version(), keys.ready()), (6, true));
    keys.known.write().unwrap().expires_at = SystemTime::now();
    assert!(!known(&keys, 9) && !keys.ready());
}

#[tokio::test]
async fn an_id_that_was_unknown_is_found_as_soon_as_a_newer_set_names_it() {
    let (asked, keys, _told) = desk();
    assert!(keys.find(key(9).key_id()).await.unwrap().is_none());
    *asked.answer.lock().unwrap() = root().sign_keys("dev", &set(6, &[7, 9]));
    assert!(
        keys.find(key(9).key_id()).await.unwrap().is_none(),
        "taken as unknown for a while"
    );
    keys.refresh().await.unwrap();
    assert!(keys.find(key(9).key_id()).await.unwrap().is_some());
    assert_eq!(asked.keys.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_event_that_tells_of_a_new_set_has_it_fetched_at_once() {
    let (asked, keys, told) = desk();
    let fresh = tokio::spawn({
        let keys = keys.clone();
        async move { keys.keep_fresh().await }
    });
    let learns = async |seed: u8| {
        let known = async {
            while !known(&keys, seed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Far below the minute after which it would be fetched anyway.
        tokio::time::timeout(Duration::from_secs(20), known).await.unwrap();
    };
    learns(7).await;
    *asked.answer.lock().unwrap() = root().sign_keys("dev", &set(6, &[9]));
    told.send_replace(6);
    learns(9).await;
    assert!(!known(&keys, 7));
    fresh.abort();
}
