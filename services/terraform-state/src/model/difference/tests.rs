//! Pairs of states, and what is told of each.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

fn told(before: &str, after: &str, prefix: &str) -> (Vec<InstanceDifference>, usize) {
    let (before, after) = (
        Layout::read(before.as_bytes()).unwrap(),
        Layout::read(after.as_bytes()).unwrap(),
    );
    let (ring, org) = (KeyRing::ephemeral(), OrgId::new());
    let all: Vec<_> = before.instances(&after, prefix, &ring, org).collect();
    let same = all.iter().filter(|instance| instance.is_none()).count();
    (all.into_iter().flatten().collect(), same)
}

fn state(resources: &Value) -> String {
    json!({"version": 4, "serial": 1, "lineage": "l", "outputs": {}, "resources": resources}).to_string()
}

fn resource(name: &str, instances: &Value) -> Value {
    json!({"mode": "managed", "type": "fake_server", "name": name, "provider": "p", "instances": instances})
}

#[test]
fn instances_are_told_by_address_and_attributes_by_path() {
    let instance = |key: Value, size: u64, status: Option<&str>| {
        json!({"index_key": key, "status": status, "private": "cHJpdmF0ZQ==",
            "attributes": {"size": size, "tags": {"env": "dev"}, "password": format!("p{size}")}})
    };
    let before = state(&json!([
        resource("gone", &json!([{"attributes": {"a": 1}}])),
        {"module": "module.m[\"x\"]", "mode": "data", "type": "fake_image", "name": "base", "instances": [{"attributes": {"a": 1}}]},
        resource("web", &json!([instance(json!(0), 1, None), instance(json!("a\"b"), 2, None), instance(Value::Null, 3, None)])),
    ]));
    let after = state(&json!([
        resource("web", &json!([instance(json!(0), 8, Some("tainted")), instance(json!("a\"b"), 2, None),
            {"deposed": "abcd1234", "attributes": {"size": 1}}, instance(Value::Null, 3, None)])),
        {"module": "module.m[\"x\"]", "mode": "data", "type": "fake_image", "name": "base", "instances": [{"attributes": {"a": 1.0}}]},
    ]));
    let (different, same) = told(&before, &after, "");
    let lines: Vec<_> = different
        .iter()
        .map(|it| format!("{:?} {} {}", it.kind, it.address, it.deposed))
        .collect();
    assert_eq!(
        lines,
        [
            "Removed fake_server.gone ",
            "Added fake_server.web abcd1234",
            "Changed fake_server.web[0] ",
        ]
    );
    // Written in another way, the number is the same; so are the two other instances.
    assert_eq!(same, 3);
    let changed = &different[2];
    assert_eq!((changed.tainted, changed.private_changed), ([false, true], false));
    let [password, size] = changed.attributes.as_slice() else {
        panic!("two attributes are different")
    };
    assert_eq!((password.path.as_str(), &password.values), ("password", &None));
    assert!(password.hashes[0].is_some() && password.hashes[0] != password.hashes[1]);
    assert_eq!(size.hashes, [None, None]);
    let values = size.values.clone().unwrap();
    assert_eq!((values.before, values.after), (Some(json!(1)), Some(json!(8))));
    assert_eq!(told(&before, &after, "fake_server.web[").0.len(), 1);
}

#[test]
fn what_terraform_marks_and_what_a_provider_keeps_is_not_shown() {
    let with = |value: &str, private: &str| {
        state(&json!([resource(
            "a",
            &json!([{"attributes": {"motto": value}, "private": private,
                "sensitive_attributes": [[{"type": "get_attr", "value": "motto"}]]}])
        )]))
    };
    let (different, _) = told(&with("one", "AAAA"), &with("two", "BBBB"), "");
    assert!(different[0].private_changed);
    assert_eq!(different[0].attributes[0].values, None);
    let (different, _) = told(&with("one", "AAAA"), &with("one", "BBBB"), "");
    assert!(different[0].private_changed && different[0].attributes.is_empty());
    let said = format!("{different:?}");
    assert!(!said.contains("AAAA") && !said.contains("BBBB"));
}

