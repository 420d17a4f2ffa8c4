//! The rows of a cycle, read and written by pgbench: what PostgreSQL alone does.
//!
//! The tables, indexes and policies are the service's own, in a database beside the suite's; the role is the service's, and the
//! statements are those of the service, in as many transactions.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::db::migrate;
use tokio::process::Command;
use tokio_postgres::NoTls;

use crate::backing::as_role;
use crate::bench::process;
use crate::up::Suite;

/// The database's name.
const DATABASE: &str = "raw";
/// The organization of its rows, and their author.
const ORG: &str = "0197a000-0000-7000-8000-000000000001";
const AUTHOR: &str = "0197a000-0000-7000-8000-000000000002";

const BEGIN: &str = "begin;
select set_config('app.org', 'ORG', true), set_config('app.user', '', true), set_config('statement_timeout', '30000', true);
";
const LOCK: &str = "select * from terraform_state.states where org_id = 'ORG' and name = 'raw-' || :client_id::text for update \\gset s_
insert into terraform_state.state_locks
  (org_id, state_id, lock_id, operation, who, info, terraform_version, holder_kind, holder_id, maintenance_reason)
  values ('ORG', :s_id, gen_random_uuid()::text, 'OperationTypeApply', 'ada@bench', '', '1.11.4', 'key', 'AUTHOR', '')
  on conflict (org_id, state_id) do nothing returning *;
insert into terraform_state.outbox (event_id, org_id, envelope) values (gen_random_uuid(), 'ORG', :envelope::bytea);
commit;
";
const GET: &str = "select s.*, v.*, l.*, v.id as version_id, s.id as state_id from terraform_state.states s
  left join terraform_state.state_versions v on v.org_id = s.org_id and v.state_id = s.id and v.number = s.latest_version
  left join terraform_state.state_locks l on l.org_id = s.org_id and l.state_id = s.id
  where s.org_id = 'ORG' and s.name = 'raw-' || :client_id::text \\gset g_
select sealed from terraform_state.state_chunks where org_id = 'ORG' and version_id = :g_version_id and place = 0;
update terraform_state.state_locks set last_seen_at = clock_timestamp()
  where org_id = 'ORG' and state_id = :g_state_id and holder_kind = 'key' and holder_id = 'AUTHOR' returning *;
insert into terraform_state.outbox (event_id, org_id, envelope) values (gen_random_uuid(), 'ORG', :envelope::bytea);
commit;
";
const POST: &str = "select * from terraform_state.states where org_id = 'ORG' and name = 'raw-' || :client_id::text for update \\gset s_
update terraform_state.state_locks set last_seen_at = clock_timestamp()
  where org_id = 'ORG' and state_id = :s_id and holder_kind = 'key' and holder_id = 'AUTHOR' returning lock_id \\gset l_
select * from terraform_state.state_versions where org_id = 'ORG' and state_id = :s_id and number = :s_latest_version;
with version as (
  insert into terraform_state.state_versions
    (org_id, state_id, number, id, serial, lineage, kind, size_bytes, chunks, content_hash, terraform_version, resource_count, blank,
     author_kind, author_id, lock_id, body_id, data_key, stored_bytes)
    values ('ORG', :s_id, :s_latest_version::bigint + 1, gen_random_uuid(), :s_latest_version::bigint + 1, 'lineage', 'normal', 100000, 1,
     decode(repeat('ab', 32), 'hex'), '1.11.4', 50, false, 'key', 'AUTHOR', :l_lock_id::text, gen_random_uuid(),
     decode(repeat('ab', 149), 'hex'), octet_length(:blob::bytea)) returning id, created_at
), chunk as (
  insert into terraform_state.state_chunks (org_id, version_id, place, sealed) select 'ORG', id, 0, :blob::bytea from version
), state as (
  update terraform_state.states set latest_version = latest_version + 1, greatest_serial = greatest_serial + 1,
    updated_at = clock_timestamp(), stored_bytes = stored_bytes + octet_length(:blob::bytea) where org_id = 'ORG' and id = :s_id
), compaction as (
  insert into terraform_state.compactions (org_id, state_id, due_at) values ('ORG', :s_id, now() + interval '1 day') on conflict do nothing
)
select version.created_at, limits.state_bytes, limits.stored_bytes
from version left join terraform_state.organization_limits limits on limits.org_id = 'ORG';
insert into terraform_state.outbox (event_id, org_id, envelope)
  values (gen_random_uuid(), 'ORG', :envelope::bytea), (gen_random_uuid(), 'ORG', :envelope::bytea);
commit;
";
const UNLOCK: &str = "select * from terraform_state.states where org_id = 'ORG' and name = 'raw-' || :client_id::text for update \\gset s_
with ended as (
  delete from terraform_state.state_locks where org_id = 'ORG' and state_id = :s_id returning *
), kept as (
  insert into terraform_state.lock_history
    (org_id, id, state_id, lock_id, operation, who, info, terraform_version, holder_kind, holder_id, created_at, last_seen_at,
     maintenance_reason, execution_id, ending, ended_by_kind, ended_by_id, ended_reason)
  select org_id, gen_random_uuid(), state_id, lock_id, operation, who, info, terraform_version, holder_kind, holder_id, created_at,
    last_seen_at, maintenance_reason, execution_id, 'released', 'key'::terraform_state.principal_kind, 'AUTHOR'::uuid, '' from ended
)
update terraform_state.states s set released_lock_id = ended.lock_id, released_by_force = false, released_reason = '',
  released_by_kind = 'key', released_by_id = 'AUTHOR', released_at = clock_timestamp()
