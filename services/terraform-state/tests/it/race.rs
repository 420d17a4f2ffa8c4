//! Many callers, several replicas, one lock.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::Barrier;

use crate::world::{EVERYTHING, Http, WORK, World, id, state};

const CALLERS: usize = 100;
const ROUNDS: usize = 3;

/// Asks for a lock until it is given or refused: what is overloaded is asked again, as Terraform does.
async fn race(http: &Http, name: &str, lock: &str) -> u16 {
    for _ in 0..20 {
        let status = http.lock(name, lock).await.status;
        if status != 503 {
            return status;
        }
    }
    503
}

#[tokio::test]
async fn of_a_hundred_callers_at_three_replicas_one_wins_each_round_and_who_is_fenced_writes_nothing() {
    let world = World::new().await;
    let few = [
        ("DATABASE_CONNECTIONS", "6"),
        ("BOARD3_TERRAFORM_LISTEN", "127.0.0.1:0"),
    ];
    let (second, third) = (world.replica(&few).await, world.replica(&few).await);
    let doors: [SocketAddr; 3] = [world.door(), second.doors[0], third.doors[0]];
    let at = |http: &Http, n: usize| Http {
        door: doors[n % doors.len()],
        ..http.clone()
    };
    let callers: Vec<Http> = (0..CALLERS).map(|n| at(&world.http(&WORK), n)).collect();
    let force = world.http(&EVERYTHING);
    let mut fenced: Option<(Http, String)> = None;
    for round in 0..ROUNDS {
        let start = Arc::new(Barrier::new(CALLERS));
        let racing = callers.iter().map(|http| {
            let (http, start, lock) = (http.clone(), start.clone(), id());
            tokio::spawn(async move {
                start.wait().await;
                (race(&http, "prod", &lock).await, http, lock)
            })
        });
        let racing: Vec<_> = racing.collect();
        let mut winners = Vec::new();
        for caller in racing {
            let (status, http, lock) = caller.await.unwrap();
            match status {
                200 => winners.push((http, lock)),
                other => assert_eq!(other, 423),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        let (winner, lock) = winners.remove(0);
        // Who held it before writes nothing any more, wherever it comes.
        if let Some((before, old)) = &fenced {
            for n in 0..doors.len() {
                let late = at(before, n).post("prod", old, &state(90, "l", "late")).await;
                assert_eq!((late.status, late.reason().as_str()), (409, "LOCK_MISMATCH"));
            }
        }
        let serial = u64::try_from(round).unwrap() + 1;
        assert_eq!(winner.post("prod", &lock, &state(serial, "l", "x")).await.status, 200);
        // By its id, as OpenTofu does: one without would pass for the repeat of the round before.
        let bare = format!(r#"{{"ID":"{lock}"}}"#);
        assert_eq!(
            force.ask("UNLOCK", "/v1/states/prod", bare.as_bytes()).await.status,
            200
        );
        let late = winner.post("prod", &lock, &state(serial + 1, "l", "late")).await;
        assert_eq!(late.status, 409);
        fenced = Some((winner, lock));
    }
    assert_eq!(world.versions("prod").await, i64::try_from(ROUNDS).unwrap());
    let taken = "select count(*) from lock_history where ending = 'forced'";
    assert_eq!(world.number(taken).await, i64::try_from(ROUNDS).unwrap());
}
