//! What a state's JSON says at its top, read without making a tree of all the rest.

mod bounded;

use std::{
    fmt,
    io::{BufReader, ErrorKind, Read},
};

use kit::{Error, Result, Violations};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use self::bounded::{Bounded, Bounds};
use crate::model::{
    kept,
    resource::{Index, Listed},
    version::Heading,
};

/// Reads a whole state.
///
/// Of OpenTofu's encryption only serial and lineage can be seen.
///
/// # Errors
/// INVALID_REQUEST where it is no state of version 4, and nothing of its content in the message.
pub(crate) fn read(state: impl Read) -> Result<(Heading, Index)> {
    let state = BufReader::with_capacity(64 << 10, Bounded::new(state));
    let top = serde_json::from_reader(state).map_err(|error| {
        if error.io_error_kind() == Some(ErrorKind::InvalidData) {
            return unbounded();
        }
        if error.is_io() {
            return Error::internal(error);
        }
        odd(&error)
    });
    told(top?)
}

/// As [`read`], of a state that is in memory, which takes a third of the time.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_whole(state: &[u8]) -> Result<(Heading, Index)> {
    if !Bounds::default().take(state) {
        return Err(unbounded());
    }
    told(serde_json::from_slice(state).map_err(|error| odd(&error))?)
}

fn unbounded() -> Error {
    Error::violation(
        "content",
        "is no Terraform state: a key or a text is too long, it lies too deep, or it is a list",
    )
}

fn odd(error: &serde_json::Error) -> Error {
    // What the parser expected may quote what it found.
    let (line, column) = (error.line(), error.column());
    Error::violation(
        "content",
        format!("is no Terraform state (line {line}, column {column})"),
    )
}

fn told(top: Top) -> Result<(Heading, Index)> {
    let mut violations = Violations::new();
    let opaque = top.encrypted_data.is_some();
    violations.check(
        opaque || top.version == Some(4),
        "content.version",
        "must be 4, the format of Terraform 0.12 and later",
    );
    let serial = top.serial.and_then(|serial| i64::try_from(serial).ok());
    violations.check(
        serial.is_some(),
        "content.serial",
        "must be a whole number from 0 to 2^63 - 1",
    );
    let lineage = top.lineage.unwrap_or_default();
    violations.length("content.lineage", &lineage, 0, 200);
    let serial = violations.finish(serial)?;
    let resources = top.resources.unwrap_or_default();
    let heading = Heading {
        serial,
        lineage,
        terraform_version: kept(&top.terraform_version.unwrap_or_default(), 64),
        resource_count: if opaque { -1 } else { resources.managed },
        blank: !opaque && !resources.any && !top.outputs.unwrap_or_default().0,
    };
    Ok((heading, if opaque { Index::default() } else { resources.index }))
}

#[derive(Deserialize)]
struct Top {
    version: Option<u64>,
    serial: Option<u64>,
    lineage: Option<String>,
    terraform_version: Option<String>,
    resources: Option<Resources>,
    outputs: Option<Outputs>,
    encrypted_data: Option<IgnoredAny>,
}

/// Whether there are resources, which, and how many managed instances.
#[derive(Default)]
struct Resources {
    any: bool,
    managed: i32,
    index: Index,
}

#[derive(Deserialize)]
struct Resource {
    module: Option<String>,
    mode: Option<String>,
    #[serde(rename = "type")]
    resource_type: Option<String>,
    name: Option<String>,
    provider: Option<String>,
    #[serde(default)]
    instances: Count,
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Resources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of resources")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Resources, A::Error> {
                let mut seen = Resources::default();
                while let Some(resource) = list.next_element::<Resource>()? {
                    seen.any = true;
                    let mode = resource.mode.unwrap_or_default();
                    if mode == "managed" {
                        seen.managed = seen.managed.saturating_add(resource.instances.0);
                    }
                    let listed = Listed {
                        resource_type: resource.resource_type.unwrap_or_default(),
                        provider: resource.provider.unwrap_or_default(),
                        module: resource.module.unwrap_or_default(),
                        instances: resource.instances.0,
                    };
                    seen.index.add(&mode, &resource.name.unwrap_or_default(), listed);
                }
                Ok(seen)
            }
        }
        deserializer.deserialize_seq(Seen)
    }
}

/// How many elements a list has; none where it is null.
#[derive(Default)]
struct Count(i32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counted;
        impl<'de> Visitor<'de> for Counted {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0_i32;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count = count.saturating_add(1);
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_any(Counted)
    }
}

/// Whether there are outputs.
#[derive(Default)]
struct Outputs(bool);

