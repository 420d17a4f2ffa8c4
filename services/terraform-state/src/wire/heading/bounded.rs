//! A state's JSON on its way to the parser, without what the parser would have to hold in memory whole.
//!
//! Values that are passed over may be as long as they like; keys, values that are looked at, and nesting have bounds.

use std::io::{self, ErrorKind, Read};

use memchr::memchr2;

/// The most bytes of a key, or of a text that is looked at.
const MOST_TEXT_BYTES: usize = 64 << 10;
/// The most that lists and objects lie in one another.
const MOST_DEPTH: usize = 1_000;
/// The keys at the top whose values are looked at.
const LOOKED_AT: [&[u8]; 6] = [
    b"version",
    b"serial",
    b"lineage",
    b"terraform_version",
    b"resources",
    b"outputs",
];
/// Longer keys are none of those.
const MOST_KEPT_OF_A_KEY: usize = 20;

/// Reads what another reader reads, and fails with [`ErrorKind::InvalidData`] where it has no bounds.
pub(super) struct Bounded<R> {
    inner: R,
    bounds: Bounds,
}

/// How far a JSON was seen.
#[derive(Default)]
pub(super) struct Bounds {
    /// The brackets that are open.
    open: Vec<u8>,
    /// Whether the next text in an object is a key.
    key_next: bool,
    /// How the last key begins.
    key: Vec<u8>,
    text: Option<Text>,
}

/// A text that has begun.
struct Text {
    length: usize,
    escaped: bool,
    key: bool,
    bounded: bool,
}

impl Text {
    /// How many of the next bytes are before its end; none if it becomes too long.
    fn take(&mut self, bytes: &[u8], key: &mut Vec<u8>) -> Option<usize> {
        let mut passed = usize::from(std::mem::take(&mut self.escaped));
        loop {
            let Some(plain) = memchr2(b'"', b'\\', &bytes[passed..]) else {
                passed = bytes.len();
                break;
            };
            passed += plain;
            if bytes[passed] == b'"' {
                break;
            }
            if passed + 1 == bytes.len() {
                self.escaped = true;
                passed += 1;
                break;
            }
            passed += 2;
        }
        self.length += passed;
        if self.key {
            let kept = passed.min(MOST_KEPT_OF_A_KEY - key.len());
            key.extend_from_slice(&bytes[..kept]);
        }
        (!self.bounded || self.length <= MOST_TEXT_BYTES).then_some(passed)
    }
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R) -> Self {
        Bounded {
            inner,
            bounds: Bounds::default(),
        }
    }
}

impl Bounds {
    /// Whether all is well with the next bytes.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            // Most of a state is texts and blanks: of those, only how long they are is looked at.
            let passed = match &mut self.text {
                Some(text) => match text.take(bytes, &mut self.key) {
                    Some(passed) => passed,
                    None => return false,
                },
                None => bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\n')).count(),
            };
            let Some((byte, rest)) = bytes[passed..].split_first() else {
                return true;
            };
            if self.text.is_some() {
                self.text = None;
            } else if !self.takes(*byte) {
                return false;
            }
            bytes = rest;
        }
        true
    }

    /// Whether all is well with the next byte, outside of any text.
    fn takes(&mut self, byte: u8) -> bool {
        match byte {
            b'"' => {
                let key = self.key_next && self.open.last() == Some(&b'{');
                if key {
                    self.key.clear();
                }
                self.text = Some(Text {
                    length: 0,
                    escaped: false,
                    key,
                    bounded: key || self.looked_at(),
                });
            }
            b'{' | b'[' => {
                self.open.push(byte);
                self.key_next = true;
                // A list at the top would be taken for the fields in their order.
                return self.open[0] == b'{' && self.open.len() <= MOST_DEPTH;
            }
            b'}' | b']' => {
                self.open.pop();
            }
            b',' => self.key_next = true,
            b':' => self.key_next = false,
            _ => {}
        }
        true
    }

    /// Whether a value here is one that the parser reads: at the top, or of a resource.
    fn looked_at(&self) -> bool {
        match self.open.as_slice() {
            [] | [b'{', b'['] | [b'{', b'[', _] => true,
            // However it is written: what is escaped may be any of them.
            [_] => self.key.contains(&b'\\') || LOOKED_AT.contains(&self.key.as_slice()),
            _ => false,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        match self.bounds.take(&out[..count]) {
            true => Ok(count),
            false => Err(ErrorKind::InvalidData.into()),
        }
    }
}
