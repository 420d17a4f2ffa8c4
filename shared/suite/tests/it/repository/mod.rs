//! What the repository promises about itself, read from its own files: which way dependencies point, how long a file
//! may grow, what a proto says about its RPCs, and which words stand nowhere in the services.
//!
//! Each rule is a function from what is read to what is wrong, and is itself shown to refuse.

mod asvs;
mod protos;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use api::policy;
use serde_json::Value;

/// A crate of the workspace, where it lies and what it takes.
struct Member {
    name: String,
    folder: String,
    /// Its programs.
    programs: Vec<String>,
    /// Members that it depends on, with the kind of dependency: `normal`, `dev` or `build`.
    takes: BTreeSet<(String, String)>,
}

impl Member {
    fn service(&self) -> bool {
        self.folder.starts_with("services/")
    }
}

#[test]
fn dependencies_point_one_way() {
    let members = members();
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    for name in [
        "api",
        "kit",
        "testkit",
        "suite",
        "identity",
        "designs",
        "terraform-state",
        "pipelines",
        "audit",
        "runner",
    ] {
        assert!(names.contains(&name), "{name} is no member of {names:?}");
    }
    assert_eq!(misdirected(&members), Vec::<String>::new());
}

#[test]
fn each_program_has_a_name_of_its_own() {
    let members = members();
    let programs: Vec<&str> = members
        .iter()
        .flat_map(|member| &member.programs)
        .map(String::as_str)
        .collect();
    assert!(programs.contains(&"board3"), "{programs:?}");
    // Programs of one name take each other's place in target/.
    let names: BTreeSet<_> = programs.iter().collect();
    assert_eq!(names.len(), programs.len(), "{programs:?}");
}

#[test]
fn a_dependency_the_other_way_is_refused() {
    let wrong = [
        ("designs", "identity", "normal"),
        ("designs", "audit", "dev"),
        ("kit", "designs", "normal"),
        ("kit", "identity", "dev"),
        ("api", "kit", "normal"),
        ("testkit", "audit", "normal"),
        ("audit", "testkit", "normal"),
        ("kit", "testkit", "normal"),
        ("designs", "suite", "dev"),
        ("identity", "api", "build"),
    ];
    for (taker, taken, kind) in wrong {
        let mut members = members();
        let member = members
            .iter_mut()
            .find(|member| member.name == taker)
            .expect("it is a member");
        member.takes.insert((taken.to_owned(), kind.to_owned()));
        let problems = misdirected(&members);
        assert_eq!(problems.len(), 1, "{taker} takes {taken} ({kind}): {problems:?}");
    }
}

#[test]
fn directories_are_named_like_their_crates() {
    for member in members() {
        let directory = member.folder.rsplit('/').next().unwrap_or_default();
        assert_eq!(directory, member.name);
        assert!(
            member.service() || member.folder.starts_with("shared/"),
            "{}",
            member.folder
        );
    }
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long: Vec<_> = sources(&["services", "shared"])
        .into_iter()
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|(lines, _)| *lines > 500)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn every_module_says_what_it_owns() {
    let silent: Vec<_> = sources(&["services", "shared"])
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}

/// Words that belong to one desk and not into a repository, kept in halves so that this file is free of them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/Us", "ers/"),
    ("assis", "tant"),
    ("work", "shop"),
    ("TO", "DO"),
    ("FIX", "ME"),
    ("X", "XX"),
];