impl<'de> Deserialize<'de> for Outputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Outputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outputs by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outputs, A::Error> {
                let mut any = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(Outputs(any))
            }
        }
        deserializer.deserialize_map(Seen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Read in parts and as a whole, which is the same.
    fn read(state: &[u8]) -> Result<Heading> {
        let parts = super::read(state);
        assert_eq!(parts.as_ref().ok(), read_whole(state).as_ref().ok());
        parts.map(|(heading, _)| heading)
    }

    #[test]
    fn a_states_top_is_read_whatever_stands_below() {
        let instance = r#"{"attributes":{"n":123456789012345678901234567890,"n":1e400,"s":"\ud800"}}"#;
        let text = format!(
            r#"{{"version":4,"terraform_version":"1.11.4","serial":9223372036854775807,"lineage":"l",
            "outputs":{{}},"resources":[
            {{"mode":"managed","type":"a","instances":[{instance},{instance}]}},
            {{"mode":"data","type":"a","instances":[{{}}]}},{{"mode":"managed","instances":null}}],"check_results":null}}"#
        );
        let heading = read(text.as_bytes()).unwrap();
        assert_eq!(
            heading,
            Heading {
                serial: i64::MAX,
                lineage: "l".to_owned(),
                terraform_version: "1.11.4".to_owned(),
                resource_count: 2,
                blank: false,
            }
        );
        let text = r#"{"version":4,"serial":1,"lineage":"","resources":[],"outputs":{}}"#;
        assert!(read(text.as_bytes()).unwrap().blank);
        let text = r#"{"version":4,"serial":1,"lineage":"","resources":[],"outputs":{"a":null}}"#;
        assert!(!read(text.as_bytes()).unwrap().blank);
    }

    #[test]
    fn what_opentofu_encrypted_is_opaque_and_not_blank() {
        let text = r#"{"serial":7,"lineage":"l","meta":{"k":"v"},"encrypted_data":"AAAA","encryption_version":"v0"}"#;
        let heading = read(text.as_bytes()).unwrap();
        assert_eq!((heading.serial, heading.resource_count, heading.blank), (7, -1, false));
    }

    /// Whether a state is within its bounds, however it is cut: texts end and escapes begin anywhere.
    fn in_pieces(state: &str) -> bool {
        let within = [1, 2, 3, 7].map(|length| {
            let mut bounds = Bounds::default();
            state.as_bytes().chunks(length).all(|piece| bounds.take(piece))
        });
        assert_eq!(within, [within[0]; 4]);
        within[0]
    }

    #[test]
    fn what_the_parser_would_hold_whole_is_bounded_and_what_it_passes_over_is_not() {
        let (long, deep) = ("x\\\"".repeat(30_000), "[".repeat(1_000));
        let top = |rest: &str| format!(r#"{{"version":4,"serial":1,"lineage":"l",{rest}}}"#);
        for good in [
            top(&format!(
                r#""resources":[{{"mode":"managed","instances":[{{"a":"{long}"}}]}}]"#
            )),
            top(&format!(r#""outputs":{{"a":{{"value":"{long}"}},"b":"{long}"}}"#)),
            top(&format!(r#""meta":{{"a":"{long}"}},"encrypted_data":"{long}""#)),
            top(&format!(r#""check_results":[{}1{}]"#, "[".repeat(900), "]".repeat(900))),
        ] {
            assert_eq!(read(good.as_bytes()).unwrap().lineage, "l");
            assert!(in_pieces(&good));
        }
        for bad in [
            format!(r#"{{"version":4,"serial":1,"lineage":"{long}"}}"#),
            format!(r#"{{"version":4,"serial":1,"{long}":"l"}}"#),
            format!(r#""{long}""#),
            top(&format!(r#""terraform_version":"{long}""#)),
            top(&format!(r#""encrypted_dat\u0061":"{long}""#)),
            top(&format!(r#""encrypted_data":"","terraform_version":"{long}""#)),
            top(&format!(r#""resources":["{long}"]"#)),
            top(&format!(r#""resources":[["{long}"]]"#)),
            top(&format!(r#""resources":[{{"mode":"{long}"}}]"#)),
            top(&format!(r#""resources":[{{"instances":[{{}}],"mode":"{long}"}}]"#)),
            top(&format!(r#""outputs":{{"{long}":1}}"#)),
            top(&format!(r#""outputs":{{"a":{deep}"#)),
            r#"[4,1,"l","1.11.4",[],{},null]"#.to_owned(),
        ] {
            let error = read(bad.as_bytes()).unwrap_err();
            assert_eq!(error.reason_name(), "INVALID_REQUEST");
            assert!(!in_pieces(&bad));
            assert!(
                error.violations()[0].description.contains("too long"),
                "{:.80}: {error:?}",
                bad
            );
        }
    }

    #[test]
    fn what_is_no_state_is_refused_without_a_word_of_it() {
        for text in [
            "",
            "null",
            "{}",
            "[]",
            "secret",
            r#""secret""#,
            r#"{"version":4}"#,
            r#"{"version":5,"serial":1,"lineage":"l"}"#,
            r#"{"version":4,"serial":-1,"lineage":"l"}"#,
            r#"{"version":4,"serial":9223372036854775808,"lineage":"l"}"#,
            r#"{"version":4,"serial":1,"serial":2,"lineage":"l"}"#,
            r#"{"version":4,"serial":"secret","lineage":"l"}"#,
            r#"{"version":4,"serial":1,"lineage":"l"} secret"#,
            r#"{"version":4,"serial":1,"lineage":"l","resources":{"secret":1}}"#,
            r#"{"version":4,"serial":1,"lineage":"l","resources":["#,
            "{\"version\":4,\"serial\":1,\"lineage\":\"\\u0000\"}",
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert_eq!(error.reason_name(), "INVALID_REQUEST", "{text}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
