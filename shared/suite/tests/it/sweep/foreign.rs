//! Another organization's ids: as if they were not there, and nothing is written anywhere.

use api::policy::Method;
use kit::Reason;
use prost::Message;
use prost_reflect::{DynamicMessage, Value};

use super::{
    Prepared, prepared,
    row::Foreign,
    wire::{reply, request, set, text},
    world::{TRAIL, World},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_organizations_ids_are_not_there() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    let mut swept = 0;
    for Prepared {
        method,
        row,
        valid,
        credential,
    } in &calls
    {
        for (field, foreign, id) in row.foreign {
            let mut message = request(method, &valid.message);
            // A template comes instead of a canvas.
            if *field == "template_id" {
                message.clear_field_by_name("canvas");
            }
            // The same message with the organization's own id is the positive control.
            let mut own = message.clone();
            set(&mut message, field, &id(&world.b));
            set(&mut own, field, &id(&world.a));
            world.quiet().await;
            let but = if matches!(foreign, Foreign::Reason(_)) {
                TRAIL
            } else {
                &[]
            };
            let before = world.tables(but).await;
            let mut answer = world.call(method, credential, &message.encode_to_vec()).await;
            answer.what = format!("{} with another organization's {field}", method.action);
            match foreign {
                Foreign::NotFound => {
                    answer.refused(Reason::ResourceNotFound);
                }
                Foreign::Reason(reason) => {
                    answer.refused(*reason);
                }
                Foreign::Silent => assert_eq!(items(&reply(method, answer.ok())), 0, "{}", answer.what),
                Foreign::Powerless => powerless(&reply(method, answer.ok()), &answer.what),
                Foreign::Answered => silent_to_peers(&reply(method, answer.ok()), &answer.what),
            }
            world.quiet().await;
            let after = world.tables(but).await;
            assert_eq!(after, before, "{} changed something", answer.what);
            if *foreign == Foreign::NotFound {
                fails_alike(&world, method, credential, &message, field).await;
            }
            if *field == "role" || *field == "template_id" {
                world.call(method, credential, &own.encode_to_vec()).await.ok();
            }
            swept += 1;
        }
    }
    assert!(swept > 20, "{swept}");
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        let fresh = calls_for_control(&world, method.path).await;
        let message = fresh.unwrap_or_else(|| valid.now());
        world.call(method, credential, &message).await.ok();
    }
}

/// The answer to another organization's id is that to an id that was never given.
async fn fails_alike(world: &World, method: &'static Method, credential: &str, message: &DynamicMessage, field: &str) {
    let asked = text(message, field);
    let none = match field {
        "role" => "only nobody's".to_owned(),
        "domain" => format!("{}.example.test", uuid::Uuid::now_v7().simple()),
        _ => uuid::Uuid::now_v7().to_string(),
    };
    let mut never = message.clone();
    set(&mut never, field, &none);
    let mut shown = Vec::new();
    for (message, id) in [(message, asked), (&never, none)] {
        let answer = world.call(method, credential, &message.encode_to_vec()).await;
        let status = testkit::render::status(answer.refused(Reason::ResourceNotFound));
        shown.push(status.replace(&id, "<asked>"));
    }
    assert_eq!(shown[0], shown[1], "{}", method.action);
}

/// A fresh message where the sweep has used up the row's own.
async fn calls_for_control(world: &World, path: &str) -> Option<Vec<u8>> {
    let (_, row) = super::rows().find(|(_, row)| row.path == path)?;
    let used = [
        "/UpdateMember",
        "/InviteMember",
        "/CreateServiceAccount",
        "/CreateDesign",
    ];
    if used.iter().any(|used| path.ends_with(used)) {
        Some((row.valid)(world, &world.a).await.message)
    } else {
        None
    }
}

/// How many items a list holds.
fn items(reply: &DynamicMessage) -> usize {
    let mut lists = reply.fields().filter_map(|(_, value)| match value {
        Value::List(items) => Some(items.len()),
        _ => None,
    });
    lists.next().unwrap_or(0)
}

/// Who belongs to another organization may nothing in this one.
fn powerless(reply: &DynamicMessage, what: &str) {
    let held = reply.get_field_by_name("permissions");
    assert!(
        held.is_none_or(|held| held.as_list().is_some_and(<[_]>::is_empty)),
        "{what}: {reply}"
    );
    let checks = reply.get_field_by_name("checks");
    let checks = checks.iter().filter_map(|checks| checks.as_list()).flatten();
    let allowed = checks
        .filter_map(Value::as_message)
        .filter_map(|check| check.get_field_by_name("allowed"));
    assert!(
        allowed.into_iter().all(|allowed| allowed.as_bool() == Some(false)),
        "{what}: {reply}"
    );
}

/// Peers are told that what does not belong together holds nothing.
fn silent_to_peers(reply: &DynamicMessage, what: &str) {
    let active = reply
        .get_field_by_name("active")
        .is_some_and(|value| value.as_bool() == Some(true));
    assert!(!active && items(reply) == 0, "{what}: {reply}");
}