#[test]
fn attributes_that_no_value_can_be_made_of_are_kept_back_as_a_whole() {
    let with = |attributes: &str| {
        format!(r#"{{"resources":[{{"type":"t","name":"n","instances":[{{"attributes":{attributes}}}]}}]}}"#)
    };
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for odd in [r#"{"a":"\ud800"}"#, r#"{"n":1e999}"#, deep.as_str()] {
        let (different, _) = told(&with(odd), &with("{}"), "");
        let [attribute] = different[0].attributes.as_slice() else {
            panic!("{odd} is one difference")
        };
        assert_eq!((attribute.path.as_str(), &attribute.values), ("", &None));
        assert!(attribute.hashes[0].is_some() && attribute.hashes[0] != attribute.hashes[1]);
        assert_eq!(told(&with(odd), &with(odd), "").1, 1);
    }
}

#[test]
fn a_key_that_looks_like_a_secret_is_not_in_an_address() {
    let with = |key: &str| state(&json!([resource("a", &json!([{"index_key": key, "attributes": {}}]))]));
    let (different, _) = told(&with("AKIAIOSFODNN7EXAMPLE"), &with("plain"), "");
    let addresses: Vec<_> = different.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["fake_server.a[\"plain\"]", "fake_server.a[\"…\"]"]);
}

#[test]
fn outputs_are_told_by_name_and_kept_back_like_attributes() {
    let with = |outputs: &Value| json!({"resources": null, "outputs": outputs}).to_string();
    let before = with(&json!({
        "gone": {"value": "x", "type": "string"}, "region": {"value": "eu", "type": "string"},
        "db_password": {"value": "one"}, "marked": {"value": "one", "sensitive": true}, "same": {"value": [1]},
    }));
    let after = with(&json!({
        "new": {"value": 1}, "region": {"value": "us", "type": "string"},
        "db_password": {"value": "two"}, "marked": {"value": "two"}, "same": {"value": [1]},
    }));
    let (before, after) = (
        Layout::read(before.as_bytes()).unwrap(),
        Layout::read(after.as_bytes()).unwrap(),
    );
    let lines: Vec<_> = before
        .outputs(&after)
        .map(|it| {
            let values = it
                .values
                .map(|values| [values.before, values.after].map(|value| value.unwrap_or_default().to_string()));
            format!(
                "{:?} {} {}",
                it.kind,
                it.name,
                values.map_or("masked".to_owned(), |values| values.join(" "))
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "Changed db_password masked",
            "Removed gone \"x\" null",
            "Changed marked masked",
            "Added new null 1",
            "Changed region \"eu\" \"us\"",
        ]
    );
}

#[test]
fn outputs_are_shown_as_they_were_written_or_not_at_all() {
    let written = br#"{"n": {"value": 1.00e2, "type": "number"}, "token": {"value": "x"}, "s": {"value": "y", "sensitive": true}}"#;
    let shown = |reveal| String::from_utf8(shown_outputs(written, reveal).unwrap()).unwrap();
    assert_eq!(shown(false), r#"{"n":{"value": 1.00e2, "type": "number"}}"#);
    assert_eq!(
        shown(true),
        r#"{"n":{"value": 1.00e2, "type": "number"},"s":{"value": "y", "sensitive": true},"token":{"value": "x"}}"#
    );
    for none in ["", "null", "{}"] {
        assert_eq!(shown_outputs(none.as_bytes(), true).unwrap(), b"{}");
    }
    assert_eq!(shown_outputs(b"[1]", true), None);
}

#[test]
fn what_terraform_does_not_lay_out_so_is_refused_and_not_guessed() {
    for odd in [
        "[]",
        "{",
        r#"{"resources":{}}"#,
        r#"{"resources":[1]}"#,
        r#"{"resources":[{"type":1}]}"#,
    ] {
        assert!(Layout::read(odd.as_bytes()).is_none(), "{odd}");
    }
}
