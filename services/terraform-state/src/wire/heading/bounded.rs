//! A state's JSON on its way to the parser, without what the parser would have to hold in memory whole.
//!
//! Values that are passed over may be as long as they like; keys, values that are looked at, and nesting have bounds.

use std::io::{self, ErrorKind, Read};

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

impl<R> Bounded<R> {
    pub(super) fn new(inner: R) -> Self {
        Bounded {
            inner,
            open: Vec::new(),
            key_next: false,
            key: Vec::new(),
            text: None,
        }
    }

    /// Whether all is well with the next byte.
    fn takes(&mut self, byte: u8) -> bool {
        if let Some(text) = &mut self.text {
            if text.escaped {
                text.escaped = false;
            } else if byte == b'"' {
                self.text = None;
                return true;
            } else {
                text.escaped = byte == b'\\';
            }
            text.length += 1;
            if text.key && text.length <= MOST_KEPT_OF_A_KEY {
                self.key.push(byte);
            }
            return !text.bounded || text.length <= MOST_TEXT_BYTES;
        }
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
        match out[..count].iter().all(|byte| self.takes(*byte)) {
            true => Ok(count),
            false => Err(ErrorKind::InvalidData.into()),
        }
    }
}
