//! Row-level security: every table of every slice stands behind the tenant's policy, letter by letter and row by row,
//! and each check is seen to fail once the policy that it watches is gone.

mod accepted;
mod behaviour;
mod catalog;
mod migrations;
mod rows;

use kit::db::migrate::Slice;
use testkit::{Database, Role, database};
use tokio_postgres::Client;

use self::{
    accepted::{POLICIES, UNWRITTEN},
    catalog::{Table, exempt, is_exempt},
    rows::Rows,
};
use crate::house::{SLICES, slice};

fn slices() -> [&'static Slice; 5] {
    SLICES.map(slice)
}

/// Tables whose rows policies guard: tenant tables, and accounts.
async fn guarded(client: &Client) -> Vec<Table> {
    let exempt = exempt();
    let own_policies = |table: &Table| POLICIES.iter().any(|policy| policy.table == table.full());
    let mut tables = catalog::tables(client).await;
    tables.retain(|table| !is_exempt(table, &exempt) || own_policies(table));
    tables
}

async fn filled() -> (Database, Client, Rows) {
    let database = database(&slices()).await;
    let admin = database.admin().await;
    let rows = Rows::read(&admin).await;
    rows.fill(&admin).await;
    (database, admin, rows)
}

#[tokio::test]
async fn every_table_stands_behind_its_policy() {
    let database = database(&slices()).await;
    let problems = catalog::problems(&database.admin().await, &exempt()).await;
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn no_role_meets_a_row_of_another_organization() {
    let (_database, admin, rows) = filled().await;
    admin.batch_execute("begin").await.expect("a transaction begins");
    let tables = guarded(&admin).await;
    assert!(tables.len() > 30, "{}", tables.len());
    let mut problems = Vec::new();
    for table in &tables {
        problems.extend(behaviour::problems(&admin, &rows, table).await);
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn a_login_that_never_entered_an_organization_sees_nothing() {
    let (database, admin, _rows) = filled().await;
    let tables = guarded(&admin).await;
    for slice in slices() {
        for role in [Role::App, Role::Worker] {
            let client = database.client(slice, role).await;
            for table in tables.iter().filter(|table| table.slice == slice.name) {
                let platform = "00000000-0000-7000-8000-000000000000";
                let sql = match table.name.as_str() {
                    "users" => "select id from identity.users".to_owned(),
                    _ if !table.org_id => format!("select user_id from {}", table.full()),
                    _ if role == Role::Worker => format!(
                        "select org_id from {} where created_at > now() - interval '1 hour'",
                        table.full()
                    ),
                    _ => format!("select org_id from {} where org_id <> '{platform}'", table.full()),
                };
                match client.query(&sql, &[]).await {
                    Ok(rows) => assert!(rows.is_empty(), "{sql} as {role:?}: {} rows", rows.len()),
                    Err(error) => {
                        let code = error.code().map(|state| state.code().to_owned());
                        let refused = code.as_deref() == Some("42501")
                            || (role == Role::Worker && code.as_deref() == Some("42703"));
                        assert!(refused, "{sql} as {role:?}: {error:?}");
                    }
                }
            }
        }
    }
}

/// A change that takes a wall away, and whether a role can tell by what it meets.
struct Mutation {
    sql: String,
    table: Option<usize>,
}

fn mutations(tables: &[Table]) -> Vec<Mutation> {
    let mut mutations = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let (full, slice) = (table.full(), &table.slice);
        let mut add = |sql: String, met: bool| {
            mutations.push(Mutation {
                sql,
                table: met.then_some(index),
            })
        };
        if table.org_id {
            add(format!("drop policy tenant on {full}"), true);
            add(format!("alter policy tenant on {full} using (true)"), true);
            add(
                format!("alter policy tenant on {full} with check (true)"),
                full != "identity.organizations" && !UNWRITTEN.contains(&full.as_str()),
            );
            add(format!("alter policy tenant on {full} to board3_{slice}_owner"), true);
            add(
                format!("create policy wider on {full} for select to board3_{slice}_app using (true)"),
                true,
            );
        }
        add(format!("drop policy owner_all on {full}"), true);
        add(format!("alter table {full} disable row level security"), true);
        // The owner's own policy shows it all rows: only the catalog tells that nothing binds it.
        add(format!("alter table {full} no force row level security"), false);
        for policy in POLICIES.iter().filter(|policy| policy.table == full) {
            add(format!("drop policy {} on {full}", policy.name), true);
            add(format!("alter policy {} on {full} using (true)", policy.name), true);
        }
    }
    mutations
}

#[tokio::test]
async fn every_policy_is_missed_once_it_is_gone() {
    let (_database, admin, rows) = filled().await;
    let tables = guarded(&admin).await;
    let exempt = exempt();
    // The copy has lost its constraints: what it breaks without a mutation is the measure.
    let before = catalog::problems(&admin, &exempt).await;
    for table in UNWRITTEN {
        let (slice, _) = table.split_once('.').expect("a table is of a slice");
        let sql = format!(
            "select bool_or(has_any_column_privilege(format('board3_{slice}_%s', role), '{table}', 'INSERT, UPDATE'))
             from unnest(array['app', 'worker']) role"
        );
        let row = admin
            .query_one(&sql, &[])
            .await
            .expect("an administrator knows all rights");
        assert!(!row.get::<_, bool>(0), "{table} is written");
    }
    let mutations = mutations(&tables);
    assert!(mutations.len() > 250, "{}", mutations.len());
    let mut unnoticed = Vec::new();
    for mutation in &mutations {
        admin
            .batch_execute(&format!("begin; {}", mutation.sql))
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", mutation.sql));
        if catalog::problems(&admin, &exempt).await == before {
            unnoticed.push(format!("by the catalog: {}", mutation.sql));
        }
        if let Some(index) = mutation.table
            && behaviour::problems(&admin, &rows, &tables[index]).await.is_empty()
        {
            unnoticed.push(format!("by what roles meet: {}", mutation.sql));
        }
        admin.batch_execute("rollback").await.expect("a transaction ends");
    }
    assert!(unnoticed.is_empty(), "of {}: {unnoticed:#?}", mutations.len());
}

/// One breach of each rule of the catalog.
const BREACHES: &[&str] = &[
    "create table designs.loose (id uuid)",
    "create table designs.loose (org_id uuid not null, id uuid); alter table designs.loose owner to board3_designs_owner",
    "create table public.loose (id uuid)",
    "drop table audit.dead_letters",
    "alter table designs.user_names drop constraint user_names_pkey; alter table designs.user_names alter column org_id drop not null",
    "create index loose_idx on designs.designs (name)",
    "alter table designs.resources add constraint loose_fkey foreign key (id) references designs.loose (id)",
    "create view designs.loose as select * from designs.designs; alter view designs.loose owner to board3_designs_owner",
    "create materialized view designs.loose as select 1; alter materialized view designs.loose owner to board3_designs_owner",
    "create function designs.loose() returns int language sql security definer as 'select 1'",
    "create function designs.loose() returns int language sql as 'select 1'; alter function designs.loose owner to board3_designs_owner",
    "alter function identity.session_state reset search_path",
    "alter function identity.session_state set search_path = public",
    "grant execute on function identity.session_state to public",
    "alter role board3_designs_app bypassrls",
    "alter role board3_designs_worker superuser",
    "alter role board3_designs_owner login",
    "alter role board3_migrate inherit",
    "grant board3_designs_owner to board3_designs_app",
    "grant truncate on designs.designs to board3_designs_app",
    "grant references on designs.designs to board3_designs_worker",
    "grant select on designs.outbox to board3_designs_app",
    "grant delete on designs.outbox to board3_designs_app",
    "revoke insert on designs.outbox from board3_designs_app",
    "grant usage on schema designs to board3_audit_app",
    "grant create on schema designs to board3_designs_app",
    "grant select on designs.designs to board3_audit_app",
    "grant select (name) on designs.designs to board3_identity_worker",
    "grant execute on function identity.session_state to board3_audit_app",
    "grant select (password_hash) on identity.users to board3_identity_app",
    "alter table designs.designs owner to board3_audit_owner",
    "do $$ begin execute format('grant temporary on database %I to board3_audit_app', current_database()); end $$",
];

#[tokio::test]
async fn every_rule_of_the_catalog_refuses_its_breach() {
    let database = database(&slices()).await;
    let admin = database.admin().await;
    admin
        .batch_execute("create table identity.near (org_id uuid not null, id uuid, primary key (org_id, id)); drop table identity.near")
        .await
        .expect("an administrator can make tables");
    for breach in BREACHES {
        // A foreign key needs its other end.
        let setting = if breach.contains("references designs.loose") {
            "create table designs.loose (id uuid primary key);"
        } else {
            ""
        };
        admin
            .batch_execute(&format!("begin; {setting} {breach}"))
            .await
            .unwrap_or_else(|error| panic!("{breach}: {error:?}"));
        assert!(!catalog::problems(&admin, &exempt()).await.is_empty(), "{breach}");
        admin.batch_execute("rollback").await.expect("a transaction ends");
    }
    for breach in [
        "alter table designs.designs add constraint loose_fkey foreign key (template_id) references designs.templates (id)",
        "alter table designs.designs drop constraint designs_template_readable",
        "alter table designs.designs add constraint loose_fkey foreign key (org_id) references identity.organizations (org_id)",
    ] {
        let setting = "alter table designs.templates add constraint loose_key unique (id);";
        admin
            .batch_execute(&format!("begin; {setting} {breach}"))
            .await
            .unwrap_or_else(|error| panic!("{breach}: {error:?}"));
        let problems = catalog::problems(&admin, &exempt()).await;
        assert!(
            problems.iter().any(|problem| problem.starts_with("foreign key")),
            "{breach}: {problems:?}"
        );
        admin.batch_execute("rollback").await.expect("a transaction ends");
    }
}
