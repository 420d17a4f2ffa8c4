//! What stands in every table, and whether something is still on its way: asked again and again, and so prepared once.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::{Client, Statement};

use crate::house::{SLICES, eventually};

/// Rows and a hash of each table, by its name.
pub(crate) type Held = BTreeMap<String, (i64, String)>;

/// What is asked of an installation's database.
pub(crate) struct Tables {
    held: Statement,
    open: Statement,
}

/// Who reads whose events.
const CONSUMED: [(&str, &str); 12] = [
    ("audit", "identity"),
    ("audit", "designs"),
    ("audit", "terraform_state"),
    ("audit", "pipelines"),
    ("audit", "audit"),
    ("terraform_state", "designs"),
    ("terraform_state", "pipelines"),
    ("pipelines", "designs"),
    ("pipelines", "terraform_state"),
    ("designs", "terraform_state"),
    ("designs", "identity"),
    ("designs", "designs"),
];

impl Tables {
    pub(crate) async fn new(admin: &Client) -> Tables {
        let listed = "select schemaname || '.' || tablename from pg_tables where schemaname = any ($1)";
        let tables = admin.query(listed, &[&SLICES.to_vec()]).await;
        let tables = tables.expect("the catalog can be read");
        // Apart from what a mere call moves: when a session or key was last used.
        let each = tables.iter().map(|row| {
            let table: String = row.get(0);
            format!(
                "select '{table}', count(*), coalesce(sum(hashtextextended(
                   (to_jsonb(t) - '{{last_seen_at,idle_expires_at,last_used_at,seen_at}}'::text[])::text, 0))::text, '')
                 from {table} t"
            )
        });
        let held = each.collect::<Vec<_>>().join(" union all ");
        let unplaced = SLICES.map(|slice| format!("(select count(*) from {slice}.outbox where position is null)"));
        let unread = CONSUMED.map(|(reader, source)| {
            format!(
                "(select count(*) from {source}.relay_head h where h.position > 0 and (not exists (
                   select from {reader}.cursors c where c.source = '{source}') or exists (
                   select from {reader}.cursors c where c.source = '{source}' and c.position < h.position)))"
            )
        });
        let unsent = "(select count(*) from identity.outbound_messages where sent_at is null and given_up_at is null)";
        let open = format!("select {} + {} + {unsent}", unplaced.join(" + "), unread.join(" + "));
        Tables {
            held: admin.prepare(&held).await.expect("every table can be read"),
            open: admin.prepare(&open).await.expect("every outbox can be read"),
        }
    }

    /// Rows and a hash of every table.
    pub(crate) async fn held(&self, admin: &Client) -> Held {
        let rows = admin.query(&self.held, &[]).await;
        let rows = rows.expect("an administrator sees everything");
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    /// Who was found to read events and is not waited for.
    pub(crate) async fn unknown(&self, admin: &Client) -> Vec<(String, String)> {
        let each = SLICES.map(|reader| format!("select '{reader}', source from {reader}.cursors"));
        let rows = admin.query(&each.join(" union "), &[]).await;
        let rows = rows.expect("an administrator sees everything");
        let found = rows.iter().map(|row| (row.get(0), row.get(1)));
        found
            .filter(|(reader, source): &(String, String)| !CONSUMED.contains(&(reader.as_str(), source.as_str())))
            .collect()
    }

    /// Waits until every event has a position, every consumer has come to it, and all mail is sent.
    pub(crate) async fn quiet(&self, admin: &Client) {
        eventually("all events are delivered", Duration::from_secs(20), async || {
            let open = admin.query_one(&self.open, &[]).await;
            let open: i64 = open.expect("an administrator sees everything").get(0);
            (open == 0).then_some(())
        })
        .await;
    }
}
