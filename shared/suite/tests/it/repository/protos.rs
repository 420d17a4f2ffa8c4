//! What the protos promise: which reasons an RPC fails with, what each field is, how long a text may be.

use std::collections::{BTreeMap, BTreeSet};

use api::{errors::v1::ErrorReason, policy};
use prost_reflect::{DescriptorPool, FileDescriptor};

#[test]
fn every_rpc_lists_its_reasons() {
    assert_eq!(unreasoned(&rpc_comments(&descriptors())), Vec::<String>::new());
}

#[test]
fn an_rpc_that_leaves_a_reason_out_is_refused() {
    let comments = rpc_comments(&descriptors());
    let changed = |path: &str, from: &str, to: &str| {
        let mut comments = comments.clone();
        let comment = comments.get_mut(path).expect("the RPC is there");
        assert!(comment.contains(from), "{comment}");
        *comment = comment.replace(from, to);
        unreasoned(&comments).len()
    };
    let create = "/board3.designs.v1.DesignService/CreateDesign";
    assert_eq!(changed(create, "Reasons:", "May fail:"), 1);
    assert_eq!(changed(create, "REQUEST_ID_REUSED", "RESOURCE_NOT_FOUND"), 1);
    assert_eq!(changed(create, "INVALID_REQUEST", "INVALID_WISH"), 1);
    assert_eq!(
        changed(
            "/board3.designs.v1.DesignService/ListDesigns",
            ", PAGE_TOKEN_INVALID",
            ""
        ),
        1
    );
    assert_eq!(
        changed(
            "/board3.identity.v1.ApiKeyService/CreateApiKey",
            ", SECRET_ALREADY_SHOWN",
            ""
        ),
        1
    );
}

#[test]
fn every_service_message_and_field_is_described_and_limits_are_told() {
    let pool = descriptors();
    let mut silent = Vec::new();
    for file in pool.files().filter(|file| file.package_name().starts_with("board3.")) {
        let comments = comments(&file);
        for message in file.messages() {
            for field in message.fields() {
                if comments
                    .get(field.path())
                    .is_none_or(|comment| comment.trim().is_empty())
                {
                    silent.push(field.full_name().to_owned());
                }
            }
        }
        for service in file.services() {
            let said = comments.get(service.path()).map(String::as_str).unwrap_or_default();
            if !["essages are at most", "equests are at most"]
                .iter()
                .any(|limit| said.contains(limit))
            {
                silent.push(format!("{}: how large a message may be", service.full_name()));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn every_text_of_a_request_has_a_limit_in_words() {
    // What a text is: an id, a token of ours, a name looked up among those that exist, or so many characters.
    const BOUNDS: &[&str] = &[
        "UUID",
        "character",
        "code points",
        "of `a-z`",
        "of `A-Z`",
        "As answered by",
        "`next_page_token`",
        "etag",
        "name of a role",
        "e-mail address",
        "password",
        "Id of the node",
        "id of the node",
        "epoch",
        "organization to enter",
        // Told where the thing itself is described.
        "See State",
        "See Runner",
        "See Pipeline",
        "as in terraform_state's State",
        "One of those in Stage",
        "Names of stages",
        // A lock's id has its bound in Lock.
        "id of the lock",
        "lock's id",
        // Told where somebody signs up, or an organization is made.
        "E-mail address",
        "User name",
        "user name",
        "First name",
        "Last name",
        "Its slug",
        "Another slug",
        "verified domain",
        // Of one length, as it was sent or shown.
        "As sent to the",
        "PASERK",
        "code of the second factor",
        "6 digits",
        // Answered, never asked.
        "Of the account as it is now",
        "Of the organization as it is now",
        "What kind of caller",
    ];
    let mut unbounded = Vec::new();
    let pool = descriptors();
    let mut seen = BTreeSet::new();
    let mut open: Vec<_> = pool
        .services()
        .flat_map(|service| service.methods().map(|method| method.input()).collect::<Vec<_>>())
        .collect();
    while let Some(message) = open.pop() {
        if !message.package_name().starts_with("board3.") || !seen.insert(message.full_name().to_owned()) {
            continue;
        }
        let comments = comments(&message.parent_file());
        for field in message.fields() {
            if let Some(inner) = field.kind().as_message() {
                open.push(inner.clone());
            }
            let said = comments.get(field.path()).map(String::as_str).unwrap_or_default();
            let answered =
                message.name() == "Design" || message.name() == "TemplateReference" || message.name() == "Creator";
            let text = field.kind() == prost_reflect::Kind::String;
            if text && !answered && !BOUNDS.iter().any(|bound| said.contains(bound)) && !said.contains("permissions") {
                unbounded.push(format!("{}: {}", field.full_name(), said.trim()));
            }
        }
    }
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}

fn descriptors() -> DescriptorPool {
    DescriptorPool::decode(api::DESCRIPTORS).expect("the descriptors are our own and whole")
}

/// The comment above each element of a file, by its path in the descriptor.
fn comments(file: &FileDescriptor) -> BTreeMap<Vec<i32>, String> {
    let locations = file
        .file_descriptor_proto()
        .source_code_info
        .iter()
        .flat_map(|info| &info.location);
    locations
        .filter_map(|location| Some((location.path.clone(), location.leading_comments.clone()?)))
        .collect()
}

/// What the protos say of each RPC, by its path.
fn rpc_comments(pool: &DescriptorPool) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    for service in pool.services() {
        let comments = comments(&service.parent_file());
        for method in service.methods() {
            let comment = comments.get(method.path()).cloned().unwrap_or_default();
            said.insert(format!("/{}/{}", service.full_name(), method.name()), comment);
        }
    }
    said
}

/// What the comments of RPCs leave out or make up: one line per RPC and flaw.
fn unreasoned(said: &BTreeMap<String, String>) -> Vec<String> {
    let pool = descriptors();
    let mut problems = Vec::new();
    for method in policy::METHODS {
        let Some((_, reasons)) = said.get(method.path).and_then(|comment| comment.split_once("Reasons:")) else {
            problems.push(format!("{} lists no reasons", method.action));
            continue;
        };
        let words = reasons
            .split(|c: char| !c.is_ascii_uppercase() && c != '_')
            .filter(|word| word.len() > 3);
        let listed: BTreeSet<&str> = words.collect();
        if listed.is_empty() {
            problems.push(format!("{} lists no reasons", method.action));
        }
        for word in &listed {
            if ErrorReason::from_str_name(&format!("ERROR_REASON_{word}")).is_none() {
                problems.push(format!("{} lists {word}, which is no reason", method.action));
            }
        }
        let input = pool
            .get_service_by_name(method.service)
            .and_then(|service| service.methods().find(|rpc| rpc.name() == method.name))
            .expect("the table is made from the protos")
            .input();
        let has = |field: &str| input.get_field_by_name(field).is_some();
        for (needed, reason) in [
            (method.takes_request_id, "REQUEST_ID_REUSED"),
            (method.answers_secret, "SECRET_ALREADY_SHOWN"),
            (has("page_token"), "PAGE_TOKEN_INVALID"),
        ] {
            // An unknown word in its place is told above.
            if needed && !listed.contains(reason) {
                problems.push(format!("{} does not list {reason}", method.action));
            }
        }
    }
    problems
}
