//! Pairs of resources, and what is told of each.

use super::*;
use serde_json::json;

fn told(before: &Value, after: &Value, marks: [Value; 2]) -> Vec<String> {
    let side = |value, marks| Side {
        value: Some(value),
        marks: Some(marks),
    };
    let found = compare("fake_server", side(before, &marks[0]), side(after, &marks[1]), 1_000);
    found
        .into_iter()
        .map(|found| match found.values() {
            None => format!("{}: masked", found.path()),
            Some(Values { before, after }) => {
                let text = |value: Option<Value>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
                format!("{}: {} -> {}", found.path(), text(before), text(after))
            }
        })
        .collect()
}

fn unmarked(before: &Value, after: &Value) -> Vec<String> {
    told(before, after, [json!({}), json!({})])
}

#[test]
fn each_attribute_is_told_where_terraform_would_write_it() {
    let before = json!({
        "size": 2, "tags": {"env": "dev", "Name": "a", "a\"b\n\u{0}": "x"}, "ingress": [{"cidr": "10.0.0.0/8", "odd one": 1}, {"rule": {"x": [1]}}],
        "same": [1, {"a": null}], "größe": "klein",
    });
    let after = json!({
        "size": 8, "tags": {"env": "prod", "owner": "mallory", "a\"b\n\u{0}": "y", "Name": "a"}, "ingress": [{"cidr": "0.0.0.0/0", "odd one": 2}, {"rule": {"x": [2]}}],
        "same": [1.0, {}], "größe": "groß",
    });
    assert_eq!(
        unmarked(&before, &after),
        [
            "größe: \"klein\" -> \"groß\"",
            "ingress[0].cidr: \"10.0.0.0/8\" -> \"0.0.0.0/0\"",
            "ingress[0][\"odd one\"]: 1 -> 2",
            "ingress[1].rule[\"x\"][0]: 1 -> 2",
            "size: 2 -> 8",
            "tags[\"a\\\"b\\n\\u0000\"]: \"x\" -> \"y\"",
            "tags[\"env\"]: \"dev\" -> \"prod\"",
            "tags[\"owner\"]: - -> \"mallory\"",
        ]
    );
}

#[test]
fn an_element_that_came_or_went_shifts_the_others_without_drift() {
    let list = |items: Value| json!({ "l": items });
    assert_eq!(
        unmarked(&list(json!(["a", "b", "c"])), &list(json!(["a", "c"]))),
        ["l[1]: \"b\" -> -"]
    );
    assert_eq!(
        unmarked(&list(json!(["a", "c"])), &list(json!(["a", "b", "c"]))),
        ["l[1]: - -> \"b\""]
    );
    assert_eq!(
        unmarked(
            &list(json!([{"p": 1}, {"p": 2}])),
            &list(json!([{"p": 3}, {"p": 1}, {"p": 2}]))
        ),
        ["l[0].p: - -> 3"]
    );
    assert_eq!(
        unmarked(&list(json!(["a", "b"])), &list(json!(["b", "a"]))),
        ["l[0]: \"a\" -> \"b\"", "l[1]: \"b\" -> \"a\""]
    );
}

#[test]
fn lists_in_lists_are_compared_as_fast_as_others() {
    let nested = |leaf: i64| json!({ "l": (0..100).fold(json!(leaf), |value, _| json!([0, value, 0])) });
    assert_eq!(unmarked(&nested(1), &nested(2)).len(), 1);
}

#[test]
fn nothing_is_nothing_however_it_is_written() {
    let nothings = [
        json!({}),
        json!({"a": null}),
        json!({"a": ""}),
        json!({"a": []}),
        json!({"a": {}}),
        json!({"a": [{"b": null}, ""]}),
    ];
    for before in &nothings {
        for after in &nothings {
            assert_eq!(unmarked(before, after), [""; 0], "{before} {after}");
        }
    }
    assert_eq!(
        unmarked(&json!({"a": null}), &json!({"a": {"b": [{"c": 1}]}})),
        ["a[\"b\"][0].c: - -> 1"]
    );
    assert_eq!(unmarked(&json!({"a": false}), &json!({"a": null})), ["a: false -> -"]);
    assert_eq!(unmarked(&json!({"a": 0}), &json!({})), ["a: 0 -> -"]);
    assert_eq!(unmarked(&json!({"a": "x"}), &json!({"a": ""})), ["a: \"x\" -> \"\""]);
}

