//! One field at the top of a JSON object, found byte by byte as it passes: contents are never in memory whole.
//!
//! What passes is JSON that was parsed before it was kept; of other texts nothing is promised but that nothing panics.

/// The longest key that is looked at, as it is written.
const MOST_KEY_BYTES: usize = 64;

/// Knows of each byte whether it belongs to the value of the field.
pub(crate) struct Field {
    name: &'static str,
    depth: usize,
    /// Whether a value of the top has begun.
    in_value: bool,
    /// Whether it is the field's.
    found: bool,
    key: Vec<u8>,
    text: bool,
    escaped: bool,
}

impl Field {
    /// The field of this name.
    pub(crate) fn new(name: &'static str) -> Self {
        Field {
            name,
            depth: 0,
            in_value: false,
            found: false,
            key: Vec::new(),
            text: false,
            escaped: false,
        }
    }

    /// Whether the next byte is part of the field's value.
    pub(crate) fn takes(&mut self, byte: u8) -> bool {
        let at_top = self.depth == 1;
        let within = self.in_value && self.found;
        if self.text {
            if self.escaped {
                self.escaped = false;
            } else if byte == b'"' {
                self.text = false;
                if at_top && !self.in_value {
                    self.found = self.is_named();
                }
                return within;
            } else {
                self.escaped = byte == b'\\';
            }
            if at_top && !self.in_value && self.key.len() <= MOST_KEY_BYTES {
                self.key.push(byte);
            }
            return within;
        }
        match byte {
            b'"' => {
                self.text = true;
                self.key.clear();
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.in_value = false;
                    return false;
                }
            }
            b':' if at_top && !self.in_value => {
                self.in_value = true;
                return false;
            }
            b',' if at_top => {
                self.in_value = false;
                return false;
            }
            b' ' | b'\t' | b'\r' | b'\n' if at_top => return false,
            _ => {}
        }
        within
    }

    fn is_named(&self) -> bool {
        if !self.key.contains(&b'\\') {
            return self.key == self.name.as_bytes();
        }
        let quoted = [b"\"", self.key.as_slice(), b"\""].concat();
        serde_json::from_slice::<String>(&quoted).is_ok_and(|key| key == self.name)
    }
}

/// Gives a state another serial, and changes nothing else of it.
pub(crate) struct NewSerial {
    field: Field,
    digits: String,
    written: bool,
}

impl NewSerial {
    pub(crate) fn new(serial: i64) -> Self {
        NewSerial {
            field: Field::new("serial"),
            digits: serial.to_string(),
            written: false,
        }
    }

    /// The next part, with the new serial where the old one stands.
    pub(crate) fn edit(&mut self, part: &[u8]) -> Vec<u8> {
        let mut edited = Vec::with_capacity(part.len() + self.digits.len());
        for &byte in part {
            if !self.field.takes(byte) {
                edited.push(byte);
            } else if !self.written {
                self.written = true;
                edited.extend_from_slice(self.digits.as_bytes());
            }
        }
        edited
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field(name: &'static str, text: &str) -> String {
        let mut field = Field::new(name);
        let taken = text.bytes().filter(|byte| field.takes(*byte)).collect();
        String::from_utf8(taken).unwrap()
    }

    #[test]
    fn a_field_of_the_top_is_told_from_its_likes_below_and_in_texts() {
        let text = r#"{ "a": {"serial": 1, "b": [1, "\"serial\": 2"]}, "x": "serial", "serial" : 3 , "outputs": {"a": [1, {"b": "}"}]} }"#;
        assert_eq!(field("serial", text), "3");
        assert_eq!(field("outputs", text), r#"{"a": [1, {"b": "}"}]}"#);
        assert_eq!(field("x", text), "\"serial\"");
        assert_eq!(field("b", text), "");
        assert_eq!(field("serial", r#"{"\u0073erial":4}"#), "4");
        for broken in ["", "]]}}", "{\"serial\"", "\"serial\":1", "[\"serial\",1]"] {
            assert_eq!(field("serial", broken), "", "{broken}");
        }
    }

    #[test]
    fn a_new_serial_changes_nothing_else_wherever_the_parts_end() {
        let text = "{\n  \"version\": 4,\n  \"serial\": 17,\n  \"n\": 1.00e2, \"n\": 123456789012345678901234567890, \
                    \"ü\": {\"serial\": 17}\n}\n";
        let expected = text.replacen("17", "9007199254740993", 1);
        for size in 1..text.len() {
            let mut serial = NewSerial::new(9_007_199_254_740_993);
            let edited: Vec<u8> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|part| serial.edit(part))
                .collect();
            assert_eq!(String::from_utf8(edited).unwrap(), expected);
        }
    }
}
