//! What arrives comes back, in its place alone, and lies nowhere unsealed.
#![allow(clippy::unwrap_used)]

use kit::{Reason, crypto::token, ids::OrgId};

use super::*;
use crate::{content::pack::Unpacking, model::StateId};

fn place() -> Place {
    Place {
        org: OrgId::new(),
        state: StateId::new(),
        version: Uuid::new_v4(),
    }
}

/// A state with so many bytes that zstd can do nothing with.
fn state(bytes: usize) -> Vec<u8> {
    let mut filler = String::with_capacity(bytes + 64);
    while filler.len() < bytes {
        filler.push_str(&token::<48>());
    }
    filler.truncate(bytes);
    format!(r#"{{"version":4,"serial":3,"lineage":"l","outputs":{{}},"resources":[],"check_results":"{filler}"}}"#)
        .into_bytes()
}

#[tokio::test]
async fn every_length_comes_back_byte_by_byte_and_each_chunk_opens_in_its_place_alone() {
    let ring = KeyRing::ephemeral();
    for bytes in [
        0,
        1000,
        CHUNK - 200,
        CHUNK + 1,
        CHUNK * 4 / 3,
        3 * CHUNK,
        MOST_WHOLE + CHUNK,
    ] {
        let place = place();
        let sent = state(bytes);
        let mut arriving = Arriving::new(&ring, place, u64::MAX, &Memory::new());
        for part in sent.chunks(70_001) {
            arriving.push(part).await.unwrap();
        }
        let mut content = arriving.finish(Some(Md5::digest(&sent).into())).await.unwrap();
        assert_eq!(content.heading().serial, 3);
        let body = Body {
            place,
            id: content.body(),
            base: None,
        };
        let key = DataKey::open(&ring, &place, content.wrapped_key()).unwrap();
        let (mut back, chunks) = (Vec::with_capacity(sent.len() + 1), content.chunks());
        let mut unpacking = Unpacking::new().unwrap();
        let mut stored = 0;
        for chunk in 0..chunks {
            let sealed = content.chunk(chunk).await.unwrap();
            stored += sealed.len() as u64;
            assert!(sealed.len() <= 1 << 20);
            let last = chunk + 1 == chunks;
            let plain = key.unseal(&body, chunk, last, &sealed).unwrap();
            assert_eq!(
                unpacking.step(plain.expose_secret(), &mut back).unwrap(),
                plain.expose_secret().len()
            );
            let refused = |body: &Body, chunk, last| {
                let error = key.unseal(body, chunk, last, &sealed).unwrap_err();
                assert_eq!(error.reason(), Reason::ContentCorrupt);
            };
            refused(&body, chunk, !last);
            refused(&body, chunk + 1, last);
            refused(
                &Body {
                    id: Uuid::new_v4(),
                    ..body
                },
                chunk,
                last,
            );
            refused(&Body { base: Some(9), ..body }, chunk, last);
            let elsewhere = Place {
                version: Uuid::new_v4(),
                ..place
            };
            refused(
                &Body {
                    place: elsewhere,
                    ..body
                },
                chunk,
                last,
            );
            assert!(DataKey::open(&ring, &elsewhere, content.wrapped_key()).is_err());
        }
        assert_eq!(stored, content.stored());
        assert!(back == sent);
    }
}

#[tokio::test]
async fn what_is_too_large_or_not_what_was_told_is_refused() {
    let ring = KeyRing::ephemeral();
    let sent = state(10);
    let mut arriving = Arriving::new(&ring, place(), sent.len() as u64 - 1, &Memory::new());
    assert_eq!(
        arriving.push(&sent).await.unwrap_err().reason(),
        Reason::MessageTooLarge
    );
    let mut arriving = Arriving::new(&ring, place(), sent.len() as u64, &Memory::new());
    arriving.push(&sent).await.unwrap();
    let error = arriving.finish(Some([0; 16])).await.err().unwrap();
    assert_eq!(error.violations()[0].field, "content_md5");
    let empty = Arriving::new(&ring, place(), 1, &Memory::new())
        .finish(None)
        .await
        .err()
        .unwrap();
    assert_eq!(empty.violations()[0].field, "content");
}

#[tokio::test]
async fn a_large_content_leaves_no_plain_text_in_its_file() {
    let ring = KeyRing::ephemeral();
    let mut arriving = Arriving::new(&ring, place(), u64::MAX, &Memory::new());
    let sent = state(4 << 20);
    arriving.push(&sent).await.unwrap();
    let mut content = arriving.finish(None).await.unwrap();
    let sealed = content.sealed.as_mut().unwrap();
    assert!(sealed.file.is_rolled());
    let mut on_disk = Vec::new();
    sealed.file.seek(SeekFrom::Start(0)).unwrap();
    sealed.file.read_to_end(&mut on_disk).unwrap();
    let piece = &sent[sent.len() / 2..][..16];
    assert!(!on_disk.windows(16).any(|window| window == piece));
}
