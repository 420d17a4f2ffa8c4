//! Each test has a migrated database of its own, in which every role may do what it must and nothing else.

use diesel_migrations::EmbeddedMigrations;
use kit::db::migrate::{self, Slice};
use testkit::servers::{Place, Postgres};
use testkit::{Database, Role, database};
use tokio_postgres::{Client, NoTls};

/// Slices with kit's migrations alone.
static DESIGNS: Slice = Slice {
    name: "designs",
    migrations: EmbeddedMigrations::new(&[]),
};
static AUDIT: Slice = Slice {
    name: "audit",
    migrations: EmbeddedMigrations::new(&[]),
};

const ADA: &str = "01900000-0000-7000-8000-00000000000a";
const BOB: &str = "01900000-0000-7000-8000-00000000000b";

async fn one(client: &Client, sql: &str) -> String {
    client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        .get(0)
}

/// The error's SQLSTATE.
async fn refused(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().expect("an answer of the server").code().to_owned()
}

fn enter(org: &str) -> String {
    format!("select set_config('app.org', '{org}', false)")
}

fn request(org: &str, age: &str) -> String {
    format!(
        "insert into requests (org_id, principal, method, request_id, arguments_hash, created_at)
         values ('{org}', 'user', 'm', gen_random_uuid(), decode(repeat('00', 32), 'hex'), now() - interval '{age}')"
    )
}

#[tokio::test]
async fn two_databases_share_neither_rows_nor_instance() {
    let slices = [&DESIGNS];
    let (a, b) = tokio::join!(database(&slices), database(&slices));
    let (in_a, in_b) = (a.admin().await, b.admin().await);
    in_a.batch_execute("create table mine ()").await.unwrap();
    let tables = "select count(*)::text from pg_tables where tablename = 'mine'";
    assert_eq!(
        (one(&in_a, tables).await, one(&in_b, tables).await),
        ("1".into(), "0".into())
    );
    let instance = "select id from board3.instance";
    assert_ne!(one(&in_a, instance).await, one(&in_b, instance).await);
    let as_app = a.client(&DESIGNS, Role::App).await;
    assert_eq!(one(&as_app, instance).await, one(&in_a, instance).await);
}

#[tokio::test]
async fn a_dropped_database_is_gone_from_the_server() {
    let (kept, gone) = (database(&[&DESIGNS]).await, database(&[&DESIGNS]).await);
    let _still_connected = gone.admin().await;
    let count = format!(
        "select count(*)::text from pg_database where datname = '{}'",
        gone.name()
    );
    drop(gone);
    assert_eq!(one(&kept.admin().await, &count).await, "0");
}

