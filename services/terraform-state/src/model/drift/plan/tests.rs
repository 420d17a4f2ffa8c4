//! Plans, whole and broken.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::model::StateId;
use kit::{crypto::KeyRing, ids::OrgId};
use serde_json::json;

const REFRESH_ONLY: &str = include_str!("../../../../tests/plans/refresh_only.json");
const NORMAL: &str = include_str!("../../../../tests/plans/normal.json");
const REPLACE: &str = include_str!("../../../../tests/plans/replace.json");

/// A plan with this drift.
fn plan(drift: Value) -> Value {
    json!({
        "format_version": "1.2", "planned_values": {"root_module": {}}, "configuration": {},
        "resource_drift": drift, "errored": false, "complete": true, "applyable": true,
    })
}

fn entry(address: &str, actions: Value, before: Value, after: Value) -> Value {
    json!({
        "address": address, "mode": "managed", "type": "fake_server", "name": "web", "provider_name": "p",
        "change": {
            "actions": actions, "before": before, "after": after, "after_unknown": {},
            "before_sensitive": {}, "after_sensitive": {},
        },
    })
}

fn printer() -> Printer {
    Printer {
        ring: KeyRing::ephemeral(),
        org: OrgId::new(),
        state: StateId::new(),
    }
}

fn read(plan: &[u8]) -> Result<Drift, Unreadable> {
    super::read(plan, &printer())
}

fn read_value(plan: &Value) -> Result<Drift, String> {
    read(plan.to_string().as_bytes()).map_err(String::from)
}

/// `address path: before -> after` of each finding.
fn told(drift: &Drift) -> Vec<String> {
    let text = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
    drift
        .findings
        .iter()
        .map(|finding| {
            let Finding { path, values, .. } = finding;
            let address = finding.address.as_str();
            match (finding.kind, values) {
                (DriftKind::Deleted, _) => format!("{address} is gone"),
                (DriftKind::Changed, None) => format!("{address} {path}: masked"),
                (DriftKind::Changed, Some(Values { before, after })) => {
                    format!("{address} {path}: {} -> {}", text(before), text(after))
                }
            }
        })
        .collect()
}

#[test]
fn a_refresh_only_plan_tells_what_drifted_and_no_secret() {
    let drift = read(REFRESH_ONLY.as_bytes()).unwrap();
    assert_eq!(
        told(&drift),
        [
            "fake_server.gone is gone",
            "fake_server.web password: masked",
            "fake_server.web size: 2 -> 8",
            "fake_server.web tags[\"env\"]: \"dev\" -> \"prod\"",
            "fake_server.web tags[\"owner\"]: - -> \"mallory\"",
        ]
    );
    let all = format!("{:?} {:?}", drift.findings, drift.view);
    for secret in ["hunter2", "changed-outside", "modpw", "nested-secret"] {
        assert!(REFRESH_ONLY.contains(secret) && !all.contains(secret), "{secret}");
    }
}

#[test]
fn what_the_configuration_would_do_next_is_no_drift() {
    let drift = read(NORMAL.as_bytes()).unwrap();
    assert_eq!(told(&drift), told(&read(REFRESH_ONLY.as_bytes()).unwrap()));
    assert_eq!(drift.tally, Tally::default());
    let causes: Vec<_> = drift
        .view
        .rows
        .iter()
        .map(|row| format!("{} {} {}", row.address.as_str(), row.path, row.cause.as_str()))
        .collect();
    assert_eq!(
        causes,
        [
            "fake_server.gone  missing",
            "fake_server.n[0]  in_sync",
            "fake_server.n[1]  in_sync",
            "fake_server.web password drifted",
            "fake_server.web size drifted",
            "fake_server.web tags[\"env\"] drifted",
            "fake_server.web tags[\"owner\"] drifted",
            "module.db[\"a\"].fake_server.db  in_sync",
            "module.db[\"a\"].terraform_data.dep  in_sync",
            "module.db[\"b\"].fake_server.db  in_sync",
            "module.db[\"b\"].terraform_data.dep  in_sync",
        ]
    );
    // The plan would replace a server; what drifted is its name.
    assert!(REPLACE.contains("replace_because_cannot_update"));
    let drift = read(REPLACE.as_bytes()).unwrap();
    assert_eq!(
        told(&drift),
        ["fake_server.n[1] name: \"n1\" -> \"n1-renamed-in-console\""]
    );
}

