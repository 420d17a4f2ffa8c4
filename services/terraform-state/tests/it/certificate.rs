//! A certificate for `localhost` that vouches for itself (X.509 v3, ECDSA on P-256), written as DER by hand.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const BITS: u8 = 0x03;
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// A certificate and its key.
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).unwrap();
        let algorithm = der(SEQUENCE, &[&der(OID, &[ECDSA_WITH_SHA256])]);
        let named = der(SEQUENCE, &[&der(OID, &[COMMON_NAME]), &der(0x0c, &[b"localhost"])]);
        let name = der(SEQUENCE, &[&der(0x31, &[&named])]);
        let time = |text: &[u8]| der(0x17, &[text]);
        let validity = der(SEQUENCE, &[&time(b"200101000000Z"), &time(b"491231235959Z")]);
        let kind = der(SEQUENCE, &[&der(OID, &[EC_PUBLIC_KEY]), &der(OID, &[P256])]);
        let public = der(SEQUENCE, &[&kind, &der(BITS, &[&[0], pair.public_key().as_ref()])]);
        let names = der(SEQUENCE, &[&der(0x82, &[b"localhost"])]);
        let alternative = der(
            SEQUENCE,
            &[&der(OID, &[SUBJECT_ALTERNATIVE_NAME]), &der(0x04, &[&names])],
        );
        let extensions = der(0xa3, &[&der(SEQUENCE, &[&alternative])]);
        let version = der(0xa0, &[&der(0x02, &[&[2]])]);
        let serial = der(0x02, &[&[7]]);
        let content = [
            &version,
            &serial,
            &algorithm,
            &name,
            &validity,
            &name,
            &public,
            &extensions,
        ];
        let content = der(SEQUENCE, &content.map(Vec::as_slice));
        let signature = pair.sign(&random, &content).unwrap();
        let signature = der(BITS, &[&[0], signature.as_ref()]);
        Certificate {
            der: der(SEQUENCE, &[&content, &algorithm, &signature]),
            key: key.as_ref().to_vec(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    pub(crate) fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }
}

/// One element with what it holds.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut element = vec![tag];
    match content.len() {
        short @ ..=0x7f => element.push(u8::try_from(short).unwrap()),
        long @ ..=0xff => element.extend([0x81, u8::try_from(long).unwrap()]),
        long => {
            element.push(0x82);
            element.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    element.extend(content);
    element
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}