#[test]
fn numbers_are_compared_by_value_and_never_with_texts() {
    let number = |text: &str| serde_json::from_str(&format!("{{\"n\": {text}}}")).unwrap_or_default();
    for (before, after, same) in [
        ("1", "1.0", true),
        ("100", "1e2", true),
        ("-0", "0", true),
        ("0.1", "0.10", true),
        ("1", "1.5", false),
        ("1", "\"1\"", false),
        ("true", "1", false),
        ("9007199254740993", "9007199254740992", false),
        ("9007199254740993", "9007199254740992.0", false),
        ("18446744073709551615", "18446744073709551614", false),
    ] {
        assert_eq!(
            unmarked(&number(before), &number(after)).is_empty(),
            same,
            "{before} {after}"
        );
    }
}

#[test]
fn a_mark_hides_all_beneath_it_on_both_sides_and_wherever_the_text_stands_again() {
    let before = json!({"a": {"x": "one", "y": 1}, "copy": "one", "list": [{"p": 1, "q": 1}], "shown": 1});
    let after = json!({"a": {"x": "two", "y": 2}, "copy": "two", "list": [{"p": 2, "q": 2}], "shown": 2});
    let marks = json!({"a": {"x": true}, "list": [{"p": true}]});
    let expected = [
        "a[\"x\"]: masked",
        "a[\"y\"]: 1 -> 2",
        "copy: masked",
        "list[0].p: masked",
        "list[0].q: 1 -> 2",
        "shown: 1 -> 2",
    ];
    assert_eq!(told(&before, &after, [marks.clone(), json!({})]), expected);
    assert_eq!(told(&before, &after, [json!(false), marks]), expected);
    assert_eq!(
        told(&before, &after, [json!({"a": true}), json!(false)])[0],
        "a: masked"
    );
    assert_eq!(told(&before, &after, [json!(true), json!(false)]), [": masked"]);
    // What is new beneath a mark of the other side is hidden too.
    assert_eq!(
        told(
            &json!({"a": null}),
            &json!({"a": {"k": "v"}}),
            [json!({"a": true}), json!({})]
        ),
        ["a: masked"]
    );
}