#[tokio::test]
async fn kits_migrations_go_up_down_and_up() {
    let database = database(&[&DESIGNS]).await;
    let (migrate, app) = (database.url(&DESIGNS, Role::Migrate), database.url(&DESIGNS, Role::App));
    assert!(!migrate::pending(&app, &DESIGNS).await.unwrap());
    assert_eq!(migrate::up(&migrate, &DESIGNS).await.unwrap(), [""; 0]);
    assert_eq!(migrate::revert_all(&migrate, &DESIGNS).await.unwrap(), ["K0001"]);
    let left = "select count(*)::text from pg_class where relnamespace = 'designs'::regnamespace
                and relname not like '\\_\\_diesel%'";
    assert_eq!(one(&database.admin().await, left).await, "0");
    assert!(migrate::pending(&app, &DESIGNS).await.unwrap());
    assert_eq!(migrate::up(&migrate, &DESIGNS).await.unwrap(), ["K0001"]);
    assert!(
        !migrate::pending(&database.url(&DESIGNS, Role::Worker), &DESIGNS)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_slice_that_was_never_migrated_is_pending() {
    let database = database(&[&DESIGNS]).await;
    assert!(
        migrate::pending(&database.url(&AUDIT, Role::App), &AUDIT)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn two_processes_that_migrate_at_once_run_each_migration_once() {
    let database = database(&[&DESIGNS]).await;
    let url = database.url(&AUDIT, Role::Migrate);
    let (a, b) = tokio::join!(migrate::up(&url, &AUDIT), migrate::up(&url, &AUDIT));
    let mut ran = a.unwrap();
    ran.extend(b.unwrap());
    assert_eq!(ran, ["K0001"]);
}

#[tokio::test]
async fn preparing_again_and_at_once_changes_nothing() {
    let database = database(&[&DESIGNS]).await;
    let admin = database.admin().await;
    let before = one(&admin, "select id from board3.instance").await;
    let url = database.admin_url();
    let (a, b) = tokio::join!(migrate::prepare(&url), migrate::prepare(&url));
    a.unwrap();
    b.unwrap();
    assert_eq!(one(&admin, "select id from board3.instance").await, before);
}

#[tokio::test]
async fn new_databases_of_a_new_server_can_be_prepared_at_once() {
    let server = Postgres::start(Place::Scratch).await.unwrap();
    let admin = connect(&server.admin_url()).await;
    let mut preparations = tokio::task::JoinSet::new();
    for n in 0..6 {
        admin.batch_execute(&format!("create database d{n}")).await.unwrap();
        let url = server.url("postgres", &format!("d{n}"));
        preparations.spawn(async move { migrate::prepare(&url).await });
    }
    for prepared in preparations.join_all().await {
        prepared.unwrap();
    }
    let up = migrate::up(&server.url("board3_migrate", "d3"), &DESIGNS).await;
    assert_eq!(up.unwrap(), ["K0001"]);

    let url = server.url("postgres", "d0");
    admin
        .batch_execute("alter role board3_audit_app bypassrls")
        .await
        .unwrap();
    let refused = std::error::Error::source(&migrate::prepare(&url).await.unwrap_err()).map(|e| format!("{e:?}"));
    assert!(refused.unwrap().contains("board3_audit_app has an attribute"));
    admin
        .batch_execute("alter role board3_audit_app nobypassrls; grant board3_designs_app to board3_audit_app")
        .await
        .unwrap();
    let refused = std::error::Error::source(&migrate::prepare(&url).await.unwrap_err()).map(|e| format!("{e:?}"));
    assert!(refused.unwrap().contains("member of board3_designs_app"));
}

#[tokio::test]
async fn an_administrator_without_superuser_rights_can_prepare() {
    let server = Postgres::start(Place::Scratch).await.unwrap();
    let admin = connect(&server.admin_url()).await;
    admin
        .batch_execute("create role operator login createrole createdb")
        .await
        .unwrap();
    connect(&server.url("operator", "postgres"))
        .await
        .batch_execute("create database b3")
        .await
        .unwrap();
    for _ in 0..2 {
        migrate::prepare(&server.url("operator", "b3")).await.unwrap();
    }
    assert_eq!(
        migrate::up(&server.url("board3_migrate", "b3"), &AUDIT).await.unwrap(),
        ["K0001"]
    );
}

#[tokio::test]
async fn an_unreachable_database_is_an_error_without_its_url() {
    let error = migrate::prepare("postgresql://someone:secret@127.0.0.1:1/db")
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the database cannot be reached for migrations");
    assert!(!format!("{error:?}").contains("secret"));
    let error = migrate::up("postgresql://someone:secret@127.0.0.1:1/db", &DESIGNS)
        .await
        .unwrap_err();
    assert!(matches!(error, migrate::Error::Connect(_)) && !format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn a_tenant_table_shows_the_rows_of_one_organization() {
    let database = database(&[&DESIGNS]).await;
    let app = database.client(&DESIGNS, Role::App).await;
    assert_eq!(
        refused(&app, &request(ADA, "0 s")).await,
        "42501",
        "no organization entered, none written"
    );
    for org in [ADA, BOB] {
        app.batch_execute(&enter(org)).await.unwrap();
        app.batch_execute(&request(org, "0 s")).await.unwrap();
    }
    assert_eq!(
        refused(&app, &request(ADA, "0 s")).await,
        "42501",
        "another organization's row"
    );
    let seen = "select coalesce(string_agg(org_id::text, ','), '') from requests";
    assert_eq!(one(&app, seen).await, BOB);
    app.batch_execute("select set_config('app.org', '', false)")
        .await
        .unwrap();
    assert_eq!(one(&app, seen).await, "");

    let owner = owner(&database).await;
    assert_eq!(
        one(&owner, "select count(*)::text from designs.requests").await,
        "2",
        "the owner migrates all rows"
    );
    let error = refused(
        &owner,
        "create table designs.loose (id uuid); select board3.tenant_table('designs.loose')",
    )
    .await;
    assert_eq!(error, "P0001", "a tenant table has org_id");
}

#[tokio::test]
async fn each_role_of_a_slice_has_its_own_rights_and_no_more() {
    let database = database(&[&DESIGNS, &AUDIT]).await;
    let app = database.client(&DESIGNS, Role::App).await;
    let event = format!("insert into outbox (event_id, org_id, envelope) values (gen_random_uuid(), '{ADA}', '')");
    app.batch_execute(&event).await.unwrap();
    let denied = "42501";
    for sql in [
        "select from outbox",
        "update outbox set position = 1",
        "delete from outbox",
        "select from relay_head",
        "select from inbox",
        "select from cursors",
        "select from dead_letters",
        "select from audit.outbox",
        "update board3.instance set id = 'mine'",
        "create table mine ()",
        "create table public.mine ()",
        "create temp table mine ()",
        "set role board3_designs_owner",
        "set role board3_designs_worker",
        "select board3.tenant_table('designs.requests')",
    ] {
        assert_eq!(refused(&app, sql).await, denied, "{sql}");
    }

    app.batch_execute(&enter(ADA)).await.unwrap();
    app.batch_execute(&request(ADA, "25 h")).await.unwrap();
    app.batch_execute(&request(ADA, "23 h")).await.unwrap();
    let worker = database.client(&DESIGNS, Role::Worker).await;
    worker.batch_execute("update outbox set position = 1").await.unwrap();
    assert_eq!(one(&worker, "select source from relay_head").await, "designs");
    for sql in [
        "delete from outbox",
        "update outbox set envelope = ''",
        "select response from requests",
    ] {
        assert_eq!(refused(&worker, sql).await, denied, "{sql}");
    }
    assert_eq!(
        worker
            .execute("delete from requests where created_at < now()", &[])
            .await
            .unwrap(),
        1
    );
    assert_eq!(one(&app, "select count(*)::text from requests").await, "1");

    let migrate = database.client(&DESIGNS, Role::Migrate).await;
    assert_eq!(
        refused(&migrate, "select from designs.outbox").await,
        denied,
        "it inherits nothing"
    );
    assert_eq!(refused(&migrate, "set role postgres").await, denied);
}

#[tokio::test]
async fn an_envelope_over_64_kib_is_refused() {
    let database = database(&[&DESIGNS]).await;
    let app = database.client(&DESIGNS, Role::App).await;
    let event = |size: usize| {
        format!(
            "insert into outbox (event_id, org_id, envelope) values (gen_random_uuid(), '{ADA}', decode(repeat('00', {size}), 'hex'))"
        )
    };
    app.batch_execute(&event(65_536)).await.unwrap();
    assert_eq!(refused(&app, &event(65_537)).await, "23514");
}

async fn owner(database: &Database) -> Client {
    let owner = database.client(&DESIGNS, Role::Migrate).await;
    owner.batch_execute("set role board3_designs_owner").await.unwrap();
    owner
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
