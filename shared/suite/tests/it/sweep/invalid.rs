//! Broken messages: each field alone, all fields at once, none at all. What is wrong is told, all of it, and nothing
//! is written.

use std::collections::BTreeSet;

use api::policy::Method;
use kit::Reason;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use tonic_types::StatusExt;

use super::{
    Prepared, prepared,
    row::Row,
    wire::{call_without_message, limit, request, types},
    world::{TRAIL, World, places},
};

/// Longer than any text may be, and short enough that all texts of a message stay below its limit.
const TOO_LONG: usize = 5_000;

/// How a field is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Ids are malformed, texts too long.
    Malformed,
    /// Every text is too long, ids too.
    TooLong,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_broken_field_is_told_alone_and_with_all_others() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    world.quiet().await;
    let before = world.tables(TRAIL).await;
    let mut broken = 0;
    for prepared in &calls {
        let Prepared {
            method,
            row,
            valid,
            credential,
        } = prepared;
        let whole = request(method, &valid.message);
        let fields = leaves(method, row);
        for field in &fields {
            for way in [Way::Malformed, Way::TooLong] {
                let mut message = whole.clone();
                if !breaks(&mut message, "", way, row, &|path| path == field) {
                    continue;
                }
                broken += 1;
                let mut answer = world.call(method, credential, &message.encode_to_vec()).await;
                answer.what = format!("{} with {field} broken ({way:?})", method.action);
                if field == "page_token" {
                    answer.refused(Reason::PageTokenInvalid);
                } else {
                    let told = answer.violations();
                    assert!(is_told(field, &told), "{}: told {told:?}", answer.what);
                }
            }
        }
        all_at_once(&world, prepared, &whole, &fields).await;
        if !row.required.is_empty() {
            let told: BTreeSet<String> = world
                .call(method, credential, &[])
                .await
                .violations()
                .into_iter()
                .collect();
            let wanted: BTreeSet<String> = row.required.iter().map(|field| (*field).to_owned()).collect();
            assert_eq!(told, wanted, "{} without any field", method.action);
        }
    }
    assert!(broken > 100, "{broken}");
    world.quiet().await;
    assert_eq!(world.tables(TRAIL).await, before, "a broken message leaves nothing");
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        world.call(method, credential, &valid.now()).await.ok();
    }
}

/// A message with everything broken is told everything; what a mask lets through is only read where the mask is sane.
async fn all_at_once(
    world: &World,
    Prepared {
        method,
        row,
        valid: _,
        credential,
    }: &Prepared,
    whole: &DynamicMessage,
    fields: &[String],
) {
    let masked = fields.iter().any(|field| field == "update_mask");
    let rounds: &[fn(&str) -> bool] = if masked {
        &[|field| field != "update_mask", |field| !field.contains('.')]
    } else {
        &[|_| true]
    };
    for round in rounds {
        // The token of a list is opened once the rest is sane, and refused for a reason of its own.
        let wanted: Vec<&String> = fields
            .iter()
            .filter(|field| round(field) && *field != "page_token")
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let mut message = whole.clone();
        breaks(&mut message, "", Way::Malformed, row, &|path| round(path));
        let answer = world.call(method, credential, &message.encode_to_vec()).await;
        let told = answer.violations();
        let silent: Vec<_> = wanted
            .iter()
            .filter(|field| !is_replaced(&message, field) && !is_told(field, &told))
            .collect();
        assert!(
            silent.is_empty(),
            "{} with all broken does not tell {silent:?}, only {told:?}",
            method.action
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_readable_message_is_refused() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        for slice in places(method) {
            let answer = call_without_message(world.channel(slice), method.path, credential).await;
            assert_eq!(answer.violations(), ["message"], "{} without a message", method.action);
        }
        // A field of length 100 with one byte; a number that never ends; a group that was never opened.
        for garbage in [
            &[0x0a, 100, 1][..],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x0c],
        ] {
            let answer = world.call(method, credential, garbage).await;
            assert_eq!(answer.violations(), ["message"], "{} with {garbage:?}", method.action);
        }
        let limit = limit(method);
        let answer = world.call(method, credential, &padded(&valid.message, limit + 1)).await;
        let details = answer.refused(Reason::MessageTooLarge).get_error_details();
        let told = details
            .error_info()
            .and_then(|info| info.metadata.get("limit_bytes").cloned());
        assert_eq!(told, Some(limit.to_string()), "{}", method.action);
    }
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        let limit = limit(method);
        world.call(method, credential, &padded(&valid.now(), limit)).await.ok();
    }
}

/// The message with a field that nobody knows, so that it has this many bytes.
fn padded(message: &[u8], bytes: usize) -> Vec<u8> {
    // Field 1000 with a length in four bytes.
    let mut padded = message.to_vec();
    let filling = bytes - message.len() - 6;
    padded.extend([0xc2, 0x3e]);
    padded.extend((0..4).map(|n| ((filling >> (7 * n)) & 0x7f) as u8 | if n < 3 { 0x80 } else { 0 }));
    padded.resize(bytes, 0);
    padded
}

