//! What tokens say, what is refused, and the official vectors.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn claims(expires_at: SystemTime) -> AccessClaims {
    AccessClaims {
        principal: Principal::User(UserId::new()),
        org: Some(OrgId::new()),
        session: Uuid::now_v7(),
        epoch: 3,
        permission_version: 7,
        expires_at,
    }
}

#[test]
fn a_token_says_what_was_signed() {
    let key = SigningKey::from_seed(&[7; 32]);
    let said = claims(OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap().into());
    let token = key.sign_access("dev", &said);
    assert_eq!(key_id(&token).unwrap(), key.key_id());
    assert_eq!(
        PublicKey::parse(&key.public_key())
            .unwrap()
            .verify_access("dev", &token),
        Ok(said)
    );
}

#[test]
fn other_environments_kinds_keys_and_times_are_refused() {
    let key = SigningKey::from_seed(&[7; 32]);
    let later = SystemTime::now() + ACCESS_LIFETIME;
    let token = key.sign_access("dev", &claims(later));
    assert_eq!(key.public().verify_access("prod", &token), Err(Refused::Forged));
    assert_eq!(key.public().verify_service("dev", &token), Err(Refused::Forged));
    assert_eq!(
        SigningKey::from_seed(&[8; 32]).public().verify_access("dev", &token),
        Err(Refused::Forged)
    );
    let over = key.sign_access("dev", &claims(SystemTime::now() - Duration::from_secs(1)));
    assert_eq!(key.public().verify_access("dev", &over), Err(Refused::Expired));
    assert_eq!(
        key.public().verify_access("dev", &key.sign_service("dev", "designs")),
        Err(Refused::Forged)
    );
    assert_eq!(
        key.public().verify_service("dev", &key.sign_service("dev", "designs")),
        Ok("designs".to_owned())
    );
}

#[test]
fn a_footer_of_another_shape_is_refused_before_anything_is_parsed() {
    for token in [
        "",
        "v4.public.x",
        "v4.local.x.y",
        "v4.public.x.eyJraWQiOiJ4In0",
        "v2.public.a.b",
        "v4.public.a.b.c",
    ] {
        assert_eq!(key_id(token), Err(Refused::Malformed), "{token}");
    }
}

