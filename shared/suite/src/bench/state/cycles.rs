//! What a plan and an apply take of the backend, beside the raw SQL of the same rows.
//!
//! The backend is the service, Redis, and PostgreSQL as far as it works for the service: what it does for the services that hear of a
//! cycle is theirs, is no row of raw SQL's, and is told beside.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::SMALL;
use super::content::Content;
use super::door::{Door, lock_id};
use super::raw::{Raw, Turn};
use crate::SERVICES;
use crate::bench::process::cpu_seconds;
use crate::bench::table::Table;
use crate::up::Suite;

/// How many callers there are, each with a connection and a state of its own.
const CALLERS: usize = 8;
/// How often it is each one's turn; the first time warms up.
const ROUNDS: usize = 4;

/// One caller.
struct Worker {
    door: Door,
    content: Content,
    serial: usize,
}

impl Worker {
    async fn cycle(&mut self, apply: bool) -> Result<()> {
        let (id, operation) = (
            lock_id(),
            if apply {
                "OperationTypeApply"
            } else {
                "OperationTypePlan"
            },
        );
        self.door.lock(&id, operation).await?;
        self.door.get().await?;
        if apply {
            self.serial += 1;
            self.door.post(Some(&id), self.content.version(self.serial)).await?;
        }
        self.door.unlock(&id, operation).await
    }
}

/// Measures both cycles.
pub(super) async fn measure(
    suite: &Suite,
    admin: &Client,
    dir: &Path,
    samples: usize,
    figures: &mut Table,
) -> Result<()> {
    let long = Duration::from_millis((samples as u64 * 60).clamp(1_000, 6_000));
    let mut workers = Vec::new();
    for n in 0..CALLERS {
        let state = format!("cycle-{n}");
        let mut worker = Worker {
            door: Door::open(&suite.layout.terraform(), &suite.administrator.api_key, &state, true).await?,
            content: Content::new(n as u64, SMALL),
            serial: 1,
        };
        worker.door.post(None, worker.content.version(1)).await?;
        worker.cycle(true).await?;
        workers.push(worker);
    }
    let sizes = sizes(admin).await?;
    println!(
        "a state of 100 kB is stored in {} bytes, an event in {}\n",
        sizes.0, sizes.1
    );
    let raw = Raw::prepared(suite, dir, CALLERS, sizes).await?;
    let postgres = suite
        .backing
        .postgres()
        .context("a PostgreSQL of its own")?
        .process()
        .pid();
    let redis = suite.backing.redis().context("a Redis of its own")?.process().pid();
    let roots = [suite.processes.of("terraform_state").pid(), postgres, redis];
    quiet(admin).await?;
    // As autovacuum does within a minute: plans of tables that were never analyzed say nothing of those that serve.
    admin.batch_execute("analyze").await?;
    // What the suite takes of PostgreSQL at rest is none of raw SQL's.
    let (before, rest) = (cpu_seconds(&[postgres])?, Duration::from_secs(3));
    sleep(rest).await;
    let idle = (cpu_seconds(&[postgres])? - before) / rest.as_secs_f64();
    for (apply, what) in [(false, "plan"), (true, "apply")] {
        let (mut ours, mut theirs) = (Turn::default(), Turn::default());
        for round in 0..ROUNDS {
            let turn = turn(&mut workers, apply, long, &roots, admin).await?;
            let mut sql = raw.turn(apply, long, postgres).await?;
            sql.cpu -= idle * sql.wall;
            if round > 0 {
                for (sum, turn) in [(&mut ours, turn), (&mut theirs, sql)] {
                    sum.cycles += turn.cycles;
                    sum.wall += turn.wall;
                    sum.cpu += turn.cpu;
                    sum.hearers += turn.hearers;
                }
            }
        }
        println!(
            "{what}: {:.0} cycles/s, {:.2} ms CPU each, and {:.2} ms of PostgreSQL for those who hear of it; raw SQL {:.0} cycles/s, {:.2} ms CPU each (PostgreSQL and pgbench)",
            ours.cycles / ours.wall,
            ours.cpu * 1_000.0 / ours.cycles,
            ours.hearers * 1_000.0 / ours.cycles,
            theirs.cycles / theirs.wall,
            theirs.cpu * 1_000.0 / theirs.cycles,
        );
        figures.told(
            &format!("{what} cycles in a second of CPU, 100 kB"),
            ours.cycles / ours.cpu,
        );
        figures.at_least(
            &format!("{what} cycles in a second of CPU against raw SQL"),
            0.4,
            (ours.cycles / ours.cpu) / (theirs.cycles / theirs.cpu),
            "times",
        );
    }
    Ok(())
}

/// Cycles for so long, with what follows from them: events that are relayed and kept.
async fn turn(workers: &mut [Worker], apply: bool, long: Duration, roots: &[u32], admin: &Client) -> Result<Turn> {
    let before = (cpu_seconds(roots)?, cpu_seconds(&hearers(admin).await?)?);
    let began = Instant::now();
    let made = workers.iter_mut().map(async |worker| {
        let mut made = 0_u32;
        while began.elapsed() < long {
            worker.cycle(apply).await?;
            made += 1;
        }
        anyhow::Ok(made)
    });
    let cycles = try_join_all(made).await?.iter().sum::<u32>();
    let wall = began.elapsed().as_secs_f64();
    quiet(admin).await?;
    let heard = cpu_seconds(&hearers(admin).await?)? - before.1;
    Ok(Turn {
        cycles: f64::from(cycles),
        wall,
        cpu: cpu_seconds(roots)? - before.0 - heard,
        hearers: heard,
    })
}

/// The processes of PostgreSQL that work for other services.
async fn hearers(admin: &Client) -> Result<Vec<u32>> {
    let sql = "select pid from pg_stat_activity where usename like 'board3\\_%' and usename not like 'board3\\_terraform\\_state\\_%'";
    let rows = admin.query(sql, &[]).await?;
    rows.iter()
        .map(|row| Ok(u32::try_from(row.get::<_, i32>(0))?))
        .collect()
}

/// Waits until every event has been relayed, and applied by all who listen.
async fn quiet(admin: &Client) -> Result<()> {
    let behind = SERVICES.map(|service| {
        let schema = service.slice.name;
        format!(
            "(select count(*) from {schema}.cursors c join terraform_state.relay_head h on h.source = c.source \
              where c.source = 'terraform_state' and c.position < h.position)"
        )
    });
    let waiting = format!(
        "select (select count(*) from terraform_state.outbox where position is null) + {}",
        behind.join(" + ")
    );
    let deadline = Instant::now() + Duration::from_secs(300);
    while admin.query_one(&waiting, &[]).await?.get::<_, i64>(0) > 0 {
        ensure!(Instant::now() < deadline, "events are not applied");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Bytes of the chunks of a state, and of an event, as the service writes them.
async fn sizes(admin: &Client) -> Result<(usize, usize)> {
    let sql = "select (select avg(octet_length(c.sealed))::int from terraform_state.state_chunks c
                         join terraform_state.state_versions v on v.org_id = c.org_id and v.id = c.version_id
                         join terraform_state.states s on s.org_id = v.org_id and s.id = v.state_id
                       where s.name like 'cycle-%'),
                      (select avg(octet_length(envelope))::int from terraform_state.outbox)";
    let row = admin.query_one(sql, &[]).await?;
    let (chunk, event): (i32, i32) = (row.get(0), row.get(1));
    Ok((usize::try_from(chunk)?, usize::try_from(event)?))
}
