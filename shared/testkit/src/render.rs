//! Answers as text, for snapshots: a reply without its defaults, or a status with everything that it carries.
//!
//! Ids and times read as `<id 1>` and `<time>`, so the text of one behaviour is the same in every run.

use std::fmt::{Debug, Write};

use expect_test::Expect;
use tonic::{Response, Status};
use tonic_types::StatusExt;

const PLATFORM: &str = "00000000-0000-7000-8000-000000000000";

/// Compares the text of an answer with a snapshot; `UPDATE_EXPECT=1` writes it.
#[track_caller]
pub fn check<T: Debug>(answer: &Result<Response<T>, Status>, expected: Expect) {
    expected.assert_eq(&self::answer(answer));
}

/// The text of what a call was answered.
pub fn answer<T: Debug>(answer: &Result<Response<T>, Status>) -> String {
    match answer {
        Ok(response) => reply(response.get_ref()),
        Err(status) => self::status(status),
    }
}

/// A reply, one field a line. Fields with their default value are left out, as on the wire.
pub fn reply(reply: &impl Debug) -> String {
    let text = format!("{reply:#?}");
    let mut lines = text.lines().peekable();
    let mut out = String::new();
    while let Some(node) = Node::read(&mut lines) {
        node.write(&mut out, 0);
    }
    mask(&out)
}

/// A status: `<code> <reason>: <message>`, then metadata, violations and the time to wait, one a line.
pub fn status(status: &Status) -> String {
    let details = status.get_error_details();
    let mut out = format!("{:?}", status.code());
    if let Some(info) = details.error_info() {
        let _ = write!(out, " {}", info.reason);
        if info.domain != "board3" {
            let _ = write!(out, " of {:?}", info.domain);
        }
    }
    let _ = writeln!(out, ": {}", status.message());
    if let Some(info) = details.error_info() {
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        for (key, value) in metadata {
            let _ = writeln!(out, "  {key}: {value}");
        }
    }
    for violation in details
        .bad_request()
        .into_iter()
        .flat_map(|request| &request.field_violations)
    {
        let _ = writeln!(out, "  violation of {}: {}", violation.field, violation.description);
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        let _ = writeln!(out, "  retry after {delay:?}");
    }
    mask(&out)
}

