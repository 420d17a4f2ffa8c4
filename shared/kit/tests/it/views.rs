//! Views and the changes of what they show, each race played step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures_util::future::join_all;
use kit::{
    Result, failpoint,
    redis::Redis,
    views::{View, Views},
};
use testkit::serve::Served;
use tokio::sync::oneshot;

use crate::{database::COUNTED, own_redis};

/// Two rows, of which a view shows the first one's value.
#[derive(Clone)]
struct World {
    served: Arc<Served>,
    views: Views<u8>,
    row: Arc<AtomicU8>,
}

fn open(body: &[u8]) -> Option<u8> {
    body.first().copied()
}

impl World {
    async fn open(name: &'static str) -> World {
        let served = testkit::serve::serve(COUNTED).await;
        World {
            views: Views::new(served.running.kit.redis.clone(), name),
            served: Arc::new(served),
            row: Arc::default(),
        }
    }

    async fn load(&self) -> Result<Option<View<u8>>> {
        let value = self.row.load(Ordering::SeqCst);
        Ok(Some(View {
            value,
            body: vec![value],
            shows: vec!["row.1".to_owned(), "row.2".to_owned()],
        }))
    }

    async fn read(&self) -> u8 {
        let view = self.views.get_or_load("user", open, || self.load()).await.unwrap();
        *view.unwrap()
    }

    /// A transaction that makes the row the next one and says so, or fails afterwards.
    async fn change(&self, named: &str, commits: bool) {
        let kit = &self.served.running.kit;
        let scope = kit.scope();
        let written = kit.worker.read(&scope, async |tx| {
            self.row.fetch_add(1, Ordering::SeqCst);
            tx.changes(named.to_owned());
            match commits {
                true => Ok(()),
                false => Err(kit::Error::internal("given up")),
            }
        });
        assert_eq!(written.await.is_ok(), commits);
    }

    /// What is read after a reader took the old row and stalled, the row changed, and the reader went on.
    async fn read_after_a_stalled_reader(&self) -> u8 {
        let (stalled, arrived) = oneshot::channel();
        let (go_on, gone_on) = oneshot::channel::<()>();
        let world = self.clone();
        let stalling = tokio::spawn(async move {
            let load = || async {
                let old = world.load().await;
                stalled.send(()).unwrap();
                gone_on.await.unwrap();
                old
            };
            world.views.get_or_load("user", open, load).await.unwrap();
        });
        arrived.await.unwrap();
        self.change("row.1", true).await;
        go_on.send(()).unwrap();
        stalling.await.unwrap();
        self.read().await
    }
}

#[tokio::test]
async fn a_view_is_kept_until_something_that_it_shows_has_changed() {
    let world = World::open("test.kept").await;
    assert_eq!(world.read().await, 0);
    world.change("row.3", true).await;
    assert_eq!(world.read().await, 0, "it does not show this");
    world.change("row.2", false).await;
    assert_eq!(world.read().await, 0, "what is rolled back has not changed");
    world.change("row.2", true).await;
    assert_eq!(world.read().await, 3);
    world.change("row.1", true).await;
    assert_eq!(world.read().await, 4);
}

#[tokio::test]
async fn what_another_process_changes_or_stores_is_seen() {
    let world = World::open("test.others").await;
    let other = World {
        views: Views::new(world.served.running.kit.redis.clone(), "test.others"),
        ..world.clone()
    };
    assert_eq!((world.read().await, other.read().await), (0, 0));
    world.change("row.1", true).await;
    assert_eq!((other.read().await, world.read().await), (1, 1));
    // Stored once for both.
    let hits = |world: &World| world.views.stats().hits.load(Ordering::SeqCst);
    assert_eq!(hits(&world), 2);
}

#[tokio::test]
async fn what_a_stalled_reader_stores_is_void() {
    let world = World::open("test.stalled").await;
    assert_eq!(world.read_after_a_stalled_reader().await, 1);
}

#[tokio::test]
async fn without_the_look_at_changes_what_a_stalled_reader_stores_is_shown() {
    let _without = failpoint::switch_off("view_changes.test.unlooked");
    let world = World::open("test.unlooked").await;
    assert_eq!(world.read_after_a_stalled_reader().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_reads_at_once_each_is_answered_its_own() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    let views = Views::new(redis, "test.many");
    let read = async |user: u8, row: u8| {
        let load = || async move {
            Ok(Some(View {
                value: row,
                body: vec![row],
                shows: vec![format!("row.{user}"), "row.of.all".to_owned()],
            }))
        };
        *views.get_or_load(&user.to_string(), open, load).await.unwrap().unwrap()
    };
    for user in 0..50 {
        assert_eq!(read(user, user).await, user);
    }
    // What is kept is answered, whatever the rows say by now.
    let users = (0..1_000_u32).map(|n| u8::try_from(n % 50).unwrap());
    let answers = join_all(users.clone().map(|user| read(user, 255))).await;
    assert!(answers.into_iter().eq(users));
    assert_eq!(views.stats().hits.load(Ordering::SeqCst), 1_000);
}

#[tokio::test]
async fn with_redis_away_the_rows_are_read() {
    let server = own_redis().await;
    let views = Views::new(Redis::connect(&server.url(), "board3.a").unwrap(), "test.away");
    let read = async |value: u8| {
        let load = || async move {
            Ok(Some(View {
                value,
                body: vec![value],
                shows: Vec::new(),
            }))
        };
        *views.get_or_load("user", open, load).await.unwrap().unwrap()
    };
    assert_eq!((read(1).await, read(2).await), (1, 1));
    server.process().kill().await.unwrap();
    assert_eq!(read(2).await, 2);
}
