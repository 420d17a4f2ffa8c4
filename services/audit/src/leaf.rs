//! Leaf inputs: one row of the trail in one sequence of bytes.
//!
//! Two different rows never have the same bytes, and one row never has two: what decodes encodes to what it was.
//! Proofs hash these bytes, so an encoding never changes; another one gets another first byte.
//!
//! Version 1 is `01`, then every field in the order of [`AuditLog`]:
//!
//! | field | bytes |
//! |---|---|
//! | UUID | 16 |
//! | time | 8: microseconds since 1970, signed, big-endian |
//! | integer | 8 or 4, signed, big-endian |
//! | enum | 1, from [`crate::model`] |
//! | text, bytes | 4: length, big-endian; then as many, texts in UTF-8 |
//! | optional | `00`, or `01` and the field |
//!
//! The SHA-256 of an unparsed event stands for its bytes.

use std::fmt;

use kit::ids::OrgId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{ActorKind, AuditLog, AuditLogKind, LogId, Outcome, micros, time_of};

const VERSION: u8 = 1;

/// The bytes of a row.
pub fn encode(log: &AuditLog) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(512));
    out.byte(VERSION);
    out.uuid(log.org_id.0);
    out.uuid(log.id.0);
    out.byte(log.kind.byte());
    out.time(log.recorded_at);
    out.time(log.occurred_at);
    out.bytes(log.source.as_bytes());
    out.uuid(log.epoch);
    out.fixed(&log.position.to_be_bytes());
    out.optional(log.actor_kind, |out, kind| out.byte(kind.byte()));
    out.text(&log.actor_id);
    out.text(&log.action);
    out.text(&log.resource_type);
    out.text(&log.resource_id);
    out.optional(log.outcome, |out, outcome| out.byte(outcome.byte()));
    out.text(&log.reason);
    out.text(&log.request_id);
    out.text(&log.idempotency_key);
    out.text(&log.trace_id);
    out.text(&log.caller_address);
    out.text(&log.cause_event_id);
    out.fixed(&log.chain_depth.to_be_bytes());
    out.optional(log.envelope_hash.as_ref(), |out, hash| out.bytes(hash));
    out.0
}

/// The row of some bytes.
///
/// # Errors
/// [`Malformed`] for everything that [`encode`] does not make.
pub fn decode(bytes: &[u8]) -> Result<AuditLog, Malformed> {
    let mut from = Reader {
        rest: bytes,
        length: bytes.len(),
    };
    if from.byte()? != VERSION {
        return Err(Malformed(0));
    }
    let log = AuditLog {
        org_id: OrgId(from.uuid()?),
        id: LogId(from.uuid()?),
        kind: from.one_of(AuditLogKind::ALL, AuditLogKind::byte)?,
        recorded_at: from.time()?,
        occurred_at: from.time()?,
        source: from.text()?,
        epoch: from.uuid()?,
        position: i64::from_be_bytes(from.fixed()?),
        actor_kind: from.optional(|from| from.one_of(ActorKind::ALL, ActorKind::byte))?,
        actor_id: from.optional(Reader::text)?,
        action: from.optional(Reader::text)?,
        resource_type: from.optional(Reader::text)?,
        resource_id: from.optional(Reader::text)?,
        outcome: from.optional(|from| from.one_of(Outcome::ALL, Outcome::byte))?,
        reason: from.optional(Reader::text)?,
        request_id: from.optional(Reader::text)?,
        idempotency_key: from.optional(Reader::text)?,
        trace_id: from.optional(Reader::text)?,
        caller_address: from.optional(Reader::text)?,
        cause_event_id: from.optional(Reader::text)?,
        chain_depth: i32::from_be_bytes(from.fixed()?),
        envelope_hash: from.optional(|from| from.bytes().map(<[u8]>::to_vec))?,
    };
    if from.rest.is_empty() {
        Ok(log)
    } else {
        Err(from.malformed())
    }
}

/// Bytes that are no leaf input of a version known here; tells where they stopped making sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub usize);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the leaf input is malformed at byte {}", self.0)
    }
}