#[test]
fn moved_resources_data_sources_and_replaced_objects_are_no_drift() {
    let mut moved = entry("fake_server.new", json!(["no-op"]), json!({"a": 1}), json!({"a": 1}));
    moved["previous_address"] = json!("fake_server.old");
    let mut data = entry(
        "data.fake_image.img",
        json!(["update"]),
        json!({"a": 1}),
        json!({"a": 2}),
    );
    data["mode"] = json!("data");
    let mut deposed = entry("fake_server.web", json!(["delete"]), json!({"a": 1}), Value::Null);
    deposed["deposed"] = json!("0a1b2c3d");
    let noise = entry(
        "fake_server.noise",
        json!(["update"]),
        json!({"a": null, "b": 1}),
        json!({"a": "", "b": 1.0}),
    );
    let drift = read_value(&plan(json!([moved, data, deposed, noise]))).unwrap();
    assert!(drift.findings.is_empty());
    let tally = Tally {
        normalised: 1,
        moved: 1,
        ..Tally::default()
    };
    assert_eq!(drift.tally, tally);
    // Moved and changed is changed.
    let mut both = entry("fake_server.new", json!(["update"]), json!({"a": 1}), json!({"a": 2}));
    both["previous_address"] = json!("fake_server.old");
    assert_eq!(
        told(&read_value(&plan(json!([both]))).unwrap()),
        ["fake_server.new a: 1 -> 2"]
    );
}