from ended where s.org_id = 'ORG' and s.id = :s_id;
insert into terraform_state.outbox (event_id, org_id, envelope) values (gen_random_uuid(), 'ORG', :envelope::bytea);
commit;
";
/// A state of each caller, with the version that the first cycle reads.
const STATES: &str = "insert into terraform_state.states (org_id, id, name, latest_version, greatest_serial, stored_bytes)
  select 'ORG', gen_random_uuid(), 'raw-' || n, 1, 1, length('BLOB') / 2 from generate_series(0, LAST) n;
insert into terraform_state.state_versions
  (org_id, state_id, number, id, serial, lineage, kind, size_bytes, chunks, content_hash, terraform_version, resource_count, blank,
   author_kind, author_id, data_key, stored_bytes)
  select 'ORG', id, 1, gen_random_uuid(), 1, 'lineage', 'normal', 100000, 1, decode(repeat('ab', 32), 'hex'), '1.11.4', 50, false,
   'key', 'AUTHOR', decode(repeat('ab', 149), 'hex'), length('BLOB') / 2 from terraform_state.states;
insert into terraform_state.state_chunks (org_id, version_id, place, sealed)
  select 'ORG', id, 0, decode('BLOB', 'hex') from terraform_state.state_versions;
";

/// The database, and what goes into it.
pub(super) struct Raw {
    url: String,
    callers: usize,
    blob: String,
    envelope: String,
    plan: std::path::PathBuf,
    apply: std::path::PathBuf,
}

/// What a turn came to.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    pub(super) cycles: f64,
    pub(super) wall: f64,
    pub(super) cpu: f64,
    /// What PostgreSQL took for services that heard of it.
    pub(super) hearers: f64,
}

impl Raw {
    /// Makes the database; chunks and events are as long as those that the service writes.
    pub(super) async fn prepared(
        suite: &Suite,
        dir: &Path,
        callers: usize,
        (chunk, event): (usize, usize),
    ) -> Result<Raw> {
        let postgres = suite.backing.postgres().context("the bench's PostgreSQL is its own")?;
        let admin_url = postgres.url("postgres", DATABASE);
        let (client, connection) = tokio_postgres::connect(suite.backing.admin_url(), NoTls).await?;
        let connection = tokio::spawn(connection);
        client.batch_execute(&format!("create database {DATABASE}")).await?;
        drop(client);
        connection.await??;
        let slice = terraform_state::SERVICE.slice;
        migrate::prepare(&admin_url).await?;
        migrate::up(&as_role(&admin_url, "board3_migrate", None)?, slice).await?;
        let noise = |length: usize| {
            let mut bytes = vec![0; length];
            blake3::Hasher::new().finalize_xof().fill(&mut bytes);
            hex::encode(bytes)
        };
        let (blob, envelope) = (noise(chunk), noise(event));
        let (client, connection) = tokio_postgres::connect(&admin_url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let last = (callers - 1).to_string();
        client
            .batch_execute(&named(STATES).replace("LAST", &last).replace("BLOB", &blob))
            .await?;
        client.batch_execute("analyze").await?;
        drop(client);
        connection.await??;
        let write = |name: &str, parts: &[&str]| -> Result<_> {
            let path = dir.join(name);
            std::fs::write(&path, named(&parts.concat()))?;
            Ok(path)
        };
        Ok(Raw {
            url: postgres.url(&slice.app(), DATABASE),
            callers,
            blob,
            envelope,
            plan: write("plan.sql", &[BEGIN, LOCK, BEGIN, GET, BEGIN, UNLOCK])?,
            apply: write("apply.sql", &[BEGIN, LOCK, BEGIN, GET, BEGIN, POST, BEGIN, UNLOCK])?,
        })
    }

    /// Runs cycles for so long; the CPU time is PostgreSQL's and pgbench's, which stands for the service.
    pub(super) async fn turn(&self, apply: bool, long: Duration, postgres: u32) -> Result<Turn> {
        let program = testkit::servers::postgres_program("pgbench").context("pgbench is missing")?;
        let before = process::cpu_seconds(&[postgres])? + process::ended_seconds()?;
        let output = Command::new(program)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
            .arg(format!("--client={}", self.callers))
            .arg(format!("--time={}", long.as_secs().max(1)))
            .arg(format!("--define=blob=\\x{}", self.blob))
            .arg(format!("--define=envelope=\\x{}", self.envelope))
            .arg("--file")
            .arg(if apply { &self.apply } else { &self.plan })
            .arg(&self.url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "pgbench failed: {err}");
        let number = |what: &str| -> Result<f64> {
            let line = out.lines().find_map(|line| line.strip_prefix(what));
            let word = line.and_then(|line| line.split_whitespace().next());
            Ok(word
                .with_context(|| format!("pgbench does not tell {what}: {out}"))?
                .parse()?)
        };
        let cycles = number("number of transactions actually processed:")?;
        Ok(Turn {
            cycles,
            wall: cycles / number("tps =")?,
            cpu: process::cpu_seconds(&[postgres])? + process::ended_seconds()? - before,
            hearers: 0.0,
        })
    }
}

fn named(sql: &str) -> String {
    sql.replace("ORG", ORG).replace("AUTHOR", AUTHOR)
}