impl std::error::Error for Malformed {}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn uuid(&mut self, uuid: Uuid) {
        self.fixed(uuid.as_bytes());
    }

    fn time(&mut self, time: OffsetDateTime) {
        self.fixed(&micros(time).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("events are at most 64 KiB");
        self.fixed(&length.to_be_bytes());
        self.fixed(bytes);
    }

    fn text(&mut self, text: &Option<String>) {
        self.optional(text.as_ref(), |out, text| out.bytes(text.as_bytes()));
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                write(self, value);
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self) -> Malformed {
        Malformed(self.length - self.rest.len())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.fixed::<1>()?[0])
    }

    fn one_of<T: Copy>(&mut self, all: &[T], byte: impl Fn(T) -> u8) -> Result<T, Malformed> {
        let malformed = self.malformed();
        let asked = self.byte()?;
        all.iter().copied().find(|one| byte(*one) == asked).ok_or(malformed)
    }

    fn uuid(&mut self) -> Result<Uuid, Malformed> {
        Ok(Uuid::from_bytes(self.fixed()?))
    }

    fn time(&mut self) -> Result<OffsetDateTime, Malformed> {
        let malformed = self.malformed();
        time_of(i64::from_be_bytes(self.fixed()?)).ok_or(malformed)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = u32::from_be_bytes(self.fixed()?);
        self.take(usize::try_from(length).map_err(|_| self.malformed())?)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let malformed = self.malformed();
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| malformed)
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        let malformed = self.malformed();
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A small generator, so that a failing run can be run again.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % sides
        }

        fn uuid(&mut self) -> Uuid {
            Uuid::from_u64_pair(self.roll(3), self.roll(3))
        }

        /// Few letters and lengths, some like the bytes around texts, so that close neighbours are common.
        fn text(&mut self) -> String {
            let length = self.roll(4);
            (0..length)
                .map(|_| ['a', '\u{0}', '\u{1}', 'ä'][usize::try_from(self.roll(4)).unwrap()])
                .collect()
        }

        fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
            if self.roll(3) == 0 { None } else { Some(some(self)) }
        }

        fn of<T: Copy>(&mut self, all: &[T]) -> T {
            all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
        }

        fn log(&mut self) -> AuditLog {
            AuditLog {
                org_id: OrgId(self.uuid()),
                id: LogId(self.uuid()),
                kind: self.of(AuditLogKind::ALL),
                recorded_at: time_of(self.roll(5) as i64 - 2).unwrap(),
                occurred_at: time_of(self.roll(5) as i64 - 2).unwrap(),
                source: self.text(),
                epoch: self.uuid(),
                position: self.roll(4) as i64 - 2,
                actor_kind: self.maybe(|dice| dice.of(ActorKind::ALL)),
                actor_id: self.maybe(Dice::text),
                action: self.maybe(Dice::text),
                resource_type: self.maybe(Dice::text),
                resource_id: self.maybe(Dice::text),
                outcome: self.maybe(|dice| dice.of(Outcome::ALL)),
                reason: self.maybe(Dice::text),
                request_id: self.maybe(Dice::text),
                idempotency_key: self.maybe(Dice::text),
                trace_id: self.maybe(Dice::text),
                caller_address: self.maybe(Dice::text),
                cause_event_id: self.maybe(Dice::text),
                chain_depth: self.roll(4) as i32 - 2,
                envelope_hash: self.maybe(|dice| dice.text().into_bytes()),
            }
        }
    }

    #[test]
    fn an_encoding_never_changes() {
        let log = AuditLog {
            org_id: OrgId(Uuid::from_u128(1)),
            id: LogId(Uuid::from_u128(2)),
            kind: AuditLogKind::Call,
            recorded_at: time_of(1_767_225_600_000_001).unwrap(),
            occurred_at: time_of(1_767_225_600_000_000).unwrap(),
            source: "designs".to_owned(),
            epoch: Uuid::from_u128(3),
            position: 4,
            actor_kind: Some(ActorKind::User),
            actor_id: Some("ada".to_owned()),
            action: Some("designs.CreateDesign".to_owned()),
            resource_type: Some("design".to_owned()),
            resource_id: Some("ü".to_owned()),
            outcome: Some(Outcome::Denied),
            reason: None,
            request_id: Some("r".to_owned()),
            idempotency_key: None,
            trace_id: None,
            caller_address: Some("::1".to_owned()),
            cause_event_id: Some("cause".to_owned()),
            chain_depth: 6,
            envelope_hash: None,
        };
        let pinned = [
            "01",
            "00000000000000000000000000000001",
            "00000000000000000000000000000002",
            "01",
            "0006474846204001",
            "0006474846204000",
            "00000007",
            "64657369676e73",
            "00000000000000000000000000000003",
            "0000000000000004",
            "0101",
            "0100000003616461",
            "010000001464657369676e732e43726561746544657369676e",
            "010000000664657369676e",
            "0100000002c3bc",
            "0103",
            "00",
            "010000000172",
            "00",
            "00",
            "01000000033a3a31",
            "01000000056361757365",
            "00000006",
            "00",
        ];
        let ours: String = encode(&log).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(ours, pinned.concat());
    }

    #[test]
    fn no_two_rows_share_an_encoding() {
        let mut dice = Dice(0x0bad_cafe_dead_beef);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..20_000 {
            let log = dice.log();
            let bytes = encode(&log);
            assert_eq!(decode(&bytes).as_ref(), Ok(&log));
            let before = seen.insert(bytes, log.clone());
            assert!(before.is_none_or(|before| before == log));
        }
    }

    #[test]
    fn what_decodes_encodes_to_what_it_was() {
        let mut dice = Dice(7);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut bytes = encode(&dice.log());
            let at = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
            match dice.roll(3) {
                0 => bytes[at] = bytes[at].wrapping_add(1 + dice.roll(3) as u8),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, dice.roll(3) as u8),
            }
            if let Ok(log) = decode(&bytes) {
                assert_eq!(encode(&log), bytes);
                accepted += 1;
            }
        }
        assert!(accepted > 100, "{accepted}");
    }

    #[test]
    fn what_is_cut_or_longer_is_refused() {
        let bytes = encode(&Dice(3).log());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(Malformed(bytes.len())));
        assert_eq!(decode(&[&[2], &bytes[1..]].concat()), Err(Malformed(0)));
    }

    #[test]
    fn no_byte_stands_for_two_things() {
        fn distinct<T: Copy>(all: &[T], byte: impl Fn(T) -> u8, label: impl Fn(T) -> &'static str) {
            let of = |index: usize| (byte(all[index]), label(all[index]));
            for one in 0..all.len() {
                assert!((0..one).all(|other| of(one).0 != of(other).0 && of(one).1 != of(other).1));
            }
        }
        distinct(AuditLogKind::ALL, AuditLogKind::byte, AuditLogKind::label);
        distinct(ActorKind::ALL, ActorKind::byte, ActorKind::label);
        distinct(Outcome::ALL, Outcome::byte, Outcome::label);
    }
}
