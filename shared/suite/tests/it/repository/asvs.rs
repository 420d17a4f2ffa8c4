//! docs/asvs.md: no requirement is missing, and what it names is there.

use std::{collections::BTreeSet, fs};

use super::{root, sources};

/// How many requirements of levels 1 and 2 each section of ASVS 5.0 has been given numbers for, and those that are of level 3.
const SECTIONS: [(&str, u32, &[u32]); 27] = [
    ("6.1", 3, &[]),
    ("6.2", 12, &[]),
    ("6.3", 8, &[5, 6, 7, 8]),
    ("6.4", 6, &[5, 6]),
    ("6.5", 8, &[6, 7, 8]),
    ("6.6", 4, &[4]),
    ("6.7", 2, &[1, 2]),
    ("6.8", 4, &[]),
    ("7.1", 3, &[]),
    ("7.2", 4, &[]),
    ("7.3", 2, &[]),
    ("7.4", 5, &[]),
    ("7.5", 3, &[3]),
    ("7.6", 2, &[]),
    ("8.1", 4, &[3, 4]),
    ("8.2", 4, &[4]),
    ("8.3", 3, &[2, 3]),
    ("8.4", 2, &[2]),
    ("9.1", 3, &[]),
    ("9.2", 4, &[]),
    ("10.1", 2, &[]),
    ("10.2", 3, &[3]),
    ("10.3", 5, &[5]),
    ("10.4", 16, &[12, 13, 14, 15, 16]),
    ("10.5", 5, &[]),
    ("10.6", 2, &[]),
    ("10.7", 3, &[]),
];
const LOGGING: [(&str, u32, &[u32]); 5] = [
    ("16.1", 1, &[]),
    ("16.2", 5, &[]),
    ("16.3", 4, &[]),
    ("16.4", 3, &[]),
    ("16.5", 4, &[4]),
];

/// The cells of the lines that begin with a requirement's number.
fn lines(text: &str) -> Vec<Vec<&str>> {
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    cells
        .filter(|cells| cells[0].starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// What stands between backticks and has the look of a test.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        name.matches('_').count() > 2
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
    })
}

#[test]
fn every_requirement_of_asvs_is_answered_and_every_test_that_it_names_exists() {
    let text = fs::read_to_string(root().join("docs/asvs.md")).expect("docs/asvs.md is there");
    let lines = lines(&text);
    let told: Vec<&str> = lines.iter().map(|cells| cells[0]).collect();
    let wanted: Vec<String> = SECTIONS
        .iter()
        .chain(&LOGGING)
        .flat_map(|(section, last, third)| {
            let numbers = (1..=*last).filter(move |number| !third.contains(number));
            numbers.map(move |number| format!("{section}.{number}"))
        })
        .collect();
    assert_eq!(told, wanted);

    let sources = sources(&["services", "shared"]);
    let tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| {
            line.trim_start()
                .strip_prefix("async fn ")
                .or(line.trim_start().strip_prefix("fn "))
        })
        .filter_map(|rest| rest.split_once('('))
        .map(|(name, _)| name)
        .collect();
    let mut missing = Vec::new();
    for cells in &lines {
        let [number, level, what, how] = cells.as_slice() else {
            panic!("{cells:?} are not four")
        };
        assert!(["1", "2"].contains(level) && !what.is_empty(), "{number}");
        assert!(
            how.contains('`') || how.ends_with('.'),
            "{number} is answered by nothing: {how}"
        );
        missing.extend(
            named(how)
                .filter(|name| !tests.contains(name))
                .map(|name| format!("{number}: {name}")),
        );
    }
    assert!(missing.is_empty(), "these tests are not there: {missing:#?}");
}

#[test]
fn a_test_that_is_not_there_would_be_missed() {
    let text = "| 6.1.1 | 1 | what | By `a_test_that_nobody_wrote` and `BOARD3_MAIL`. |\n| number | level |\n";
    let lines = lines(text);
    assert_eq!(lines.len(), 1);
    assert_eq!(named(lines[0][3]).collect::<Vec<_>>(), ["a_test_that_nobody_wrote"]);
}
