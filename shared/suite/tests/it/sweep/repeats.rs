//! Request ids: one effect and one answer, however often and at whatever moment a call is made.

use std::{collections::BTreeMap, time::Duration};

use api::policy::{METHODS, Method};
use kit::Reason;
use prost::Message;
use prost_reflect::ReflectMessage;
use tonic_types::StatusExt;

use super::{
    row::Row,
    rows,
    tables::Held,
    wire::{Answer, reply, request, set, text},
    world::World,
};
use crate::house::eventually;

/// How many calls are made at the same moment.
const AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_id_has_one_effect_and_one_answer() {
    let world = World::new().await;
    let tenant = &world.a;
    let mut swept = 0;
    // audit has told of nothing yet: the first time that a consumer hears of a service, it makes a cursor.
    let (method, row) = rows()
        .find(|(method, _)| method.action == "audit.MarkRead")
        .expect("it is an RPC");
    let valid = (row.valid)(&world, tenant).await;
    world
        .call(method, &world.credential(method, tenant).await, &valid.message)
        .await
        .ok();
    for (method, row) in rows().filter(|(method, _)| method.takes_request_id) {
        let once = (row.valid)(&world, tenant).await;
        let twins = (row.valid)(&world, tenant).await;
        let others = (row.valid)(&world, tenant).await;
        let least = world.credential(method, tenant).await;
        let caller = |valid: &super::Valid| valid.caller.clone().unwrap_or_else(|| least.clone());
        // The first call of a key exchanges it. Who comes with a session of their own needs none.
        if once.caller.is_none() {
            let _ = world.call(method, &least, &[]).await;
        }
        world.quiet().await;

        let before = world.tables(&[]).await;
        let first = world.call(method, &caller(&once), &once.message).await;
        first.ok();
        world.quiet().await;
        let after = world.tables(&[]).await;
        let effect = grown(&before, &after);
        assert!(
            effect.values().sum::<i64>() > 1,
            "{} has no effect: {effect:?}",
            method.action
        );

        if !row.last.is_empty() {
            only_once(&world, method, row, &once, &twins).await;
            swept += 1;
            continue;
        }
        // Again: the same answer, or what was made, and not a row anywhere.
        for _ in 0..2 {
            let again = world.call(method, &caller(&once), &once.message).await;
            answers_alike(method, row, &first, &again);
            if !row.left.is_empty() {
                let [was, is] = [&first, &again].map(|answer| but_for(method, row, answer).1);
                assert!(
                    was.iter().zip(&is).all(|(was, is)| is <= was),
                    "{}: {was:?}, {is:?}",
                    method.action
                );
            }
        }
        // With other arguments: refused.
        let id = text(&request(method, &once.message), "request_id");
        let mut other = request(method, once.other.as_ref().unwrap_or(&others.message));
        set(&mut other, "request_id", &id);
        // A rotation has no other arguments.
        if other.descriptor().fields().len() > 1 {
            world
                .call(method, &caller(&once), &other.encode_to_vec())
                .await
                .refused(Reason::RequestIdReused);
        }
        world.quiet().await;
        assert_eq!(world.tables(&[]).await, after, "{} again", method.action);

        // At once: the effect of one.
        let caller = caller(&twins);
        let calls = (0..AT_ONCE).map(|_| world.call(method, &caller, &twins.message));
        let answers = futures_util::future::join_all(calls).await;
        world.quiet().await;
        assert_eq!(
            grown(&after, &world.tables(&[]).await),
            effect,
            "{} {AT_ONCE} times at once",
            method.action
        );
        let (done, shown): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.result.is_ok());
        assert!(
            !done.is_empty() && (done.len() == 1 || !method.answers_secret),
            "{}: {} done",
            method.action,
            done.len()
        );
        for answer in done.iter().skip(1).chain(&shown) {
            answers_alike(method, row, done[0], answer);
        }
        swept += 1;
    }
    assert_eq!(swept, METHODS.iter().filter(|method| method.takes_request_id).count());
    assert!(swept >= 9, "{swept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_ids_of_different_callers_and_calls_do_not_meet() {
    let world = World::new().await;
    let create = super::world::method("designs.CreateDesign");
    let row = super::ROWS
        .iter()
        .find(|row| row.path == create.path)
        .expect("it has a row");
    let message = (row.valid)(&world, &world.a).await.message;
    let key = world.key(&world.a, &["designs.design.write"]).await;
    let mut made = std::collections::BTreeSet::new();
    for credential in [&world.a.owner.access, &key, &world.b.owner.access] {
        let answer = world.call(create, credential, &message).await;
        let made_here = api::designs::v1::CreateDesignResponse::decode(answer.ok()).expect("an answer of the RPC");
        assert!(made.insert(made_here.design.expect("a design").id));
    }
    // The same id for another RPC is another call.
    let id = text(&request(create, &message), "request_id");
    let invite = super::world::method("identity.InviteMember");
    let row = super::ROWS
        .iter()
        .find(|row| row.path == invite.path)
        .expect("it has a row");
    let mut message = request(invite, &(row.valid)(&world, &world.a).await.message);
    set(&mut message, "request_id", &id);
    world
        .call(invite, &world.a.owner.access, &message.encode_to_vec())
        .await
        .ok();
}

