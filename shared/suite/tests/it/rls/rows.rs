//! Rows for any table, made from the catalog alone: types, enums and foreign keys.
//!
//! A value is a function of the column that its foreign keys lead to, of the organization and of a number:
//! so rows of one organization and number belong together, and no two organizations share a value.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;

/// Whose rows they are. `None` is a row's organization only in the platform's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) org: Uuid,
}

/// Two organizations, and the platform.
pub(crate) const ADA: Whose = Whose {
    org: Uuid::from_u128(0x01900000_0000_7000_8000_00000000000a),
};
pub(crate) const BOB: Whose = Whose {
    org: Uuid::from_u128(0x01900000_0000_7000_8000_00000000000b),
};
pub(crate) const PLATFORM: Whose = Whose {
    org: Uuid::from_u128(0x00000000_0000_7000_8000_000000000000),
};

/// The rows that each organization has in a filled table: number 0 is two days old, number 1 is new.
pub(crate) const NUMBERS: [u32; 2] = [0, 1];

struct Column {
    name: String,
    base: String,
    array: bool,
    label: Option<String>,
}

/// How rows of every table of the slices are made.
pub(crate) struct Rows {
    columns: BTreeMap<String, Vec<Column>>,
    /// `(table, column)` and the one that its foreign key leads to.
    leads_to: BTreeMap<(String, String), (String, String)>,
}

impl Rows {
    /// Reads the catalog.
    pub(crate) async fn read(client: &Client) -> Rows {
        let mut columns: BTreeMap<String, Vec<Column>> = BTreeMap::new();
        let found = client
            .query(
                "select n.nspname || '.' || c.relname, a.attname::text,
                   coalesce(e.typname, t.typname)::text, e.oid is not null,
                   (select enumlabel::text from pg_enum where enumtypid = coalesce(e.oid, t.oid) order by enumsortorder limit 1)
                 from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
                   join pg_type t on t.oid = a.atttypid left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
                 where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit') and c.relkind = 'r'
                   and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity = ''
                 order by 1, a.attnum",
                &[],
            )
            .await
            .expect("the catalog can be read");
        for row in found {
            columns.entry(row.get(0)).or_default().push(Column {
                name: row.get(1),
                base: row.get(2),
                array: row.get(3),
                label: row.get(4),
            });
        }
        let keys = client
            .query(
                "select n.nspname || '.' || t.relname, a.attname::text, n.nspname || '.' || ft.relname, f.attname::text
                 from pg_constraint k join pg_class t on t.oid = k.conrelid join pg_namespace n on n.oid = t.relnamespace
                   join pg_class ft on ft.oid = k.confrelid, generate_subscripts(k.conkey, 1) s
                   join lateral (select attname from pg_attribute where attrelid = k.conrelid and attnum = k.conkey[s]) a on true
                   join lateral (select attname from pg_attribute where attrelid = k.confrelid and attnum = k.confkey[s]) f on true
                 where k.contype = 'f'",
                &[],
            )
            .await
            .expect("the catalog can be read");
        let leads_to = keys
            .iter()
            .map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3))))
            .collect();
        Rows { columns, leads_to }
    }

    /// Rows of both organizations and of the platform in every table, besides what migrations put there.
    ///
    /// The copy loses its checks and foreign keys first: what is asked of it is what policies show, not what rows mean.
    pub(crate) async fn fill(&self, client: &Client) {
        client
            .batch_execute(
                "set session_replication_role = replica;
                 do $$ declare it record; begin
                   for it in select conrelid::regclass as tab, conname from pg_constraint
                     where contype in ('c', 'f') and connamespace in (select oid from pg_namespace where nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit'))
                     order by contype desc loop
                     execute format('alter table %s drop constraint if exists %I', it.tab, it.conname);
                   end loop; end $$",
            )
            .await
            .expect("constraints can be dropped");
        for table in self.columns.keys() {
            for whose in [ADA, BOB, PLATFORM] {
                for number in NUMBERS {
                    let insert = format!("{} on conflict do nothing", self.insert(table, whose, number));
                    client
                        .batch_execute(&insert)
                        .await
                        .unwrap_or_else(|error| panic!("{insert}: {error:?}"));
                }
            }
        }
        client
            .batch_execute("reset session_replication_role")
            .await
            .expect("a setting can be reset");
    }

    /// The statement that writes a row.
    pub(crate) fn insert(&self, table: &str, whose: Whose, number: u32) -> String {
        let columns = &self.columns[table];
        let names: Vec<_> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let values: Vec<_> = columns
            .iter()
            .map(|column| self.literal(table, column, whose, number))
            .collect();
        format!(
            "insert into {table} ({}) values ({})",
            names.join(", "),
            values.join(", ")
        )
    }

    /// The value of a column of type uuid.
    pub(crate) fn id(&self, table: &str, column: &str, whose: Whose, number: u32) -> Uuid {
        let mut place = (table.to_owned(), column.to_owned());
        while let Some(next) = self.leads_to.get(&place) {
            place = next.clone();
        }
        if place.1 == "org_id" || place.1.ends_with("_org_id") {
            return whose.org;
        }
        let seed = format!("{} {} {} {number}", place.0, place.1, whose.org);
        Uuid::from_bytes(*blake3_of(&seed).first_chunk().expect("a hash is longer than an id"))
    }

    fn literal(&self, table: &str, column: &Column, whose: Whose, number: u32) -> String {
        let id = self.id(table, &column.name, whose, number);
        let one = match (column.base.as_str(), &column.label) {
            (_, Some(label)) => format!("'{label}'"),
            ("uuid", _) => format!("'{id}'::uuid"),
            ("text" | "varchar" | "bpchar", _) => format!("'{}'", id.simple()),
            ("bytea", _) => format!("'\\x{}'", id.simple()),
            ("bool", _) => "true".to_owned(),
            ("json" | "jsonb", _) => "'{}'".to_owned(),
            ("int2" | "int4" | "int8" | "numeric" | "float8", _) => format!("{}", id.as_u128() % 30_000 + 1),
            ("timestamptz" | "timestamp" | "date", _) => {
                format!("now() - interval '{} hours'", if number == 0 { 48 } else { 0 })
            }
            (other, _) => panic!(
                "{table}.{}: rows of type {other} are not known how to make",
                column.name
            ),
        };
        if column.array { format!("array[{one}]") } else { one }
    }
}

fn blake3_of(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}