#[test]
fn names_and_looks_hide_what_is_not_marked() {
    let before = json!({
        "db_password": "one", "env": [{"name": "API_TOKEN", "value": "x"}], "secrets": {"a": 1}, "m": {"AKIAIOSFODNN7EXAMPLE": 1},
        "mixed": "text", "policy": "{\"a\": 1}", "ports": {"http": 80},
    });
    let after = json!({
        "db_password": "two", "env": [{"name": "API_TOKEN", "value": "y"}], "secrets": {"a": 2}, "m": {},
        "mixed": {"password": 1}, "policy": "{\"token\": 1}", "ports": {"http": 81},
    });
    assert_eq!(
        unmarked(&before, &after),
        [
            "db_password: masked",
            "env[0]: masked",
            "m: masked",
            "mixed: masked",
            "policy: masked",
            "ports[\"http\"]: 80 -> 81",
            "secrets: masked",
        ]
    );
    let named = |size: i32, value: &str| json!({"name": "/prod/db/password", "size": size, "value": value});
    assert_eq!(
        unmarked(&named(1, "one"), &named(2, "two")),
        ["size: 1 -> 2", "value: masked"]
    );
    let (before, after) = (json!({"result": "one", "tags": {"a": "b"}}), json!({"result": "two"}));
    let side = |value| Side {
        value: Some(value),
        marks: None,
    };
    let found = compare("random_password", side(&before), side(&after), 1_000);
    assert!(
        found.len() == 2 && found.iter().all(|difference| difference.values().is_none()),
        "{:?}",
        found.iter().map(Found::path).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_long_is_left_out_or_cut() {
    let long = json!({ "a": "word ".repeat(4_000), "b": {"k".repeat(2_000): 1} });
    let told = unmarked(&json!({}), &long);
    assert_eq!(told[0], "a: masked");
    assert_eq!(
        told[1].split(": ").next().map(|path| path.chars().count()),
        Some(MOST_PATH_CHARACTERS + 1)
    );
    let nested = |levels| json!({ "a": (0..levels).fold(json!(1), |value, _| json!([value])) });
    let text = json!({"a": "text"});
    assert!(!unmarked(&text, &nested(MOST_SHOWN_DEPTH))[0].contains("masked"));
    assert_eq!(unmarked(&text, &nested(MOST_SHOWN_DEPTH + 1)), ["a: masked"]);
    let deep = (0..100).fold(json!(1), |value, _| json!({ "abcdefghijkl": value }));
    let path = unmarked(&json!({}), &deep)[0]
        .split(": ")
        .next()
        .map(|path| path.chars().count());
    assert_eq!(path, Some(MOST_PATH_CHARACTERS + 1));
}

#[test]
fn what_stands_behind_a_flag_for_a_secret_is_hidden() {
    let command = |flag: &str, value: &str| json!({ "command": ["run", flag, value, "fast"] });
    for flag in ["--password", "-p", "-token", "--db-pw"] {
        assert_eq!(
            unmarked(&command(flag, "old"), &command(flag, "new")),
            ["command[2]: masked"]
        );
    }
    assert_eq!(
        unmarked(&command("--size", "old"), &command("--size", "new")),
        ["command[2]: \"old\" -> \"new\""]
    );
    assert_eq!(
        unmarked(&json!({"a": 1}), &json!({"a": ["run", "--password", "new"]})),
        ["a: masked"]
    );
}

#[test]
fn a_marked_text_within_another_is_hidden() {
    let server = |secret: &str, url: &str| json!({ "secretive": secret, "url": url });
    let marks = || [json!({"secretive": true}), json!({"secretive": true})];
    let told_of = |secret: &str| {
        let (before, after) = (server(secret, "old/hunt/x"), server(secret, "new/hunt/y"));
        told(&before, &after, marks())
    };
    assert_eq!(told_of("hunt"), ["url: masked"]);
    assert_eq!(told_of("hun"), ["url: \"old/hunt/x\" -> \"new/hunt/y\""]);
    assert_eq!(told_of("hunter"), ["url: \"old/hunt/x\" -> \"new/hunt/y\""]);
}

#[test]
fn values_that_are_kept_back_are_told_apart_by_their_hashes_within_an_organization_alone() {
    let (before, after) = (
        json!({"password": "one", "size": 1}),
        json!({"password": "two", "size": 2}),
    );
    let side = |value| Side {
        value: Some(value),
        marks: None,
    };
    let found = compare("fake_server", side(&before), side(&after), 10);
    let [password, size] = found.as_slice() else {
        panic!("two attributes differ")
    };
    assert_eq!((password.path(), size.path()), ("password", "size"));
    assert_eq!(password.values(), None);
    assert!(size.values().is_some());
    let (ring, org) = (KeyRing::ephemeral(), OrgId::new());
    let [one, two] = password.hashes(&ring, org);
    assert_eq!(one, Some(hash(&json!("one"), &ring, org)));
    assert_eq!(two, Some(hash(&json!("two"), &ring, org)));
    assert_ne!(one, two);
    assert_ne!(one, password.hashes(&ring, OrgId::new())[0]);
    assert_ne!(one, password.hashes(&KeyRing::ephemeral(), org)[0]);
}

#[test]
fn a_value_under_a_name_is_shown_where_neither_says_that_it_is_a_secret() {
    assert!(is_shown("region", &json!("eu-west-1")));
    for (name, value) in [
        ("db_password", json!("x")),
        ("region", json!("AKIAIOSFODNN7EXAMPLE")),
        ("settings", json!({"client_secret": "x"})),
        ("text", json!("x ".repeat(20_000))),
    ] {
        assert!(!is_shown(name, &value), "{name}");
    }
}
