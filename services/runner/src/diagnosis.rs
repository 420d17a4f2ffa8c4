//! What Terraform says went wrong, found in its output.

/// Most errors that are told.
const MOST: usize = 3;
/// Longer lines are cut.
const LINE: usize = 300;

/// Finds the lines that begin with `Error:` in a stream of masked output.
#[derive(Default)]
pub(crate) struct Diagnosis {
    line: Vec<u8>,
    errors: Vec<String>,
}

impl Diagnosis {
    /// Reads on.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < 4 * LINE {
                self.line.push(byte);
            }
        }
    }

    /// The first errors, one a line; none where Terraform told none.
    pub(crate) fn take(&mut self) -> Option<String> {
        self.end_line();
        let errors = std::mem::take(&mut self.errors);
        (!errors.is_empty()).then(|| errors.join("\n"))
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        // Terraform draws a bar beside its messages where it believes in colours.
        let text = line.trim_start_matches(['│', '╷', '╵', ' ', '\r']).trim_end();
        if text.starts_with("Error: ") && self.errors.len() < MOST {
            self.errors.push(plain(text, LINE));
        }
    }
}

/// A text without control characters besides line breaks, of at most this many characters.
pub(crate) fn plain(text: &str, most: usize) -> String {
    let mut plain: String = text
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .take(most)
        .collect();
    if text.chars().nth(most).is_some() {
        plain.pop();
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_are_found_however_the_output_is_cut() {
        let output = "Initializing…\n\nError: Unsupported argument\n\n  on main.tf.json line 5\n╷\n│ Error: second\n│ \nnot an Error: here\n\nError: third\nError: fourth\n";
        for piece in [1, 7, 1000] {
            let mut diagnosis = Diagnosis::default();
            output.as_bytes().chunks(piece).for_each(|piece| diagnosis.push(piece));
            assert_eq!(
                diagnosis.take().as_deref(),
                Some("Error: Unsupported argument\nError: second\nError: third")
            );
            assert_eq!(diagnosis.take(), None);
        }
    }

    #[test]
    fn a_last_line_needs_no_line_break_and_long_ones_are_cut() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.push(format!("Error: {}", "ä".repeat(5000)).as_bytes());
        let told = diagnosis.take().unwrap();
        assert!(told.ends_with('…') && told.chars().count() == LINE, "{told}");
    }

    #[test]
    fn control_characters_are_no_part_of_a_text() {
        assert_eq!(plain("a\u{1b}[31m\nb", 100), "a [31m\nb");
    }
}