/// Whether a violation names the field, or an item or part of it.
fn is_told(field: &str, told: &[String]) -> bool {
    told.iter().any(|told| {
        told.strip_prefix(field)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
    })
}

/// Whether another field of the same choice has taken a field's place.
fn is_replaced(message: &DynamicMessage, field: &str) -> bool {
    let field = message.descriptor().get_field_by_name(field);
    field.is_some_and(|field| field.containing_oneof().is_some() && !message.has_field(&field))
}

/// The paths of every field that can be broken.
fn leaves(method: &Method, row: &Row) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    let mut message = DynamicMessage::new(types(method).0);
    breaks(&mut message, "", Way::Malformed, row, &|path| {
        found.borrow_mut().push(path.to_owned());
        true
    });
    found.into_inner()
}

/// Breaks every field below `above` that is wanted; says whether one was.
fn breaks(message: &mut DynamicMessage, above: &str, way: Way, row: &Row, wanted: &dyn Fn(&str) -> bool) -> bool {
    let mut any = false;
    for field in message.descriptor().fields() {
        let path = if above.is_empty() {
            field.name().to_owned()
        } else {
            format!("{above}.{}", field.name())
        };
        if row.free.iter().any(|free| is_told(free, std::slice::from_ref(&path))) {
            continue;
        }
        any |= break_field(message, &field, &path, way, row, wanted);
    }
    any
}

fn break_field(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    path: &str,
    way: Way,
    row: &Row,
    wanted: &dyn Fn(&str) -> bool,
) -> bool {
    let kind = field.kind();
    if let Kind::Message(inner) = &kind
        && inner.package_name().starts_with("board3.")
    {
        return break_inner(message, field, inner, path, way, row, wanted);
    }
    let id = above_is_top(path) && field.name().ends_with("_id") && !row.texts.contains(&field.name());
    let value = match &kind {
        Kind::String if way == Way::Malformed && id => Value::String("7".to_owned()),
        // No two fields are alike, so that none refers to another.
        Kind::String => {
            Value::String(path.replace(|c: char| !c.is_alphabetic(), "x").repeat(TOO_LONG)[..TOO_LONG].to_owned())
        }
        _ if way == Way::TooLong => return false,
        Kind::Enum(_) => Value::EnumNumber(9_999),
        Kind::Int32 | Kind::Sint32 => Value::I32(-1),
        Kind::Int64 | Kind::Sint64 => Value::I64(-1),
        Kind::Double => Value::F64(f64::NAN),
        // Bytes of a content have no shape; those of a digest have a length.
        Kind::Bytes if field.name() == "content_md5" => Value::Bytes(vec![7; 3].into()),
        Kind::Bytes => return false,
        Kind::Message(inner) => Value::Message(broken(inner)),
        Kind::Bool => return false,
        other => panic!("{path}: how to break {other:?} is not known"),
    };
    if !wanted(path) {
        return false;
    }
    message.set_field(
        field,
        if field.is_list() {
            Value::List(vec![value])
        } else {
            value
        },
    );
    true
}

/// Goes into a message of ours, or into the first of them.
fn break_inner(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    inner: &MessageDescriptor,
    path: &str,
    way: Way,
    row: &Row,
    wanted: &dyn Fn(&str) -> bool,
) -> bool {
    if field.is_list() {
        let mut items = match message.get_field(field).as_ref() {
            Value::List(items) => items.clone(),
            _ => Vec::new(),
        };
        if items.is_empty() {
            items.push(Value::Message(DynamicMessage::new(inner.clone())));
        }
        let Some(Value::Message(first)) = items.first_mut() else {
            return false;
        };
        let any = breaks(first, &format!("{path}[0]"), way, row, wanted);
        if any {
            message.set_field(field, Value::List(items));
        }
        return any;
    }
    let mut within = match message.get_field(field).as_ref() {
        Value::Message(within) => within.clone(),
        _ => DynamicMessage::new(inner.clone()),
    };
    let any = breaks(&mut within, path, way, row, wanted);
    if any {
        message.set_field(field, Value::Message(within));
    }
    any
}

fn above_is_top(path: &str) -> bool {
    !path.contains('.')
}

/// A well-known type with a value that it cannot have.
fn broken(of: &MessageDescriptor) -> DynamicMessage {
    let bytes = match of.full_name() {
        "google.protobuf.Timestamp" => prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -5,
        }
        .encode_to_vec(),
        "google.protobuf.FieldMask" => prost_types::FieldMask {
            paths: vec!["name".to_owned(), "nonsense".to_owned()],
        }
        .encode_to_vec(),
        "google.protobuf.Struct" => {
            let value = prost_types::Value {
                kind: Some(prost_types::value::Kind::NumberValue(f64::NAN)),
            };
            prost_types::Struct {
                fields: [("input".to_owned(), value)].into(),
            }
            .encode_to_vec()
        }
        "google.protobuf.Duration" => prost_types::Duration { seconds: -1, nanos: 0 }.encode_to_vec(),
        other => panic!("how to break {other} is not known"),
    };
    DynamicMessage::decode(of.clone(), bytes.as_slice()).expect("it is a message of this type")
}
