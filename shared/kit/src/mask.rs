//! Update masks (AIP-134): the set of fields that a call writes.
//!
//! A mask names known fields and at least one of them; there is no "all fields".

use std::collections::BTreeSet;

use prost_types::FieldMask;

use crate::error::Violations;

/// The fields to write, all of them known to the RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(BTreeSet<&'static str>);

impl Mask {
    /// Reads `update_mask` against the fields that the RPC can write; an absent or empty mask is a
    /// violation, and so is each path that is not known.
    pub fn parse(asked: Option<&FieldMask>, known: &[&'static str], violations: &mut Violations) -> Option<Mask> {
        let paths = asked.map_or(&[][..], |mask| &mask.paths);
        if paths.is_empty() {
            let known = known.join(", ");
            violations.add("update_mask", format!("must name at least one of {known}"));
            return None;
        }
        let mut fields = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for path in paths {
            match known.iter().find(|field| *field == path) {
                Some(field) => fields.insert(*field),
                None => unknown.insert(shortened(path)),
            };
        }
        for path in &unknown {
            let known = known.join(", ");
            violations.add("update_mask", format!("knows no `{path}`, only {known}"));
        }
        unknown.is_empty().then_some(Mask(fields))
    }

    /// Whether this field is to be written.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.0.contains(field)
    }

    /// The fields to be written, in alphabetical order.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().copied()
    }
}

/// What an answer repeats of a path: 64 characters, none of them a control character.
fn shortened(path: &str) -> String {
    let shown = path.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut text: String = shown.take(64).collect();
    if path.chars().nth(64).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KNOWN: [&str; 3] = ["name", "description", "canvas"];

    fn parse(paths: &[&str]) -> Result<Mask, Vec<String>> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut violations = Violations::new();
        let mask = Mask::parse(Some(&FieldMask { paths }), &KNOWN, &mut violations);
        violations.finish(mask).map_err(|error| {
            let descriptions = error.violations().iter().map(|it| it.description.clone());
            descriptions.collect()
        })
    }

    #[test]
    fn known_fields_make_a_mask() {
        let mask = parse(&["name", "canvas", "name"]).unwrap();
        assert!(mask.has("name") && mask.has("canvas") && !mask.has("description"));
        assert_eq!(mask.fields().collect::<Vec<_>>(), ["canvas", "name"]);
    }

    #[test]
    fn every_unknown_path_is_named() {
        let long = "x".repeat(100);
        let described = parse(&["name", "nam", "*", "Name", "canvas.nodes", "", &long]).unwrap_err();
        assert_eq!(described.len(), 6);
        assert!(described.contains(&"knows no `canvas.nodes`, only name, description, canvas".to_owned()));
        assert!(described.iter().all(|text| text.chars().count() < 120));
    }

    #[test]
    fn an_absent_or_empty_mask_is_refused() {
        assert_eq!(
            parse(&[]).unwrap_err(),
            ["must name at least one of name, description, canvas"]
        );
        assert_eq!(Mask::parse(None, &KNOWN, &mut Violations::new()), None);
    }
}
