//! What `board3 state decrypt` does: a version's content out of a database or a dump of one, with the keys alone, for the day the
//! platform is down.
//!
//! What it writes is whole and what was written once, or nothing is.

mod source;

use std::{ffi::OsString, fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, sync::Arc};

use kit::{crypto::KeyRing, ids::OrgId};
use time::OffsetDateTime;
use uuid::Uuid;

use self::source::{Record, Source};
use crate::{
    content::{Opening, Place},
    model::{PrincipalId, StateId, VersionKind, version::Version},
};

/// How it is asked for.
pub const USAGE: &str = "\
board3 state decrypt --organization UUID --state NAME [--version NUMBER] (--database URL | --dump FILE) [--out FILE]

Writes the exact bytes of a state's current version, or of another one, to standard output or to a new file.

  --database URL  the database, as a role that may read the schema terraform_state
  --dump FILE     a dump of it in plain SQL (pg_dump, or pg_restore -f FILE of another format)

The keys are TERRAFORM_STATE_ENCRYPTION_KEY and TERRAFORM_STATE_ENCRYPTION_KEYS_RETIRED in the environment, as for the service.
";

/// What is to be decrypted.
struct Asked {
    org: OrgId,
    state: String,
    version: Option<i64>,
    source: Source,
    out: Option<PathBuf>,
}

/// Why there is no content.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// It was asked for wrongly.
    Asked(String),
    /// It cannot be read, opened or written.
    Met(String),
}

/// Writes the content that the arguments of `state` ask for to the file that they name, or to `out`; the keys are those of
/// the environment that `variable` reads.
///
/// # Errors
/// What was asked for wrongly, or what is in the way; then nothing is written.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<String>,
    out: &mut impl Write,
) -> Result<(), Problem> {
    let asked = parse(arguments).map_err(Problem::Asked)?;
    let read = |name| variable(name).unwrap_or_default();
    let keys = (
        read("TERRAFORM_STATE_ENCRYPTION_KEY"),
        read("TERRAFORM_STATE_ENCRYPTION_KEYS_RETIRED"),
    );
    decrypt(&asked, &keys, out).await.map_err(Problem::Met)
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
    use lexopt::prelude::*;
    let (mut org, mut state, mut version, mut source, mut out) = (None, None, None, None, None);
    let mut words = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    let said = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(said)? {
        let name = match argument {
            Long(name @ ("organization" | "state" | "version" | "database" | "dump" | "out")) => name.to_owned(),
            Value(word) => {
                words.push(word);
                continue;
            }
            other => return Err(other.unexpected().to_string()),
        };
        let text = parser.value().and_then(|value| value.string()).map_err(said)?;
        match name.as_str() {
            "organization" => org = Some(OrgId(text.parse().map_err(|_| "--organization must be a UUID")?)),
            "state" => state = Some(text),
            "version" => {
                let number = text.parse().ok().filter(|number| *number > 0);
                version = Some(number.ok_or("--version must be a number from 1 on")?);
            }
            "database" => source = Some(Source::Database(text)),
            "dump" => source = Some(Source::Dump(text.into())),
            _ => out = Some(PathBuf::from(text)),
        }
    }
    if words != ["decrypt"] {
        return Err("of a state there is `decrypt` alone".to_owned());
    }
    Ok(Asked {
        org: org.ok_or("--organization is missing")?,
        state: state.ok_or("--state is missing")?,
        version,
        source: source.ok_or("--database or --dump is missing")?,
        out,
    })
}

async fn decrypt(asked: &Asked, (current, retired): &(String, String), out: &mut impl Write) -> Result<(), String> {
    let ring =
        KeyRing::parse(current, retired).map_err(|problem| format!("TERRAFORM_STATE_ENCRYPTION_KEY {problem}"))?;
    let plain = read(asked, &ring).await?;
    let written = match &asked.out {
        None => out.write_all(&plain).and_then(|()| out.flush()),
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            file.and_then(|mut file| file.write_all(&plain))
        }
    };
    written.map_err(|error| format!("the content cannot be written: {error}"))
}