/// Replaces every id by `<id N>`, numbered as they first appear, and every RFC 3339 time by `<time>`.
pub fn mask(text: &str) -> String {
    let mut ids: Vec<&str> = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut inside_word = false;
    while let Some(first) = rest.chars().next() {
        if !inside_word && fits(rest, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") {
            let (id, after) = rest.split_at(36);
            if id == PLATFORM {
                out.push_str("<platform>");
            } else {
                let number = ids.iter().position(|known| *known == id).unwrap_or_else(|| {
                    ids.push(id);
                    ids.len() - 1
                });
                let _ = write!(out, "<id {}>", number + 1);
            }
            rest = after;
            continue;
        }
        if !inside_word && fits(rest, "dddd-dd-ddTdd:dd:dd") {
            let after = rest[19..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            let zoned = fits(after, "+dd:dd") || fits(after, "-dd:dd");
            rest = after
                .strip_prefix('Z')
                .unwrap_or(if zoned { &after[6..] } else { after });
            out.push_str("<time>");
            continue;
        }
        inside_word = first.is_ascii_alphanumeric();
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// Whether a text begins with a pattern: `x` is a hex digit, `d` a digit, all else itself.
fn fits(text: &str, pattern: &str) -> bool {
    text.len() >= pattern.len()
        && text
            .bytes()
            .zip(pattern.bytes())
            .all(|(byte, expected)| match expected {
                b'x' => byte.is_ascii_hexdigit(),
                b'd' => byte.is_ascii_digit(),
                _ => byte == expected,
            })
}

/// A value as `{:#?}` prints it: one line, or a line that opens, its children, and a line that closes.
struct Node<'a> {
    /// `name: ` of a field, or nothing.
    name: &'a str,
    value: &'a str,
    children: Option<(Vec<Node<'a>>, &'a str)>,
}

impl<'a> Node<'a> {
    fn read(lines: &mut std::iter::Peekable<std::str::Lines<'a>>) -> Option<Node<'a>> {
        let line = lines.next()?.trim();
        let (name, value) = split(line);
        let children = line.ends_with(['{', '(', '[']).then(|| {
            let mut children = Vec::new();
            while lines
                .peek()
                .is_some_and(|next| !next.trim().starts_with(['}', ')', ']']))
            {
                children.extend(Node::read(lines));
            }
            (
                children,
                lines.next().map_or("", |close| close.trim().trim_end_matches(',')),
            )
        });
        Some(Node {
            name,
            value: value.strip_suffix(',').unwrap_or(value),
            children,
        })
    }

    fn write(&self, out: &mut String, depth: usize) {
        let Node { name, value, children } = self;
        let indent = "  ".repeat(depth);
        match children {
            None if !name.is_empty() && matches!(*value, "None" | "0" | "0.0" | "\"\"" | "[]" | "{}" | "false") => {}
            None => {
                let _ = writeln!(out, "{indent}{name}{value}");
            }
            Some(_) if *value == "Timestamp {" => {
                let _ = writeln!(out, "{indent}{name}<time>");
            }
            Some((only, _)) if *value == "Some(" && only.len() == 1 => {
                // A value that is there counts, even where it is the default.
                let Node {
                    value, ref children, ..
                } = only[0];
                match children {
                    None => {
                        let _ = writeln!(out, "{indent}{name}{value}");
                    }
                    Some((grandchildren, close)) => Node::block(out, &indent, name, value, grandchildren, close, depth),
                }
            }
            Some((children, close)) => Node::block(out, &indent, name, value, children, close, depth),
        }
    }

    fn block(out: &mut String, indent: &str, name: &str, open: &str, children: &[Node<'_>], close: &str, depth: usize) {
        if open == "Timestamp {" {
            let _ = writeln!(out, "{indent}{name}<time>");
            return;
        }
        let mut inner = String::new();
        for child in children {
            child.write(&mut inner, depth + 1);
        }
        if inner.is_empty() {
            let _ = writeln!(out, "{indent}{name}{open}{close}");
        } else {
            let _ = write!(out, "{indent}{name}{open}\n{inner}{indent}{close}\n");
        }
    }
}

/// The name and the value of a line.
fn split(line: &str) -> (&str, &str) {
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '#')))
        .unwrap_or(0);
    if end == 0 || !line[end..].starts_with(": ") {
        return ("", line);
    }
    let (name, value) = line.split_at(end + 2);
    (name.strip_prefix("r#").unwrap_or(name), value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use api::audit::v1::{AuditLog, GetAuditLogResponse, ListAuditLogsResponse};
    use api::events::v1::{Actor, ActorKind, Outcome, Resource};
    use expect_test::expect;
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    const ONE: &str = "0190b5a2-77aa-7bbb-8ccc-0123456789ab";
    const TWO: &str = "0190b5a2-77aa-7bbb-8ccc-0123456789ac";

    fn log() -> AuditLog {
        AuditLog {
            id: ONE.to_owned(),
            occurred_at: Some(std::time::SystemTime::now().into()),
            actor: Some(Actor {
                kind: ActorKind::User.into(),
                id: TWO.to_owned(),
            }),
            action: "designs.CreateDesign".to_owned(),
            resource: Some(Resource {
                r#type: "design".to_owned(),
                id: ONE.to_owned(),
            }),
            outcome: Outcome::Success.into(),
            reason: "odd: {\n".to_owned(),
            ..AuditLog::default()
        }
    }

    #[test]
    fn a_reply_is_told_without_defaults_ids_and_times() {
        let answer = Ok(Response::new(ListAuditLogsResponse {
            audit_logs: vec![log(), log()],
            next_page_token: String::new(),
        }));
        check(
            &answer,
            expect![[r#"
                ListAuditLogsResponse {
                  audit_logs: [
                    AuditLog {
                      id: "<id 1>"
                      occurred_at: <time>
                      actor: Actor {
                        kind: User
                        id: "<id 2>"
                      }
                      action: "designs.CreateDesign"
                      resource: Resource {
                        type: "design"
                        id: "<id 1>"
                      }
                      outcome: Success
                      reason: "odd: {\n"
                    }
                    AuditLog {
                      id: "<id 1>"
                      occurred_at: <time>
                      actor: Actor {
                        kind: User
                        id: "<id 2>"
                      }
                      action: "designs.CreateDesign"
                      resource: Resource {
                        type: "design"
                        id: "<id 1>"
                      }
                      outcome: Success
                      reason: "odd: {\n"
                    }
                  ]
                }
            "#]],
        );
    }

    #[test]
    fn an_empty_reply_is_a_line() {
        check(
            &Ok(Response::new(GetAuditLogResponse::default())),
            expect![[r#"
            GetAuditLogResponse {}
        "#]],
        );
        expect![[r#"
            (
              0
              []
            )
        "#]]
        .assert_eq(&reply(&(Some(0), [(); 0])));
    }

    #[test]
    fn a_status_is_told_with_all_that_it_carries() {
        let metadata = HashMap::from([
            ("id".to_owned(), ONE.to_owned()),
            ("request_id".to_owned(), TWO.to_owned()),
        ]);
        let mut details = ErrorDetails::new();
        details.set_error_info("INVALID_REQUEST", "board3", metadata);
        details.add_bad_request_violation("page_size", "must not be negative");
        details.add_bad_request_violation("name", "is required");
        details.set_retry_info(Some(Duration::from_millis(50)));
        let message = format!("there is no design {ONE} since 2026-01-01T10:00:00.123Z");
        let failed: Result<Response<()>, _> = Err(Status::with_error_details(Code::InvalidArgument, message, details));
        check(
            &failed,
            expect![[r#"
                InvalidArgument INVALID_REQUEST: there is no design <id 1> since <time>
                  id: <id 1>
                  request_id: <id 2>
                  violation of page_size: must not be negative
                  violation of name: is required
                  retry after 50ms
            "#]],
        );
        expect![[r#"
            NotFound: gone
        "#]]
        .assert_eq(&status(&Status::not_found("gone")));
    }

    #[test]
    fn masks_stop_where_an_id_stops() {
        let text = format!(
            "ü{ONE}, a{ONE} {PLATFORM} {} 2026-01-01T10:00:00+02:00 2026-01-01",
            &ONE[..35]
        );
        expect!["ü<id 1>, a0190b5a2-77aa-7bbb-8ccc-0123456789ab <platform> 0190b5a2-77aa-7bbb-8ccc-0123456789a <time> 2026-01-01"]
            .assert_eq(&mask(&text));
    }
}
