//! Every list page by page: each row of the organization exactly once, nobody else's, and tokens that open nothing else.

use std::collections::BTreeSet;

use api::policy::{METHODS, Method};
use kit::Reason;
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use super::{
    lists::{LISTS, List},
    rows,
    wire::{reply, request, set, text, types},
    world::{Tenant, World, method},
};

#[test]
fn every_rpc_with_pages_is_walked() {
    let paged = METHODS
        .iter()
        .filter(|method| types(method).0.get_field_by_name("page_token").is_some());
    let paged: BTreeSet<&str> = paged.map(|method| method.action).collect();
    assert_eq!(paged, LISTS.iter().map(|list| list.action).collect());
    let sized = METHODS
        .iter()
        .filter(|method| types(method).0.get_field_by_name("page_size").is_some());
    assert_eq!(sized.count(), paged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_shows_each_row_once_and_no_foreign_one() {
    let world = World::new().await;
    for list in LISTS {
        for tenant in [&world.a, &world.b] {
            (list.grow)(&world, tenant).await;
            world.credential(method(list.action), tenant).await;
        }
    }
    world.quiet().await;
    for list in LISTS {
        let walker = Walker::new(&world, list, &world.a).await;
        let count: i64 = world
            .admin
            .query_one(&(list.count)(&world.a), &[])
            .await
            .expect("an administrator sees everything")
            .get(0);
        let (one, _) = walker.walk(1).await;
        assert_eq!(one.len() as i64, count, "{}", list.action);
        assert!(
            one.len() >= 4,
            "{} has only {} rows to page through",
            list.action,
            one.len()
        );
        let distinct: BTreeSet<&Item> = one.iter().collect();
        assert_eq!(distinct.len(), one.len(), "{} shows a row twice", list.action);
        for size in [2, 3, 0, 1_000_000] {
            let (rows, pages) = walker.walk(size).await;
            assert_eq!(rows, one, "{} with pages of {size}", list.action);
            let full = usize::try_from(size)
                .ok()
                .filter(|size| (1..=3).contains(size))
                .unwrap_or(50);
            assert!(
                pages >= one.len().div_ceil(full.max(1)) || size == 1_000_000,
                "{} with pages of {size}",
                list.action
            );
        }
        let theirs = Walker::new(&world, list, &world.b).await.walk(1_000).await.0;
        assert!(theirs.len() >= 4);
        let shared: Vec<_> = one
            .iter()
            .filter(|item| theirs.contains(item) && !item.platform)
            .collect();
        assert!(
            shared.is_empty(),
            "{} shows {shared:?} to two organizations",
            list.action
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_opens_its_own_list_only() {
    let world = World::new().await;
    for list in LISTS {
        for tenant in [&world.a, &world.b] {
            (list.grow)(&world, tenant).await;
            world.credential(method(list.action), tenant).await;
        }
    }
    world.quiet().await;
    let mut tokens = Vec::new();
    for list in LISTS {
        let (ours, theirs) = (
            Walker::new(&world, list, &world.a).await,
            Walker::new(&world, list, &world.b).await,
        );
        tokens.push((list, ours.first_token().await, theirs.first_token().await));
    }
    for (list, token, theirs) in &tokens {
        let walker = Walker::new(&world, list, &world.a).await;
        let refused = async |what: &str, token: &str| {
            let mut message = walker.message(1, token);
            let mut answer = world
                .call(walker.method, &walker.credential, &message.encode_to_vec())
                .await;
            answer.what = format!("{} with a token {what}", list.action);
            answer.refused(Reason::PageTokenInvalid);
            // Whatever else the page may be.
            message.set_field_by_name("page_size", Value::I32(1_000_000));
            world
                .call(walker.method, &walker.credential, &message.encode_to_vec())
                .await
                .refused(Reason::PageTokenInvalid);
        };
        // The platform's keys are a list of the platform alone: both tenants are its operators there.
        if list.action != "identity.ListSigningKeys" {
            refused("of another organization", theirs).await;
        }
        for (other, of_other, _) in &tokens {
            if other.action != list.action {
                refused(&format!("of {}", other.action), of_other).await;
            }
        }
        if let Some(filter) = list.filter {
            let mut filtered = walker.message(1, "");
            filter(&mut filtered, &world.a);
            let first = reply(
                walker.method,
                world
                    .call(walker.method, &walker.credential, &filtered.encode_to_vec())
                    .await
                    .ok(),
            );
            let of_filter = text(&first, "next_page_token");
            assert!(
                !of_filter.is_empty(),
                "{} has one page under another filter",
                list.action
            );
            refused("of another filter", &of_filter).await;
            set(&mut filtered, "page_token", token);
            world
                .call(walker.method, &walker.credential, &filtered.encode_to_vec())
                .await
                .refused(Reason::PageTokenInvalid);
            set(&mut filtered, "page_token", &of_filter);
            world
                .call(walker.method, &walker.credential, &filtered.encode_to_vec())
                .await
                .ok();
        }
        let mut letters: Vec<char> = token.chars().collect();
        let middle = letters.len() / 2;
        letters[middle] = if letters[middle] == 'A' { 'B' } else { 'A' };
        refused("with a changed letter", &letters.iter().collect::<String>()).await;
        for nonsense in [
            "7",
            "!",
            "AAAA",
            &token[..token.len() - 4],
            &format!("{token}AAAA"),
            &"A".repeat(3_000),
        ] {
            refused("of nonsense", nonsense).await;
        }
        world
            .call(
                walker.method,
                &walker.credential,
                &walker.message(1_000_000, token).encode_to_vec(),
            )
            .await
            .ok();
    }
}

/// One list as one organization's caller pages through it.
struct Walker<'a> {
    world: &'a World,
    method: &'static Method,
    credential: String,
    request: DynamicMessage,
}

impl<'a> Walker<'a> {
    async fn new(world: &'a World, list: &List, tenant: &'a Tenant) -> Walker<'a> {
        let (method, row) = rows()
            .find(|(method, _)| method.action == list.action)
            .expect("a list is an RPC");
        let valid = (row.valid)(world, tenant).await;
        Walker {
            world,
            method,
            credential: match valid.caller {
                Some(caller) => caller,
                None => world.credential(method, tenant).await,
            },
            request: request(method, &valid.message),
        }
    }

    fn message(&self, size: i32, token: &str) -> DynamicMessage {
        let mut message = self.request.clone();
        message.set_field_by_name("page_size", Value::I32(size));
        set(&mut message, "page_token", token);
        message
    }

    async fn page(&self, size: i32, token: &str) -> (Vec<Item>, String) {
        let answer = self
            .world
            .call(
                self.method,
                &self.credential,
                &self.message(size, token).encode_to_vec(),
            )
            .await;
        let reply = reply(self.method, answer.ok());
        (items(&reply), text(&reply, "next_page_token"))
    }

    async fn first_token(&self) -> String {
        let (_, token) = self.page(1, "").await;
        assert!(!token.is_empty(), "{} has one page", self.method.action);
        token
    }

    /// Every row, page by page, and how many pages there were.
    async fn walk(&self, size: i32) -> (Vec<Item>, usize) {
        let (mut rows, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (some, next) = self.page(size, &token).await;
            let most = if size == 0 {
                50
            } else {
                usize::try_from(size).expect("a size").min(1_000)
            };
            assert!(
                some.len() <= most,
                "{}: {} rows in a page of {size}",
                self.method.action,
                some.len()
            );
            assert!(
                some.len() == most || next.is_empty(),
                "{}: a page of {size} ends early",
                self.method.action
            );
            rows.extend(some);
            pages += 1;
            if next.is_empty() {
                return (rows, pages);
            }
            assert!(pages < 2_000, "{} has no end", self.method.action);
            token = next;
        }
    }
}

/// The items of a page, each by what names it.
fn items(reply: &DynamicMessage) -> Vec<Item> {
    let mut lists = reply.fields().filter_map(|(_, value)| match value {
        Value::List(items) => Some(items),
        _ => None,
    });
    let items = lists.next().into_iter().flatten().filter_map(Value::as_message);
    let named = items.map(|item| {
        // Of a user, whatever their place in the organization.
        let within = item
            .get_field_by_name("user")
            .and_then(|user| user.as_message().cloned());
        let item = within.as_ref().unwrap_or(item);
        let name = ["id", "user_id", "number", "key_id", "name", "state_id"]
            .iter()
            .find_map(|name| item.get_field_by_name(name))
            .expect("an item has a name");
        let everybodys = ["Permission", "SigningKey"].contains(&item.descriptor().name());
        let flagged = |flag| {
            item.get_field_by_name(flag)
                .is_some_and(|value| value.as_bool() == Some(true))
        };
        let platform = everybodys || flagged("platform") || flagged("system");
        let name = name.as_str().map_or_else(|| format!("{name:?}"), str::to_owned);
        // Versions are numbered in each design, and resources are named in each state.
        let name = format!("{name} {} {}", text(item, "author_id"), text(item, "address"));
        Item { name, platform }
    });
    named.collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    name: String,
    platform: bool,
}
