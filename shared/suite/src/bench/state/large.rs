//! States of 10 and of 100 MB: how long they take, how much memory, and how small their history becomes.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::terraform_state::v1::DiffStateVersionsRequest;
use bytes::Bytes;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::content::Content;
use super::door::Door;
use super::{HUGE, LARGE, state_id, states};
use crate::bench::load::{millis, percentile, with};
use crate::bench::process::Memory;
use crate::bench::table::Table;
use crate::up::Suite;

/// The state of 10 MB.
const NAME: &str = "large";
/// How long the compactor may take.
const LONGEST: Duration = Duration::from_secs(900);

/// Pushes so many versions of 10 MB with small changes, pulls as often, and compares.
pub(super) async fn measure(suite: &Suite, samples: usize, figures: &mut Table) -> Result<()> {
    let (address, api_key) = (suite.layout.terraform(), &suite.administrator.api_key);
    let mut door = Door::open(&address, api_key, NAME, true).await?;
    let mut plain = Door::open(&address, api_key, NAME, false).await?;
    let mut content = Content::new(10, LARGE);
    let (mut pushed, mut pulled, mut pulled_plain) = (Vec::new(), Vec::new(), Vec::new());
    for serial in 1..=samples {
        pushed.push(timed(door.post(None, content.version(serial))).await?);
        pulled.push(timed(door.get()).await?);
        pulled_plain.push(timed(plain.get()).await?);
    }
    for (what, took) in [
        ("push", &mut pushed),
        ("pull (gzip, as Terraform asks)", &mut pulled),
        ("pull (not compressed)", &mut pulled_plain),
    ] {
        println!("{what} of 10 MB: median {:.0} ms", millis(percentile(took, 50)));
        figures.at_most(
            &format!("{what} of 10 MB, p99 of {samples}"),
            250.0,
            millis(percentile(took, 99)),
            "ms",
        );
    }
    compare(suite, samples, "whole", figures).await
}

async fn timed<T>(call: impl Future<Output = Result<T>>) -> Result<Duration> {
    let began = Instant::now();
    call.await?;
    Ok(began.elapsed())
}

/// What is different between the first and the last version.
async fn compare(suite: &Suite, samples: usize, stored: &str, figures: &mut Table) -> Result<()> {
    if samples < 2 {
        return Ok(());
    }
    let request = DiffStateVersionsRequest {
        state_id: state_id(suite, NAME).await?,
        from_version: 1,
        ..Default::default()
    };
    let mut took = Vec::new();
    for _ in 0..samples.min(20) {
        let request = with(request.clone(), &suite.administrator.api_key);
        let mut states = states(suite)?;
        let began = Instant::now();
        let answer = states.diff_state_versions(request).await?.into_inner();
        took.push(began.elapsed());
        let diff = answer.diff.context("a difference")?;
        ensure!(!diff.instances.is_empty(), "nothing is different");
    }
    println!(
        "diff of 10 MB, {stored}: median {:.0} ms",
        millis(percentile(&mut took, 50))
    );
    let what = format!("diff of two states of 10 MB, stored {stored}, p99 of {}", took.len());
    figures.at_most(&what, 300.0, millis(percentile(&mut took, 99)), "ms");
    Ok(())
}

/// Lets the compactor have the state, counts what it leaves, and compares again.
pub(super) async fn compact(suite: &Suite, admin: &Client, samples: usize, figures: &mut Table) -> Result<()> {
    let ours = "(org_id, state_id) in (select org_id, id from terraform_state.states where name = $1)";
    let bytes =
        "select sum(octet_length(c.sealed))::bigint, \
                sum(octet_length(c.sealed)) filter (where v.number = s.latest_version)::bigint
         from terraform_state.states s join terraform_state.state_versions v on v.org_id = s.org_id and v.state_id = s.id
         join terraform_state.state_chunks c on c.org_id = v.org_id and c.version_id = v.id where s.name = $1";
    let began = Instant::now();
    let due = format!("update terraform_state.compactions set due_at = clock_timestamp() where {ours}");
    admin.execute(&due, &[&NAME]).await?;
    let waiting = format!("select count(*) from terraform_state.compactions where {ours}");
    while admin.query_one(&waiting, &[&NAME]).await?.get::<_, i64>(0) > 0 {
        ensure!(began.elapsed() < LONGEST, "the compactor does not come to its end");
        sleep(Duration::from_millis(100)).await;
    }
    let row = admin.query_one(bytes, &[&NAME]).await?;
    let (all, one): (i64, i64) = (row.get(0), row.get(1));
    println!(
        "{samples} versions are stored in {all} bytes, the current one in {one}; compacted in {:.1?}",
        began.elapsed()
    );
    figures.at_most(
        &format!("{samples} versions of 10 MB, stored, against one"),
        1.5,
        all as f64 / one as f64,
        "times",
    );
    compare(suite, samples, "by others", figures).await
}

/// How much more the service holds while one state of 100 MB comes or goes.
pub(super) async fn memory(suite: &Suite, figures: &mut Table) -> Result<()> {
    let (address, api_key) = (suite.layout.terraform(), &suite.administrator.api_key);
    let pid = suite.processes.of("terraform_state").pid();
    let mut content = Content::new(100, HUGE);
    let mut most = 0.0_f64;
    for serial in 1..=2 {
        let version = Bytes::from(content.version(serial));
        for (what, gzip) in [("push", true), ("pull", true), ("pull, not compressed,", false)] {
            let mut door = Door::open(&address, api_key, "huge", gzip).await?;
            let memory = Memory::of(pid)?;
            let began = Instant::now();
            if what == "push" {
                door.post(None, version.clone()).await?;
            } else {
                door.get().await?;
            }
            println!(
                "{what} of 100 MB: {:.1} MiB more than {:.1}, in {:.1?}",
                memory.extra()?,
                memory.before(),
                began.elapsed()
            );
            most = most.max(memory.extra()?);
        }
    }
    figures.at_most("memory for a request with 100 MB", 64.0, most, "MiB");
    Ok(())
}