/// PASETO v4.public and PASERK k4.pid and k4.public, from github.com/paseto-standard/test-vectors.
fn vectors(of: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../../tests/vectors/v4.json")).unwrap();
    let vectors = all[of].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

fn bytes(vector: &Value, field: &str) -> Vec<u8> {
    hex::decode(vector[field].as_str().unwrap()).unwrap()
}

#[test]
fn the_official_vectors_of_signed_tokens_are_made_and_verified() {
    for vector in vectors("v4.public") {
        let text = |field: &str| vector[field].as_str().unwrap();
        let key = SigningKey::from_seed(&bytes(&vector, "secret-key-seed").try_into().unwrap());
        assert_eq!(key.public.key.as_bytes(), bytes(&vector, "public-key"), "{vector}");
        let (footer, assertion) = (text("footer"), text("implicit-assertion"));
        let signed = PublicToken::sign(
            &key.secret,
            text("payload").as_bytes(),
            Some(footer.as_bytes()),
            Some(assertion.as_bytes()),
        );
        assert_eq!(signed.unwrap(), text("token"));
        let said: Value = key.public.verify(text("token"), assertion).unwrap();
        assert_eq!(said, serde_json::from_str::<Value>(text("payload")).unwrap());
        for wrong in ["", "{}", "board3|dev|access|v1"] {
            let verified: Result<Value, _> = key.public.verify(text("token"), &format!("{assertion}{wrong}"));
            assert_eq!(verified.is_ok(), wrong.is_empty(), "{vector}");
        }
    }
}

#[test]
fn the_official_vectors_that_must_fail_do() {
    let key = vectors("v4.public")[0].clone();
    let key = SigningKey::from_seed(&bytes(&key, "secret-key-seed").try_into().unwrap());
    for vector in vectors("v4.public-fail") {
        let text = |field: &str| vector[field].as_str().unwrap();
        let said: Result<Value, _> = key.public.verify(text("token"), text("implicit-assertion"));
        assert!(said.is_err(), "{vector}");
        assert!(key.public.verify_access("dev", text("token")).is_err());
    }
}

#[test]
fn the_official_vectors_of_key_ids_and_public_keys_are_met() {
    for vector in vectors("k4.pid") {
        let key = PublicKey::new(AsymmetricPublicKey::from(&bytes(&vector, "key")).unwrap());
        assert_eq!(key.id(), vector["paserk"].as_str().unwrap());
    }
    for vector in vectors("k4.public") {
        match vector["paserk"].as_str() {
            Some(paserk) => {
                let key = PublicKey::parse(paserk).unwrap();
                assert_eq!(
                    (key.key.as_bytes(), key.paserk().as_str()),
                    (bytes(&vector, "key").as_slice(), paserk)
                );
            }
            None => assert!(
                AsymmetricPublicKey::<V4>::from(&bytes(&vector, "key")).is_err(),
                "{vector}"
            ),
        }
    }
    for (of, version) in [
        ("k4.public.", "k3.public."),
        ("k4.public.", "k4.secret."),
        ("k4.public.", "k4.pid."),
    ] {
        let paserk = SigningKey::from_seed(&[7; 32]).public_key().replace(of, version);
        assert!(PublicKey::parse(&paserk).is_none(), "{paserk}");
    }
}

/// A token that the key of `seed` signed, with any footer and claims.
fn signed(seed: u8, claims: &str, footer: &str, kind: &str) -> String {
    let key = SigningKey::from_seed(&[seed; 32]);
    PublicToken::sign(
        &key.secret,
        claims.as_bytes(),
        Some(footer.as_bytes()),
        Some(assertion("dev", kind).as_bytes()),
    )
    .unwrap()
}

#[test]
fn a_footer_names_one_key_in_one_way_also_under_a_genuine_signature() {
    let kid = SigningKey::from_seed(&[7; 32]).key_id().to_owned();
    let claims = r#"{"a":1}"#;
    assert_eq!(
        key_id(&signed(7, claims, &format!(r#"{{"kid":"{kid}"}}"#), "access")).unwrap(),
        kid
    );
    for footer in [
        String::new(),
        kid.clone(),
        "{}".to_owned(),
        format!(r#"{{"kid": "{kid}"}}"#),
        format!(r#"{{"kid":"{kid}","kid":"{kid}"}}"#),
        format!(r#"{{"kid":"{kid}","wpk":"x"}}"#),
        format!(r#"{{"wpk":"k4.public.x","kid":"{kid}"}}"#),
        format!(r#"{{"kid":"{}"}}"#, kid.replace("k4.pid", "k4.sid")),
        format!(r#"{{"kid":"{}"}}"#, kid.replace("k4.pid", "k3.pid")),
        format!(r#"{{"kid":"{}"}}"#, &kid[..kid.len() - 1]),
        format!(r#"{{"kid":"{kid}A"}}"#),
        format!(r#"{{"kid":"{}\""}}"#, &kid[..kid.len() - 2]),
        r#"{"kid":["k4.pid.x"]}"#.to_owned(),
    ] {
        assert_eq!(
            key_id(&signed(7, claims, &footer, "access")),
            Err(Refused::Malformed),
            "{footer}"
        );
    }
}

#[test]
fn claims_that_break_a_rule_are_refused_under_a_genuine_signature() {
    let key = SigningKey::from_seed(&[7; 32]);
    let footer = format!(r#"{{"kid":"{}"}}"#, key.key_id());
    let now = SystemTime::now();
    let at = |seconds: i64| {
        let by = Duration::from_secs(seconds.unsigned_abs());
        written(if seconds < 0 { now - by } else { now + by })
    };
    let good = json!({
        "sub": format!("user:{}", UserId::new()), "sid": Uuid::now_v7().to_string(), "ep": 1, "pv": 1,
        "exp": at(300), "nbf": at(-5), "iat": at(0),
    });
    let refused = |claims: &str| {
        key.public()
            .verify_access("dev", &signed(7, claims, &footer, "access"))
            .err()
    };
    assert_eq!(refused(&good.to_string()), None);
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        claims.to_string()
    };
    for field in ["sub", "sid", "ep", "pv", "exp", "nbf", "iat"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(field);
        assert_eq!(
            refused(&claims.to_string()),
            Some(Refused::Malformed),
            "without {field}"
        );
    }
    for (field, value) in [
        ("sub", json!("user:x")),
        ("sub", json!(format!("job:{}", Uuid::now_v7()))),
        ("sub", json!(Uuid::now_v7().to_string())),
        ("org", json!("x")),
        ("ep", json!("1")),
        ("pv", json!(1.5)),
        ("exp", json!(4_000_000_000_i64)),
        ("exp", json!("tomorrow")),
        ("nbf", json!(["2020-01-01T00:00:00Z"])),
    ] {
        assert_eq!(
            refused(&with(field, value.clone())),
            Some(Refused::Malformed),
            "{field}: {value}"
        );
    }
    // A claim that stands twice could be read differently by another reader.
    let twice = good.to_string().replacen('{', r#"{"ep":9,"#, 1);
    assert_eq!(refused(&twice), Some(Refused::Malformed));
    assert_eq!(refused(&with("exp", json!(at(-1)))), Some(Refused::Expired));
    assert_eq!(refused(&with("nbf", json!(at(60)))), Some(Refused::Expired));
    assert_eq!(refused(&with("nbf", json!(at(10)))), None, "clocks differ a little");
}

#[test]
fn a_set_of_keys_says_what_the_root_signed_and_is_no_token_of_another_kind() {
    let (root, key) = (SigningKey::from_seed(&[8; 32]), SigningKey::from_seed(&[7; 32]));
    let set = KeySet {
        version: 5,
        keys: vec![key.public().clone()],
        expires_at: OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap().into(),
    };
    let text = root.sign_keys("dev", &set);
    let read = root.public().verify_keys("dev", &text).unwrap();
    assert_eq!((read.version, read.expires_at), (5, set.expires_at));
    assert_eq!(read.keys[0].id(), key.key_id());
    let refused = |text: &str| root.public().verify_keys("dev", text).err();
    assert_eq!(refused(&root.sign_keys("prod", &set)), Some(Refused::Forged));
    assert_eq!(refused(&key.sign_keys("dev", &set)), Some(Refused::UnknownKey));
    assert_eq!(refused(&root.sign_service("dev", "identity")), Some(Refused::Forged));
    assert_eq!(root.public().verify_service("dev", &text), Err(Refused::Forged));
    // Another key's set that only names the root.
    let footer = format!(r#"{{"kid":"{}"}}"#, root.key_id());
    let claims = r#"{"ver":9,"keys":[],"exp":"2100-01-01T00:00:00Z","iat":"2026-01-01T00:00:00Z"}"#;
    assert_eq!(refused(&signed(7, claims, &footer, "keys")), Some(Refused::Forged));
    assert_eq!(refused(&signed(8, claims, &footer, "keys")), None);
    for claims in [
        claims.replace("\"ver\":9,", ""),
        claims.replace("\"exp\":\"2100-01-01T00:00:00Z\",", ""),
        claims.replace("[]", r#"["k4.secret.x"]"#),
    ] {
        assert_eq!(
            refused(&signed(8, &claims, &footer, "keys")),
            Some(Refused::Malformed),
            "{claims}"
        );
    }
}
