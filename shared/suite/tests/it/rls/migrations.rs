//! Migrations go up, down and up again, and what they leave is what they left the first time.

use kit::db::migrate;
use testkit::{Role, database};
use tokio_postgres::Client;

use super::{catalog::texts, slices};

#[tokio::test]
async fn migrations_go_up_down_and_up_to_the_same_schema() {
    let all = slices();
    let database = database(&all).await;
    let admin = database.admin().await;
    for slice in all {
        let url = database.url(slice, Role::Migrate);
        let (schema, rows) = (schema(&admin, slice.name).await, seeded(&admin, slice.name).await);
        assert!(schema.len() > 50, "{}: {schema:#?}", slice.name);
        let mut reverted = migrate::revert_all(&url, slice).await.expect("migrations go down");
        let left = self::schema(&admin, slice.name).await;
        let strange: Vec<_> = left
            .iter()
            .filter(|line| !line.contains("__diesel_schema_migrations"))
            .collect();
        assert!(strange.is_empty(), "{} leaves {strange:#?}", slice.name);
        let applied = migrate::up(&url, slice).await.expect("migrations go up again");
        reverted.reverse();
        assert_eq!(applied, reverted);
        assert_eq!(self::schema(&admin, slice.name).await, schema, "{}", slice.name);
        assert_eq!(seeded(&admin, slice.name).await, rows, "{}", slice.name);
        assert_eq!(migrate::up(&url, slice).await.expect("nothing is pending"), [""; 0]);
    }
    let problems = super::catalog::problems(&admin, &super::catalog::exempt()).await;
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Everything that a schema consists of, one line each: columns, constraints, indexes, policies, rights, functions,
/// triggers and types, as PostgreSQL prints them.
async fn schema(client: &Client, slice: &str) -> Vec<String> {
    let sql = "
      with here as (select oid from pg_namespace where nspname = '{slice}'),
        tables as (select * from pg_class where relnamespace in (select oid from here) and relkind in ('r', 'p', 'v', 'm', 'S'))
      select line from (
        select format('%s %s row security %s %s options %s rights %s', relkind, relname, relrowsecurity, relforcerowsecurity,
          reloptions, array(select r::text from unnest(relacl) r order by 1)) as line from tables
        union all
        select format('column %s.%s %s %s default %s generated %s identity %s collation %s rights %s', c.relname, a.attname,
          format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attgenerated, a.attidentity,
          a.attcollation::regcollation, array(select r::text from unnest(a.attacl) r order by 1))
        from pg_attribute a join tables c on c.oid = a.attrelid left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        where a.attnum > 0 and not a.attisdropped
        union all
        select format('constraint %s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(oid))
        from pg_constraint where connamespace in (select oid from here)
        union all
        select pg_get_indexdef(indexrelid) from pg_index where indrelid in (select oid from tables)
        union all
        select format('policy %s on %s %s %s %s using %s check %s', polname, polrelid::regclass, polcmd, polpermissive,
          array(select r::regrole::text from unnest(polroles) r order by 1), pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
        from pg_policy where polrelid in (select oid from tables)
        union all
        select format('trigger %s %s', tgenabled, pg_get_triggerdef(oid)) from pg_trigger
        where tgrelid in (select oid from tables) and not tgisinternal
        union all
        select format('function %s rights %s', pg_get_functiondef(oid), array(select r::text from unnest(proacl) r order by 1))
        from pg_proc where pronamespace in (select oid from here) and prokind <> 'a'
        union all
        select format('type %s %s %s rights %s', typname, typtype, array(select enumlabel from pg_enum where enumtypid = t.oid order by enumsortorder),
          array(select r::text from unnest(typacl) r order by 1))
        from pg_type t where typnamespace in (select oid from here) and typtype in ('e', 'd')
      ) lines order by line";
    texts(client, &sql.replace("{slice}", slice)).await
}

/// The rows that migrations put into a schema, without the times and ids of the moment.
async fn seeded(client: &Client, slice: &str) -> Vec<String> {
    let tables = texts(
        client,
        &format!("select tablename::text from pg_tables where schemaname = '{slice}' and tablename <> '__diesel_schema_migrations' order by 1"),
    )
    .await;
    let mut rows = Vec::new();
    for table in tables {
        let sql = format!(
            "select '{table} ' || (to_jsonb(t) - 'created_at' - 'updated_at' - 'epoch')::text from {slice}.{table} t order by 1"
        );
        rows.extend(texts(client, &sql).await);
    }
    rows
}
