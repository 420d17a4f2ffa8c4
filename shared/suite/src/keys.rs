//! The keys of a suite: made once, kept in files that only their owner reads.
//!
//! Each service is given its own and no other's; all are given everybody's public keys.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kit::auth::token::SigningKey;

use crate::variables::{self, Variables};
use crate::{SERVICES, random_hex};

/// The suite's secrets, by service.
pub struct Keys {
    services: BTreeMap<&'static str, Variables>,
}

/// The names of a service's secrets, all of them 32 bytes as hex.
fn names(slice: &str) -> Vec<&'static str> {
    let mut names = vec!["ENCRYPTION_KEY", "BOARD3_SERVICE_KEY"];
    if slice == "identity" {
        names.extend(["BOARD3_ROOT_KEY", "PASSWORD_PEPPER", "API_KEY_PEPPER"]);
    }
    if slice == "terraform_state" {
        names.push("TERRAFORM_STATE_ENCRYPTION_KEY");
    }
    names
}

impl Keys {
    /// New keys for every service.
    pub fn fresh() -> Result<Keys> {
        let mut services = BTreeMap::new();
        for service in SERVICES {
            services.insert(service.slice.name, complete(service.slice.name, Variables::new())?);
        }
        Ok(Keys { services })
    }

    /// The keys in `dir`; what is missing is made and stored there.
    pub fn kept_in(dir: &Path) -> Result<Keys> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let mut services = BTreeMap::new();
        for service in SERVICES {
            let name = service.slice.name;
            let path = dir.join(name).with_extension("env");
            let stored = variables::read(&path)?;
            let complete = complete(name, stored.clone())?;
            if complete != stored {
                variables::write(&path, &complete)?;
            }
            services.insert(name, complete);
        }
        Ok(Keys { services })
    }

    /// The secrets of a service, as variables of its environment.
    pub fn of(&self, slice: &str) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.services.get(slice).into_iter().flatten();
        variables.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `BOARD3_PEER_KEYS`: the services' public keys.
    pub fn peer_keys(&self) -> Result<String> {
        let mut keys = Vec::new();
        for (slice, variables) in &self.services {
            let what = format!("BOARD3_SERVICE_KEY of {slice}");
            let key = public_half(&what, variables.get("BOARD3_SERVICE_KEY"))?;
            keys.push(format!("{slice}={key}"));
        }
        Ok(keys.join(","))
    }

    /// `BOARD3_ROOT_PUBLIC_KEY`: the public half of identity's root key.
    pub fn root_public_key(&self) -> Result<String> {
        let seed = self.services.get("identity").and_then(|of| of.get("BOARD3_ROOT_KEY"));
        public_half("BOARD3_ROOT_KEY of identity", seed)
    }

    /// All of it as text, a block for each service.
    pub fn text(&self) -> Result<String> {
        let mut text = format!(
            "# every service\nBOARD3_PEER_KEYS={}\nBOARD3_ROOT_PUBLIC_KEY={}\n",
            self.peer_keys()?,
            self.root_public_key()?
        );
        for (slice, variables) in &self.services {
            write!(text, "\n# {slice}\n")?;
            for (name, value) in variables {
                writeln!(text, "{name}={value}")?;
            }
        }
        Ok(text)
    }
}

/// What is kept for people: the administrator's credentials and the database roles' password.
pub(crate) struct Kept {
    path: PathBuf,
    variables: Variables,
}

impl Kept {
    pub(crate) fn open(dir: &Path, name: &str) -> Result<Kept> {
        let path = dir.join(name).with_extension("env");
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        Ok(Kept {
            variables: variables::read(&path)?,
            path,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.variables.insert(name.to_owned(), value.to_owned());
        variables::write(&self.path, &self.variables)
    }

    /// The stored value, else a new one, which is stored first.
    pub(crate) fn get_or_set(&mut self, name: &str, make: impl FnOnce() -> Result<String>) -> Result<String> {
        if let Some(value) = self.get(name) {
            return Ok(value.to_owned());
        }
        let value = make()?;
        self.set(name, &value)?;
        Ok(value)
    }
}

fn public_half(what: &str, seed: Option<&String>) -> Result<String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed.map_or("", String::as_str), &mut bytes).with_context(|| what.to_owned())?;
    Ok(SigningKey::from_seed(&bytes).public_key())
}

fn complete(slice: &str, mut variables: Variables) -> Result<Variables> {
    for name in names(slice) {
        match variables.get(name) {
            Some(value) => ensure!(
                value.len() == 64 && hex::decode(value).is_ok(),
                "{name} of {slice} is not 64 hex digits in the stored keys"
            ),
            None => {
                variables.insert(name.to_owned(), random_hex(32)?);
            }
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_only_their_owner_reads_them() {
        let dir = std::env::temp_dir().join(format!("b3-keys-{}", std::process::id()));
        let (first, again) = (Keys::kept_in(&dir).unwrap(), Keys::kept_in(&dir).unwrap());
        assert_eq!(first.text().unwrap(), again.text().unwrap());
        for file in std::fs::read_dir(&dir).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(dir.join("audit.env"), "ENCRYPTION_KEY=short\n").unwrap();
        assert!(Keys::kept_in(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn no_key_stands_twice_and_no_secret_among_the_public_ones() {
        let keys = Keys::fresh().unwrap();
        let mut secrets: Vec<_> = SERVICES
            .iter()
            .flat_map(|s| keys.of(s.slice.name))
            .map(|(_, value)| value)
            .collect();
        let public = format!("{},{}", keys.peer_keys().unwrap(), keys.root_public_key().unwrap());
        assert!(public.starts_with("audit=k4.public.") && public.matches("=k4.public.").count() == SERVICES.len());
        assert!(!secrets.iter().any(|secret| public.contains(secret)));
        let all = secrets.len();
        secrets.sort_unstable();
        secrets.dedup();
        assert_eq!(secrets.len(), all);
    }
}
