//! Compiles the protos without protoc and turns every RPC's policy into a static table.
//!
//! The policies are read from the encoded descriptor set, because decoding through prost drops extensions.

use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path, path::PathBuf};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut files = Vec::new();
    find_protos(&root, &root, &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.binpb"), &encoded)?;

    let pool = DescriptorPool::decode(encoded.as_slice())?;
    fs::write(out.join("policies.rs"), policies(&pool)?)?;
    let redacted: Vec<_> = pool.all_messages().filter(holds_secret).collect();
    fs::write(out.join("messages.rs"), messages(&pool, &redacted)?)?;

    let mut prost_config = tonic_prost_build::Config::new();
    prost_config.btree_map(["."]);
    prost_config.skip_debug(redacted.iter().map(|message| format!(".{}", message.full_name())));
    let descriptors = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    tonic_prost_build::configure().compile_fds_with_config(descriptors, prost_config)?;
    Ok(())
}

fn find_protos(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path.strip_prefix(root)?.to_owned());
        }
    }
    Ok(())
}

/// The static table of policies, sorted by path; an RPC without a policy, or with one that makes no sense, fails the build.
fn policies(pool: &DescriptorPool) -> Result<String, Failure> {
    let extension = pool
        .get_extension_by_name("board3.options.v1.policy")
        .ok_or("the option board3.options.v1.policy is gone")?;
    let mut rows = BTreeSet::new();
    let mut permissions = BTreeSet::new();
    for service in pool.services() {
        let package = service.package_name().to_owned();
        for method in service.methods() {
            let options = method.options();
            if !options.has_extension(&extension) {
                return Err(format!("{} has no policy", method.full_name()).into());
            }
            let value = options.get_extension(&extension);
            let policy = value.as_message().ok_or("a policy is a message")?;
            let name = method.full_name().to_owned();
            let scope = number(policy, "scope");
            let permission = text(policy, "permission");
            let peers = list(policy, "peers");
            let rate_class = number(policy, "rate_class");
            let audited = flag(policy, "audited");
            check(scope != 0 && rate_class != 0, &name, "needs a scope and a rate class")?;
            check(
                (scope == 3) != permission.is_empty(),
                &name,
                "has a permission exactly in SCOPE_ORGANIZATION",
            )?;
            check(
                (scope == 4) != peers.is_empty(),
                &name,
                "has peers exactly in SCOPE_PEER",
            )?;
            if !permission.is_empty() {
                check(
                    permission.split('.').count() == 3,
                    &name,
                    "has a permission of three segments",
                )?;
                permissions.insert(permission.clone());
            }
            let slice = package.split('.').nth(1).ok_or("a package has a slice")?;
            let input = method.input();
            rows.insert(format!(
                "    Method {{ path: \"/{service}/{method}\", service: {service:?}, name: {method:?}, action: \"{slice}.{method}\", slice: {slice:?}, \
                 scope: Scope::{scope}, permission: {permission:?}, peers: &{peers:?}, audited: {audited}, sensitive: {sensitive}, \
                 rate_class: RateClass::{rate}, answers_secret: {secret}, takes_request_id: {keyed}, streams: {streams} }},\n",
                service = service.full_name(),
                method = method.name(),
                scope = ["", "Public", "User", "Organization", "Peer"][scope as usize],
                rate = ["", "Read", "Write", "Authentication", "Peer"][rate_class as usize],
                sensitive = flag(policy, "sensitive"),
                secret = flag(policy, "answers_secret"),
                keyed = input.get_field_by_name("request_id").is_some() && audited,
                streams = method.is_server_streaming() || method.is_client_streaming(),
            ));
        }
    }
    let mut source = String::from("/// Every RPC of the suite, sorted by path.\npub static METHODS: &[Method] = &[\n");
    rows.iter().for_each(|row| source.push_str(row));
    source.push_str("];\n");
    writeln!(source, "/// Every permission that an RPC asks for, sorted.")?;
    writeln!(
        source,
        "pub static PERMISSIONS: &[&str] = &{:?};",
        permissions.iter().collect::<Vec<_>>()
    )?;
    Ok(source)
}

/// `Request` for every input message, and a `Debug` that shows nothing for messages that hold a secret.
fn messages(pool: &DescriptorPool, redacted: &[MessageDescriptor]) -> Result<String, Failure> {
    let mut source = String::new();
    let mut seen = BTreeSet::new();
    for service in pool.services() {
        for method in service.methods() {
            let input = method.input();
            if !seen.insert(input.full_name().to_owned()) {
                continue;
            }
            let body = if input.get_field_by_name("request_id").is_some() && method_is_audited(&method) {
                "Some(&self.request_id)"
            } else {
                "None"
            };
            writeln!(
                source,
                "impl Request for {} {{ fn request_id(&self) -> Option<&str> {{ {body} }} }}",
                rust_path(&input)
            )?;
        }
    }
    for message in redacted {
        writeln!(
            source,
            "impl std::fmt::Debug for {} {{ fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(\"{}(redacted)\") }} }}",
            rust_path(message),
            message.name()
        )?;
    }
    Ok(source)
}

fn method_is_audited(method: &prost_reflect::MethodDescriptor) -> bool {
    let pool = method.parent_pool();
    pool.get_extension_by_name("board3.options.v1.policy")
        .and_then(|extension| {
            method
                .options()
                .get_extension(&extension)
                .as_message()
                .map(|policy| flag(policy, "audited"))
        })
        .unwrap_or(false)
}

fn holds_secret(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| {
        let options = field.options();
        options
            .get_field_by_name("debug_redact")
            .and_then(|value| value.as_bool())
            .unwrap_or(false)
    })
}

fn rust_path(message: &MessageDescriptor) -> String {
    let package = message
        .package_name()
        .strip_prefix("board3.")
        .unwrap_or(message.package_name())
        .replace('.', "::");
    format!("crate::{package}::{}", message.name())
}

fn check(holds: bool, method: &str, rule: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(format!("{method}: a policy {rule}").into())
    }
}

fn number(policy: &DynamicMessage, field: &str) -> i32 {
    policy
        .get_field_by_name(field)
        .and_then(|value| value.as_enum_number())
        .unwrap_or(0)
}

fn flag(policy: &DynamicMessage, field: &str) -> bool {
    policy
        .get_field_by_name(field)
        .and_then(|value| value.as_bool())
        .unwrap_or(false)
}

fn text(policy: &DynamicMessage, field: &str) -> String {
    policy
        .get_field_by_name(field)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn list(policy: &DynamicMessage, field: &str) -> Vec<String> {
    let Some(value) = policy.get_field_by_name(field) else {
        return Vec::new();
    };
    match value.as_ref() {
        Value::List(values) => values
            .iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}
