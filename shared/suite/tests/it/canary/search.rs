//! Everything that can be read of a house from outside its processes, and the search for a secret in it.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use api::events::v1::Event;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use bb8_redis::redis::{self, Client, cmd};
use futures_util::StreamExt;
use prost::Message;
use tokio::sync::Mutex;
use tonic::Status;

use crate::house::{House, SLICES, random_key};

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Log,
    Metric,
    Error,
    Event,
    Redis,
    Table,
}

/// A text that was searched.
pub(super) struct Hay {
    pub(super) kind: Kind,
    pub(super) place: String,
    pub(super) text: String,
}

/// What must not be found, in every form that it may take.
pub(super) struct Needle {
    name: String,
    forms: BTreeSet<String>,
    /// Where it may be all the same.
    at_home: &'static [Kind],
}

impl Needle {
    pub(super) fn text(name: &str, text: &str) -> Needle {
        let mut needle = Needle::bytes(name, text.as_bytes());
        needle.forms.insert(text.to_owned());
        needle
    }

    /// A key that is written as hex digits.
    pub(super) fn key(name: &str, digits: &str) -> Needle {
        let mut needle = Needle::bytes(name, &hex::decode(digits).unwrap());
        needle.forms.extend(Needle::text(name, digits).forms);
        needle
    }

    fn bytes(name: &str, bytes: &[u8]) -> Needle {
        let listed: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let mut forms: BTreeSet<String> = [hex::encode(bytes), hex::encode_upper(bytes), listed.join(", ")].into();
        for engine in [STANDARD, URL_SAFE] {
            // Inside a longer text, base64 looks different at each of three places; the outer characters mix.
            for before in 0..3 {
                let text = engine.encode([&[b'?'].repeat(before)[..], bytes].concat());
                let whole = (before + bytes.len()) / 3 * 4;
                forms.insert(text[if before == 0 { 0 } else { 4 }..whole].to_owned());
            }
        }
        Needle {
            name: name.to_owned(),
            forms,
            at_home: &[],
        }
    }

    pub(super) fn at_home(self, at_home: &'static [Kind]) -> Needle {
        Needle { at_home, ..self }
    }

    fn found_in(&self, hay: &Hay) -> bool {
        !self.at_home.contains(&hay.kind) && self.forms.iter().any(|form| hay.text.contains(form.as_str()))
    }
}

/// `<needle> in <place>` for everything that is found.
pub(super) fn search(needles: &[Needle], hay: &[Hay]) -> Vec<(Kind, String)> {
    let places = hay
        .iter()
        .flat_map(|hay| needles.iter().map(move |needle| (needle, hay)));
    let found = places.filter(|(needle, hay)| needle.found_in(hay));
    found
        .map(|(needle, hay)| (hay.kind, format!("{} in {:?} {}", needle.name, hay.kind, hay.place)))
        .collect()
}

/// Every failure that a client saw.
#[derive(Default)]
pub(super) struct Seen(pub(super) Vec<Hay>);

impl Seen {
    pub(super) fn refused<T>(&mut self, what: &str, answer: Result<T, Status>) {
        let Err(status) = answer else {
            panic!("{what} succeeded")
        };
        let mut text = format!("{status:?} {} {:?}\n", status.message(), status.metadata());
        let _ = write!(
            text,
            "{} {}",
            String::from_utf8_lossy(status.details()),
            hex::encode(status.details())
        );
        self.0.push(Hay {
            kind: Kind::Error,
            place: what.to_owned(),
            text,
        });
    }
}

/// Everything that can be read of a house from outside its processes.
pub(super) async fn gather(house: &House) -> Vec<Hay> {
    let mut hay = Vec::new();
    for slice in SLICES {
        hay.push(Hay {
            kind: Kind::Log,
            place: slice.to_owned(),
            text: house.logs(slice),
        });
        hay.push(Hay {
            kind: Kind::Metric,
            place: slice.to_owned(),
            text: house.metrics(slice).await,
        });
    }

    let mut redis = redis(house).await;
    // A dump holds values as they are, if it does not compress them.
    let () = cmd("CONFIG")
        .arg(&["SET", "rdbcompression", "no"])
        .query_async(&mut redis)
        .await
        .unwrap();
    let keys: Vec<Vec<u8>> = cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    assert!(!keys.is_empty(), "Redis is empty");
    for key in keys {
        let value: Option<Vec<u8>> = cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
        let bytes = [key.clone(), value.unwrap_or_default()].concat();
        let text = format!("{} {}", String::from_utf8_lossy(&bytes), hex::encode(&bytes));
        hay.push(Hay {
            kind: Kind::Redis,
            place: String::from_utf8_lossy(&key).into_owned(),
            text,
        });
    }

    let admin = house.database().admin().await;
    let sql = "select quote_ident(nspname), quote_ident(relname) from pg_class c \
               join pg_namespace n on n.oid = c.relnamespace \
               where relkind in ('r', 'm', 'p') and nspname !~ '^pg_' and nspname <> 'information_schema'";
    for table in admin.query(sql, &[]).await.unwrap() {
        let (schema, table): (String, String) = (table.get(0), table.get(1));
        let place = format!("{schema}.{table}");
        let rows = admin
            .query(&format!("select t::text from {place} t"), &[])
            .await
            .unwrap();
        let text = rows
            .iter()
            .map(|row| row.get::<_, &str>(0))
            .collect::<Vec<_>>()
            .join("\n");
        hay.push(Hay {
            kind: Kind::Table,
            place: place.clone(),
            text,
        });
        if table == "outbox" {
            for row in admin
                .query(&format!("select envelope from {place}"), &[])
                .await
                .unwrap()
            {
                let text = format!("{:?}", Event::decode(row.get::<_, &[u8]>(0)).unwrap());
                hay.push(Hay {
                    kind: Kind::Event,
                    place: schema.clone(),
                    text,
                });
            }
        }
    }
    hay
}

pub(super) async fn redis(house: &House) -> redis::aio::MultiplexedConnection {
    Client::open(house.redis().url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap()
}

/// Everything that is said to Redis from now on.
pub(super) async fn overhear(house: &House) -> Arc<Mutex<String>> {
    let mut said = Client::open(house.redis().url())
        .unwrap()
        .get_async_monitor()
        .await
        .unwrap()
        .into_on_message();
    let heard = Arc::new(Mutex::new(String::new()));
    let into = heard.clone();
    tokio::spawn(async move {
        while let Some(line) = said.next().await {
            let line: String = line;
            let mut into = into.lock().await;
            into.push_str(&line);
            into.push('\n');
        }
    });
    heard
}

#[test]
fn a_needle_is_found_in_every_usual_form() {
    let key = random_key();
    let needle = Needle::key("key", &key);
    let raw = hex::decode(&key).unwrap();
    for text in [
        key.clone(),
        key.to_uppercase(),
        hex::encode(&key),
        format!("{raw:?}"),
        STANDARD.encode(&raw),
        STANDARD.encode([b"a", &raw[..], b"b"].concat()),
        URL_SAFE.encode([b"ab", &raw[..], b"c"].concat()),
        STANDARD.encode(format!("key={key};")),
    ] {
        assert!(
            needle.found_in(&Hay {
                kind: Kind::Log,
                place: String::new(),
                text: text.clone()
            }),
            "{text}"
        );
    }
    let text = random_key();
    assert!(!needle.found_in(&Hay {
        kind: Kind::Log,
        place: String::new(),
        text
    }));
}
