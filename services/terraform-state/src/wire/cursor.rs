//! Walks through JSON without making anything of it: values are slices of the text.
//!
//! What it walks through was parsed before it was kept; of other texts it makes `None`, or nonsense, and never a panic.

/// Where a walk stands.
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of a text.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Cursor { text, at: 0 }
    }

    /// Goes into an object: each field's key as it is written, without its quotes, and the walk before its value, over
    /// which `each` goes.
    pub(crate) fn object(&mut self, mut each: impl FnMut(&'a [u8], &mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            return self.expect(b'}');
        }
        loop {
            self.peek()?;
            let key = self.string()?;
            self.expect(b':')?;
            each(&key[1..key.len() - 1], self)?;
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.expect(b'}'),
            }
        }
    }

    /// Goes into a list; before each element `each` goes over it. A `null` is an empty list.
    pub(crate) fn list(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.peek()? == b'n' {
            return self.value().map(|_| ());
        }
        self.expect(b'[')?;
        if self.peek()? == b']' {
            return self.expect(b']');
        }
        loop {
            each(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.expect(b']'),
            }
        }
    }

    /// Goes over a value, which is returned as it is written.
    pub(crate) fn value(&mut self) -> Option<&'a [u8]> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => return self.string(),
            b'{' | b'[' => {
                let mut depth = 0_usize;
                loop {
                    match self.text.get(self.at)? {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ => {
                let rest = &self.text[start..];
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        (self.at > start).then(|| &self.text[start..self.at])
    }

    /// A text with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        if self.text.get(start)? != &b'"' {
            return None;
        }
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(&self.text[start..self.at])
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        while let b' ' | b'\t' | b'\r' | b'\n' = self.text.get(self.at)? {
            self.at += 1;
        }
        Some(self.text[self.at])
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_slices_of_the_text() {
        let text = r#" { "a\"b" : [1, "x]\\", {"y": [ ]} ] ,"c":null,"d":-1.5e3 , "e":{} } "#;
        let mut fields = Vec::new();
        let walked = Cursor::new(text.as_bytes()).object(|key, at| {
            let value = at.value()?;
            fields.push(String::from_utf8([key, b"=", value].concat()).unwrap());
            Some(())
        });
        assert_eq!(walked, Some(()));
        assert_eq!(
            fields,
            ["a\\\"b=[1, \"x]\\\\\", {\"y\": [ ]} ]", "c=null", "d=-1.5e3", "e={}"]
        );
        let mut items = Vec::new();
        let walked = Cursor::new(b"[ 1 , [2,3],\"4\"]").list(|at| {
            items.push(at.value()?.to_vec());
            Some(())
        });
        assert_eq!((walked, items.concat()), (Some(()), b"1[2,3]\"4\"".to_vec()));
        assert_eq!(Cursor::new(b"null").list(|_| None), Some(()));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let text = br#"{"a":[1,"b\"",{"c":true}],"d":"e"}"#;
        for end in 0..text.len() {
            let mut cursor = Cursor::new(&text[..end]);
            assert_eq!(cursor.object(|_, at| at.value().map(|_| ())), None, "{end}");
        }
        for odd in [&b"]"[..], b"}", b"{]", b"{\"a\"}", b"\"\\"] {
            assert_eq!(Cursor::new(odd).object(|_, at| at.value().map(|_| ())), None);
        }
        assert_eq!(Cursor::new(b"]").value(), None);
    }
}
