//! Files of `NAME=value` lines that a shell can source; only their owner can read them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Names and values.
pub type Variables = BTreeMap<String, String>;

/// The file's variables; none where there is no file.
pub(crate) fn read(path: &Path) -> Result<Variables> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Variables::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), unquoted(value)))
        .collect())
}

/// Replaces the file in one step.
pub(crate) fn write<'a>(path: &Path, variables: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<()> {
    let text: String = variables
        .into_iter()
        .map(|(name, value)| format!("{name}={}\n", quoted(value)))
        .collect();
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&fresh, path).with_context(|| path.display().to_string())
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

fn unquoted(value: &str) -> String {
    match value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => inner.replace(r"'\''", "'"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_a_shell_reads_the_same() {
        let path = std::env::temp_dir().join(format!("b3-variables-{}", std::process::id()));
        let values = [
            "plain",
            "",
            "two words",
            "it's $HOME & co; `ls`",
            "postgresql://a:b@%2Ftmp/x?y=1&z=2",
        ];
        let variables: Variables = values
            .iter()
            .enumerate()
            .map(|(n, v)| (format!("V{n}"), (*v).to_owned()))
            .collect();
        write(&path, &variables).unwrap();
        assert_eq!(read(&path).unwrap(), variables);
        let script = format!(
            ". {}; printf '%s\\n' \"$V0\" \"$V1\" \"$V2\" \"$V3\" \"$V4\"",
            path.display()
        );
        let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(
            String::from_utf8(shell.stdout).unwrap().lines().collect::<Vec<_>>(),
            values
        );
    }
}