/// A call that ends its caller's right to it: a repeat is refused as any call would be, and of twins one succeeds.
async fn only_once(world: &World, method: &'static Method, row: &Row, once: &super::Valid, twins: &super::Valid) {
    let caller = |valid: &super::Valid| valid.caller.clone().expect("somebody's last call");
    let refused = async || {
        let answer = world.call(method, &caller(once), &once.message).await;
        answer.result.is_err().then_some(answer)
    };
    let answer = eventually(method.action, Duration::from_secs(20), refused).await;
    answer.refused_for(&[row.last, &[Reason::SecretAlreadyShown]].concat());
    let caller = caller(twins);
    let calls = (0..AT_ONCE).map(|_| world.call(method, &caller, &twins.message));
    let answers = futures_util::future::join_all(calls).await;
    let done: Vec<_> = answers.iter().filter(|answer| answer.result.is_ok()).collect();
    assert!(
        !done.is_empty() && (done.len() == 1 || !method.answers_secret),
        "{}: {} done",
        method.action,
        done.len()
    );
    // Those that came while the right was still there are answered alike.
    assert!(
        done.iter().all(|answer| answer.ok() == done[0].ok()),
        "{}",
        method.action
    );
    for answer in answers.iter().filter(|answer| answer.result.is_err()) {
        answer.refused_for(&[row.last, &[Reason::SecretAlreadyShown]].concat());
    }
}

/// Which tables have more rows, and how many.
fn grown(before: &Held, after: &Held) -> BTreeMap<String, i64> {
    let grown = after
        .iter()
        .map(|(table, (rows, _))| (table.clone(), rows - before[table].0));
    grown.filter(|(_, rows)| *rows != 0).collect()
}

/// An answer without what is left of something, and how much that is.
fn but_for(method: &'static Method, row: &Row, answer: &Answer) -> (Vec<u8>, Vec<Duration>) {
    if row.left.is_empty() {
        return (answer.ok().to_vec(), Vec::new());
    }
    let mut message = reply(method, answer.ok());
    let mut left = Vec::new();
    for name in row.left {
        let value = message
            .get_field_by_name(name)
            .expect("the answer has the field")
            .into_owned();
        let value = value
            .as_message()
            .expect("it is a Duration")
            .transcode_to::<prost_types::Duration>();
        let value = value.ok().and_then(|value| Duration::try_from(value).ok());
        left.push(value.expect("nothing negative is left"));
        message.clear_field_by_name(name);
    }
    (message.encode_to_vec(), left)
}

/// The repeat's answer is the first one's, or names what that one made.
fn answers_alike(method: &'static Method, row: &Row, first: &Answer, again: &Answer) {
    if !method.answers_secret {
        assert_eq!(
            but_for(method, row, first).0,
            but_for(method, row, again).0,
            "{}",
            method.action
        );
        return;
    }
    let made = reply(method, first.ok());
    let id = match made
        .get_field_by_name("api_key")
        .as_deref()
        .and_then(|key| key.as_message())
    {
        Some(key) => text(key, "id"),
        None => text(&made, "invitation_id"),
    };
    let details = again.refused(Reason::SecretAlreadyShown).get_error_details();
    let told = details
        .error_info()
        .and_then(|info| info.metadata.get("resource_id").cloned());
    assert_eq!(told, Some(id), "{}", method.action);
}