#[test]
fn nothing_names_what_lies_outside_of_the_repository() {
    let tracked = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let tracked = String::from_utf8(tracked.stdout).expect("paths are UTF-8");
    let mut found = Vec::new();
    for path in tracked
        .split('\0')
        .filter(|path| !path.is_empty() && !path.ends_with("common_passwords.txt"))
    {
        let Ok(text) = fs::read_to_string(root().join(path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for (head, tail) in ELSEWHERE {
                if line.contains(&format!("{head}{tail}")) {
                    found.push(format!("{path}:{}: {head}{tail}", number + 1));
                }
            }
            if numbered(line, "issue ") || numbered(line, "issue #") {
                found.push(format!("{path}:{}: the number of an issue", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("there is a lock file");
    let sources: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    assert_eq!(
        sources.into_iter().collect::<Vec<_>>(),
        ["\"registry+https://github.com/rust-lang/crates.io-index\""]
    );
}

/// Whether a digit follows `head` somewhere in the line.
fn numbered(line: &str, head: &str) -> bool {
    line.to_lowercase()
        .split(head)
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Files that name permissions all the same, each with its reason.
const NAME_PERMISSIONS: &[(&str, &str)] = &[
    (
        "services/pipelines/src/check.rs",
        "a schedule is nobody's call: whether its author may run pipelines is asked whenever it is due",
    ),
    (
        "services/pipelines/src/wire/lease.rs",
        "says what a job may do, to peers",
    ),
    (
        "services/terraform-state/src/backend.rs",
        "over HTTP, UNLOCK without a body is two RPCs: it needs the permission of the other one too",
    ),
    (
        "services/terraform-state/src/history.rs",
        "over HTTP, GET of outputs is two RPCs: what may be a secret needs the permission of the other one too",
    ),
];

#[test]
fn handlers_pick_no_permission_and_no_status_code() {
    let named = |path: &str| NAME_PERMISSIONS.iter().any(|(may, _)| path == *may);
    for (path, _) in NAME_PERMISSIONS {
        let text = fs::read_to_string(root().join(path)).expect("the file is there");
        let needed = policy::PERMISSIONS.iter().any(|it| text.contains(&format!("\"{it}\"")));
        assert!(needed, "{path} needs no exception");
    }
    let mut found = Vec::new();
    for (path, text) in sources(&["services"]).iter().filter(|(path, _)| path.contains("/src/")) {
        let code = product_code(text);
        for permission in policy::PERMISSIONS {
            if code.contains(&format!("\"{permission}\"")) && !named(path) {
                found.push(format!("{path} names {permission}"));
            }
        }
        // The runner serves nothing: it reads what it is answered.
        if path.starts_with("services/runner/") {
            continue;
        }
        for word in ["Status::", "Code::"] {
            // `Status::from` an error of ours is how a stream says it: the code is the reason's.
            let picked = code.match_indices(word).any(|(at, _)| {
                let (before, here) = code.split_at(at);
                let of_another_name = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let of_an_error = here.starts_with("Status::from)") || here.starts_with("Status::from(error)");
                // A code that somebody types, of a second factor, is read, found and made like any other value.
                let typed = word == "Code::" && here[word.len()..].starts_with(char::is_lowercase);
                !(of_another_name || of_an_error || typed)
            });
            if picked {
                found.push(format!("{path} has {word}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Files outside of identity and consumers that enter an organization, each with its reason.
const ENTER: &[(&str, &str)] = &[
    ("services/pipelines/src/reaper.rs", "ends leases of every organization"),
    ("services/pipelines/src/rpc/job.rs", "answers peers"),
    (
        "services/pipelines/src/rpc/log.rs",
        "a stream outlives its call and goes on in the organization of that call",
    ),
    (
        "services/terraform-state/src/backend/reading.rs",
        "a download outlives its call and goes on in the organization of that call",
    ),
    (
        "services/terraform-state/src/compact.rs",
        "compacts and thins the versions of every organization",
    ),
    (
        "services/terraform-state/src/rotate.rs",
        "seals the data keys of every organization where the platform asks for it",
    ),
    (
        "services/terraform-state/src/schedule.rs",
        "asks for the checks for drift that are due in every organization",
    ),
    (
        "services/terraform-state/src/rpc/drift/watch.rs",
        "a stream outlives its call and goes on in the organization of that call",
    ),
    (
        "services/terraform-state/src/rpc/key.rs",
        "a stream outlives its call and goes on in the organization of that call",
    ),
];

#[test]
fn only_who_must_enters_another_organization() {
    let may = |path: &str| {
        path.starts_with("services/identity/src/")
            || path.starts_with("shared/kit/src/events/")
            || path == "shared/kit/src/db/tx.rs"
            || ENTER.iter().any(|(file, _)| path == *file)
            || (path.starts_with("services/") && (path.contains("/src/worker.rs") || path.contains("/src/worker/")))
    };
    let entering: Vec<String> = sources(&["services", "shared"])
        .into_iter()
        .filter(|(path, text)| path.contains("/src/") && product_code(text).contains("tx.enter("))
        .map(|(path, _)| path)
        .collect();
    let found: Vec<_> = entering.iter().filter(|path| !may(path)).collect();
    assert!(found.is_empty(), "{found:?}");
    let idle: Vec<_> = ENTER
        .iter()
        .filter(|(file, _)| !entering.iter().any(|path| path == file))
        .collect();
    assert!(idle.is_empty(), "{idle:?} enter nothing");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The workspace, as cargo tells it.
fn members() -> Vec<Member> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).expect("cargo answers JSON");
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let base = text(&told, "workspace_root");
    let packages = told["packages"].as_array().expect("cargo lists packages");
    packages
        .iter()
        .map(|package| {
            let manifest = text(package, "manifest_path");
            let folder = manifest
                .trim_end_matches("/Cargo.toml")
                .trim_start_matches(&base)
                .trim_start_matches('/');
            let targets = package["targets"].as_array().into_iter().flatten();
            let programs = targets.filter(|target| target["kind"][0] == "bin");
            let dependencies = package["dependencies"]
                .as_array()
                .expect("a package has a list of dependencies");
            let ours = dependencies.iter().filter(|dependency| dependency["path"].is_string());
            let takes = ours.map(|dependency| {
                (
                    text(dependency, "name"),
                    dependency["kind"].as_str().unwrap_or("normal").to_owned(),
                )
            });
            Member {
                name: text(package, "name"),
                folder: folder.to_owned(),
                programs: programs.map(|target| text(target, "name")).collect(),
                takes: takes.collect(),
            }
        })
        .collect()
}

/// services → kit → api; testkit only for tests and the suite; only the suite knows services.
fn misdirected(members: &[Member]) -> Vec<String> {
    let mut problems = Vec::new();
    for member in members {
        for (taken, kind) in &member.takes {
            let may: &[&str] = match (member.name.as_str(), kind.as_str()) {
                ("suite", "normal" | "dev") => continue,
                ("api", _) => &[],
                ("kit", "normal") => &["api"],
                ("testkit", "normal") => &["api", "kit"],
                (_, "normal") if member.service() => &["api", "kit"],
                ("kit", "dev") => &["api", "testkit"],
                // Its tests watch another service's gate while keys and rights change.
                ("identity", "dev") => &["api", "kit", "testkit", "designs"],
                (_, "dev") if member.service() => &["api", "kit", "testkit"],
                _ => &[],
            };
            if !may.contains(&taken.as_str()) {
                problems.push(format!("{} has a {kind} dependency on {taken}", member.name));
            }
        }
    }
    problems
}

/// Every Rust file below these folders, by its path from the root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                let path = path.strip_prefix(root()).expect("it is below the root");
                found.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// A file without its tests and comments.
fn product_code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}