#[test]
fn a_plan_without_drift_has_none() {
    for none in [json!([]), Value::Null] {
        assert_eq!(read_value(&plan(none)).unwrap(), Drift::default());
    }
    let mut older = plan(Value::Null);
    for key in ["resource_drift", "complete", "errored", "applyable"] {
        older.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(read_value(&older).unwrap(), Drift::default());
}

#[test]
fn failed_checks_are_counted_and_a_failed_plan_is_not_looked_at() {
    let mut checked = plan(json!([]));
    checked["checks"] = json!([
        {"address": {}, "status": "fail", "instances": [{"status": "fail"}, {"status": "pass"}, {"status": "error"}]},
        {"address": {}, "status": "fail", "instances": null},
        {"address": {}, "status": "unknown"},
        {"address": {}, "status": "pass", "instances": [{"status": "pass"}]},
    ]);
    assert_eq!(read_value(&checked).unwrap().tally.failed_checks, 3);
    let mut failed: Value = serde_json::from_str(REFRESH_ONLY).unwrap();
    failed["errored"] = json!(true);
    let expected = Drift {
        errored: true,
        ..Drift::default()
    };
    assert_eq!(read_value(&failed).unwrap(), expected);
}

#[test]
fn of_a_tag_that_is_told_twice_one_is_found() {
    let tags = |value: &str| json!({"tags": {"a": value}, "tags_all": {"a": value, "default": "x"}});
    let drift = read_value(&plan(json!([entry("a.b", json!(["update"]), tags("1"), tags("2"))]))).unwrap();
    assert_eq!(told(&drift), ["a.b tags[\"a\"]: \"1\" -> \"2\""]);
}

#[test]
fn the_same_value_at_the_same_place_has_the_same_fingerprint_under_every_key() {
    let keys = ["11".repeat(32), "22".repeat(32)];
    let printer = |current: usize, retired: &str| Printer {
        ring: KeyRing::parse(&keys[current], retired).unwrap(),
        org: OrgId(uuid::Uuid::nil()),
        state: StateId(uuid::Uuid::nil()),
    };
    let prints = |printer: &Printer| -> Vec<Prints> {
        let drift = super::read(REFRESH_ONLY.as_bytes(), printer).unwrap();
        drift.findings.into_iter().map(|finding| finding.prints).collect()
    };
    let (before, after) = (prints(&printer(0, "")), prints(&printer(1, &keys[0])));
    let all: std::collections::HashSet<_> = before.iter().flatten().collect();
    assert_eq!(all.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert!(after.len() == 2 && after.contains(&before[0]) && after[0] != before[0]);
    }
}

#[test]
fn addresses_of_every_language_and_shape_are_kept() {
    let address = "module.größe[\"ä \\\"x\\\"\"].fake_server.服务器[\"🦀\"]";
    let drift = read_value(&plan(json!([entry(
        address,
        json!(["update"]),
        json!({"名": "旧"}),
        json!({"名": "新"})
    )])));
    assert_eq!(told(&drift.unwrap()), [format!("{address} 名: \"旧\" -> \"新\"")]);
}

#[test]
fn what_is_no_whole_plan_is_refused_without_a_word_of_it() {
    let secret = "hunter2";
    let with = |key: &str, value: Value| {
        let mut plan = plan(json!([]));
        plan[key] = value;
        plan.to_string()
    };
    let of = |entries: Value| plan(entries).to_string();
    let update = |address: &str| entry(address, json!(["update"]), json!({"a": secret}), json!({"a": 2}));
    let changed = |pointer: &str, value: Value| {
        let mut entry = update("fake_server.web");
        *entry.pointer_mut(pointer).unwrap() = value;
        of(json!([entry]))
    };
    let whole = "must be a whole plan as `terraform show -json PLAN` writes it, not a state or a part";
    let plan_text = "must be a plan as `terraform show -json` writes it";
    let cases = [
        (
            String::new(),
            "must be JSON, nested at most 128 deep; it is not at line 1, column 0",
        ),
        (
            secret.to_owned(),
            "must be JSON, nested at most 128 deep; it is not at line 1, column 1",
        ),
        (
            of(Value::Null).replace(
                "null",
                &format!("[{{\"change\":{{\"before\":{}{secret}", "[".repeat(100_000)),
            ),
            "",
        ),
        (NORMAL[..NORMAL.len() / 2].to_owned(), ""),
        (format!("{NORMAL} {secret}"), ""),
        ("{}".to_owned(), plan_text),
        ("[]".to_owned(), plan_text),
        (format!("\"{secret}\""), plan_text),
        (with("format_version", json!(1)), plan_text),
        (with("format_version", json!("2.0")), "must have format_version 1.x"),
        (with("format_version", json!("10.0")), "must have format_version 1.x"),
        (with("planned_values", Value::Null), whole),
        (with("configuration", Value::Null), whole),
        // A state, as `terraform show -json` writes it without a plan.
        (
            json!({"format_version": "1.0", "values": {"x": secret}}).to_string(),
            whole,
        ),
        (
            with("complete", json!(false)),
            "must be of a complete plan, without -target and deferred changes",
        ),
        (with("resource_drift", json!({"a": secret})), plan_text),
        (with("resource_drift", json!([secret])), plan_text),
        (changed("/change", json!(secret)), plan_text),
        (
            changed("/change/actions", json!(["delete", "create"])),
            "resource_drift[0].change.actions must be [\"no-op\"], [\"update\"] or [\"delete\"]",
        ),
        (
            changed("/change/actions", json!([secret])),
            "resource_drift[0].change.actions must be [\"no-op\"], [\"update\"] or [\"delete\"]",
        ),
        (
            changed("/change/actions", json!(["delete"])),
            "resource_drift[0].change must have attributes before and none after",
        ),
        (
            changed("/change/before", json!(secret)),
            "resource_drift[0].change must have attributes before and after",
        ),
        (
            changed("/change/after", Value::Null),
            "resource_drift[0].change must have attributes before and after",
        ),
        (
            changed("/address", json!("")),
            "resource_drift[0].address must have 1 to 512 characters and no control characters",
        ),
        (
            changed("/address", json!(secret.repeat(100))),
            "resource_drift[0].address must have 1 to 512 characters and no control characters",
        ),
        (
            changed("/address", json!("a\u{0}b")),
            "resource_drift[0].address must have 1 to 512 characters and no control characters",
        ),
        (
            changed("/type", json!("")),
            "resource_drift[0].type must have 1 to 200 characters and no control characters",
        ),
        (
            of(json!([update("a.b"), update("a.c"), update("a.b"), secret])),
            "resource_drift[2].address must be unique",
        ),
        (
            changed("/change/after_sensitive", json!(vec![0; 100_000])),
            "resource_drift[0].change must hold at most 100,000 values",
        ),
        (
            of(json!([entry(
                "a.b",
                json!(["update"]),
                json!({}),
                (0..10_001).map(|n| (format!("a{n}"), json!(n))).collect()
            )])),
            "has more than 10,000 attributes and resources that have drifted",
        ),
    ];
    for (text, problem) in cases {
        let told = String::from(read(text.as_bytes()).unwrap_err());
        let start = &text.chars().take(200).collect::<String>();
        assert!(
            told == problem || (problem.is_empty() && told.starts_with("must be JSON")),
            "{told}: {start}"
        );
        assert!(!told.contains(secret), "{told}");
    }
    let utf16: Vec<u8> = NORMAL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin = [b"{\"format_version\": \"".as_slice(), &[0xe9], b"\"}"].concat();
    for bytes in [[&[0xff, 0xfe], utf16.as_slice()].concat(), latin] {
        assert_eq!(String::from(read(&bytes).unwrap_err()), "must be UTF-8");
    }
}

#[test]
fn as_many_findings_as_may_be_are_read() {
    let gone = |n: usize| {
        entry(
            &format!("fake_server.n[{n}]"),
            json!(["delete"]),
            json!({"a": 1}),
            Value::Null,
        )
    };
    let drift = read_value(&plan((0..MOST_FINDINGS).map(gone).collect())).unwrap();
    assert_eq!(drift.findings.len(), MOST_FINDINGS);
    assert!(read_value(&plan((0..=MOST_FINDINGS).map(gone).collect())).is_err());
}

#[test]
fn a_plan_may_begin_with_a_byte_order_mark() {
    let marked = format!("\u{feff}{REPLACE}");
    assert_eq!(read(marked.as_bytes()).unwrap().findings.len(), 1);
}