async fn read(asked: &Asked, ring: &KeyRing) -> Result<Arc<Vec<u8>>, String> {
    let source = asked.source.open(asked.org).await?;
    let org = asked.org.to_string();
    let states = source
        .rows("states", &[("org_id", &org), ("name", &asked.state)])
        .await?;
    let state = states.first().ok_or("the organization has no state of this name")?;
    let id = state.uuid("id")?;
    let id_text = id.to_string();
    let versions = source
        .rows("state_versions", &[("org_id", &org), ("state_id", &id_text)])
        .await?;
    let mut versions = versions.iter().map(version).collect::<Result<Vec<_>, _>>()?;
    versions.sort_by_key(|version| version.number);
    let mut next = Some(asked.version.map_or_else(|| state.number("latest_version"), Ok)?);
    let mut chain = Vec::new();
    while let Some(number) = next {
        let at = versions.binary_search_by_key(&number, |version| version.number);
        let version = &versions[at.map_err(|_| format!("there is no version {number} of the state"))?];
        next = version.base_number;
        chain.push(version);
    }
    let mut plain = None;
    for version in chain.into_iter().rev() {
        let place = Place {
            org: asked.org,
            state: StateId(id),
            version: version.id,
        };
        let id_text = version.id.to_string();
        let chunks = source
            .rows("state_chunks", &[("org_id", &org), ("version_id", &id_text)])
            .await?;
        let mut sealed = Vec::with_capacity(chunks.len());
        for place in 0..i64::from(version.chunks) {
            let chunk = chunks.iter().find(|chunk| chunk.number("place") == Ok(place));
            sealed.push(chunk.ok_or("a chunk of the content is missing")?.bytes("sealed")?);
        }
        let opened = async {
            let opening = Opening::new(ring, place, version)?;
            let content = opening.whole(sealed, plain.take()).await?;
            opening.check(version, content.len() as u64, blake3::hash(&content).as_bytes())?;
            Ok(content)
        };
        let opened = opened.await.map_err(|error: kit::Error| format!("{error:?}"))?;
        plain = Some(Arc::new(opened));
    }
    plain.ok_or_else(|| "the state was never written".to_owned())
}

/// A version by what opens it; who wrote it and when plays no part.
fn version(row: &Record) -> Result<Version, String> {
    let optional = |name| {
        if row.has(name) {
            row.number(name).map(Some)
        } else {
            Ok(None)
        }
    };
    Ok(Version {
        number: row.number("number")?,
        id: row.uuid("id")?,
        serial: row.number("serial")?,
        lineage: String::new(),
        kind: VersionKind::Normal,
        size_bytes: row.number("size_bytes")?,
        chunks: i32::try_from(row.number("chunks")?).map_err(|error| error.to_string())?,
        content_hash: row.bytes("content_hash")?,
        terraform_version: String::new(),
        resource_count: 0,
        blank: false,
        author_id: PrincipalId(Uuid::nil()),
        created_at: OffsetDateTime::UNIX_EPOCH,
        lock_id: None,
        body_id: row.uuid("body_id")?,
        data_key: if row.has("data_key") {
            Some(row.bytes("data_key")?)
        } else {
            None
        },
        base_number: optional("base_number")?,
        weighed_number: None,
        stored_bytes: 0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problem(line: &str) -> String {
        parse(line.split(' ').map(OsString::from)).err().unwrap_or_default()
    }

    #[test]
    fn what_is_asked_for_wrongly_is_told() {
        let org = Uuid::nil();
        let good = format!("decrypt --organization {org} --state a/b --version 3 --dump f");
        assert_eq!(problem(&good), "");
        assert_eq!(problem("encrypt"), "of a state there is `decrypt` alone");
        assert_eq!(problem("decrypt --organization x"), "--organization must be a UUID");
        assert_eq!(
            problem(&good.replace("--version 3", "--version 0")),
            "--version must be a number from 1 on"
        );
        assert_eq!(
            problem(&good.replace(" --dump f", "")),
            "--database or --dump is missing"
        );
        assert_eq!(problem(&format!("{good} --key x")), "invalid option '--key'");
    }
}
