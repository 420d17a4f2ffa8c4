//! Where rows come from: a database, or a dump of one in plain SQL.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use kit::ids::OrgId;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;

/// Where rows are to come from.
pub(super) enum Source {
    Database(String),
    Dump(PathBuf),
}

/// The same, open.
pub(super) enum Open<'a> {
    Database(Client),
    Dump(&'a PathBuf),
}

/// A row: its columns as PostgreSQL writes them.
#[derive(Debug)]
pub(super) struct Record(BTreeMap<String, Option<String>>);

impl Source {
    pub(super) async fn open(&self, org: OrgId) -> Result<Open<'_>, String> {
        let url = match self {
            Source::Dump(path) => return Ok(Open::Dump(path)),
            Source::Database(url) => url,
        };
        let wrong = |error: tokio_postgres::Error| format!("the database does not answer: {error}");
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(wrong)?;
        tokio::spawn(connection);
        // Whatever the role, it sees the organization's rows at least.
        let settings =
            format!("set app.org = '{org}'; set search_path = terraform_state; set default_transaction_read_only = on");
        client.batch_execute(&settings).await.map_err(wrong)?;
        Ok(Open::Database(client))
    }
}

impl Open<'_> {
    /// The rows of a table whose columns have these values.
    pub(super) async fn rows(&self, table: &str, wanted: &[(&str, &str)]) -> Result<Vec<Record>, String> {
        match self {
            Open::Database(client) => of_database(client, table, wanted).await,
            Open::Dump(path) => of_dump(path, table, wanted),
        }
    }
}

async fn of_database(client: &Client, table: &str, wanted: &[(&str, &str)]) -> Result<Vec<Record>, String> {
    let conditions: Vec<String> = wanted
        .iter()
        .map(|(column, value)| format!("{column} = '{}'", value.replace('\'', "''")))
        .collect();
    let query = format!("select * from {table} where {}", conditions.join(" and "));
    let answer = client.simple_query(&query).await;
    let answer = answer.map_err(|error| format!("{table} cannot be read: {error}"))?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows
        .map(|row| {
            let columns = row.columns().iter().enumerate();
            Record(
                columns
                    .map(|(at, column)| (column.name().to_owned(), row.get(at).map(str::to_owned)))
                    .collect(),
            )
        })
        .collect())
}

fn of_dump(path: &PathBuf, table: &str, wanted: &[(&str, &str)]) -> Result<Vec<Record>, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut lines = BufReader::new(File::open(path).map_err(wrong)?);
    let start = format!("COPY terraform_state.{table} (");
    let (mut line, mut columns, mut rows) = (String::new(), Vec::<String>::new(), Vec::new());
    let mut seen = false;
    loop {
        line.clear();
        if lines.read_line(&mut line).map_err(wrong)? == 0 {
            break;
        }
        let text = line.trim_end_matches('\n');
        if columns.is_empty() {
            let listed = text
                .strip_prefix(&start)
                .and_then(|rest| rest.strip_suffix(") FROM stdin;"));
            if let Some(listed) = listed {
                columns = listed
                    .split(", ")
                    .map(|name| name.trim_matches('"').to_owned())
                    .collect();
                seen = true;
            }
            continue;
        }
        if text == "\\." {
            columns.clear();
            continue;
        }
        let values = text.split('\t').map(|value| (value != "\\N").then(|| unescaped(value)));
        let record = Record(columns.iter().cloned().zip(values).collect());
        let fits = wanted.iter().all(|(column, value)| record.text(column) == Some(*value));
        if fits {
            rows.push(record);
        }
    }
    if !seen {
        return Err(format!(
            "{} holds no rows of {table}: is it a dump in plain SQL?",
            path.display()
        ));
    }
    Ok(rows)
}

/// A value as COPY writes it in text.
fn unescaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('b') => text.push('\u{8}'),
                Some('f') => text.push('\u{c}'),
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some('v') => text.push('\u{b}'),
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    text
}

impl Record {
    fn text(&self, column: &str) -> Option<&str> {
        self.0.get(column).and_then(Option::as_deref)
    }

    /// Whether a column holds something.
    pub(super) fn has(&self, column: &str) -> bool {
        self.text(column).is_some()
    }

    fn parsed<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
        let parsed = self.text(column).and_then(parse);
        parsed.ok_or_else(|| format!("{column} is not what it should be"))
    }

    pub(super) fn number(&self, column: &str) -> Result<i64, String> {
        self.parsed(column, |text| text.parse().ok())
    }

    pub(super) fn uuid(&self, column: &str) -> Result<Uuid, String> {
        self.parsed(column, |text| text.parse().ok())
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>, String> {
        self.parsed(column, |text| hex::decode(text.strip_prefix("\\x")?).ok())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn a_dump_is_read_as_copy_wrote_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let dump = "-- a dump\nCOPY terraform_state.states (org_id, id, name, latest_version) FROM stdin;\n\
                    o\tx\ta\\tb\t3\no\ty\t\\N\t4\n\\.\nCOPY terraform_state.other (name) FROM stdin;\na\n\\.\n";
        file.write_all(dump.as_bytes()).unwrap();
        let path = file.path().to_owned();
        let rows = of_dump(&path, "states", &[("org_id", "o")]).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].text("name"), rows[0].number("latest_version")),
            (Some("a\tb"), Ok(3))
        );
        assert!(!rows[1].has("name"));
        assert_eq!(of_dump(&path, "states", &[("id", "z")]).unwrap().len(), 0);
        assert!(of_dump(&path, "chunks", &[]).unwrap_err().contains("plain SQL"));
    }
}
