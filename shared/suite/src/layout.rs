//! Where a suite keeps its files and on which ports it listens.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kit::config;
use kit::db::migrate::Slice;

use crate::SERVICES;

/// One suite's directory and ports.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
    ports: Option<u16>,
}

impl Layout {
    /// A suite that keeps its files in `dir`.
    ///
    /// Its ports are gRPC `base`+1…5, HTTP `base`+11…15 (the runner's `base`+16) and Terraform's `base`+20, without a
    /// base those of the documentation.
    pub fn new(dir: &Path, base: Option<u16>) -> Result<Layout> {
        ensure!(
            base.is_none_or(|base| (1024..=65_500).contains(&base)),
            "--port-base must lie between 1024 and 65500"
        );
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| dir.display().to_string())?;
        Ok(Layout {
            dir: fs::canonicalize(dir)?,
            ports: base,
        })
    }

    /// A suite in `dir` on ports that nobody uses at this moment, below the range that the system hands out.
    pub fn on_unused_ports(dir: &Path) -> Result<Layout> {
        for _ in 0..100 {
            let mut random = [0; 2];
            getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
            let layout = Layout::new(dir, Some(10_000 + u16::from_le_bytes(random) % 800 * 25))?;
            if layout.taken_ports().is_empty() {
                return Ok(layout);
            }
        }
        bail!("no unused ports were found")
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its ports are counted from, where they are not the documented ones.
    pub fn base(&self) -> Option<u16> {
        self.ports
    }

    /// Addresses and credentials of the running suite, for shells.
    pub fn env_file(&self) -> PathBuf {
        self.dir.join("env")
    }

    /// The log of `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    /// Where the suite's mail goes, a file for each message.
    pub fn mail(&self) -> PathBuf {
        self.dir.join("mail")
    }

    /// Where the private PostgreSQL's data lies.
    ///
    /// As root it runs as another user, who may be unable to enter our directory.
    pub fn postgres(&self) -> Result<PathBuf> {
        Ok(self.outside()?.unwrap_or_else(|| self.dir.clone()).join("postgres"))
    }

    /// The directory that exists besides [`Layout::dir`] when root runs the suite.
    fn outside(&self) -> Result<Option<PathBuf>> {
        let hash = blake3::hash(self.dir.as_os_str().as_encoded_bytes()).to_hex();
        let other_user = testkit::servers::runs_as_another_user()?;
        Ok(other_user.then(|| Path::new("/var/lib/board3").join(&hash[..16])))
    }

    /// Where `slice` serves gRPC.
    pub fn grpc(&self, slice: &Slice) -> String {
        let (place, grpc, _) = standard(slice);
        format!("127.0.0.1:{}", self.ports.map_or(grpc, |base| base + 1 + place))
    }

    /// Where `slice` serves health and metrics.
    pub fn http(&self, slice: &Slice) -> String {
        let (place, _, http) = standard(slice);
        format!("127.0.0.1:{}", self.ports.map_or(http, |base| base + 11 + place))
    }

    /// Where terraform-state serves Terraform's HTTP backend.
    pub fn terraform(&self) -> String {
        format!("127.0.0.1:{}", self.ports.map_or(8080, |base| base + 20))
    }

    /// Where the runner serves health.
    pub fn runner(&self) -> String {
        format!("127.0.0.1:{}", self.ports.map_or(9056, |base| base + 16))
    }

    /// Where the runner works.
    pub fn runner_dir(&self) -> PathBuf {
        self.dir.join("runner")
    }

    /// Those of the suite's addresses that cannot be listened on.
    pub fn taken_ports(&self) -> Vec<String> {
        let addresses = SERVICES.iter().flat_map(|s| [self.grpc(s.slice), self.http(s.slice)]);
        addresses
            .chain([self.terraform(), self.runner()])
            .filter(|address| TcpListener::bind(address).is_err())
            .collect()
    }

    /// Removes the suite's files, and nothing else that lies in its directory.
    pub fn remove(&self) -> Result<()> {
        for made in [
            "keys",
            "log",
            "postgres",
            "env",
            "control",
            "postgres.log",
            "runner",
            "mail",
        ] {
            let path = self.dir.join(made);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                _ => {}
            }
        }
        if let Some(outside) = self.outside()?.filter(|dir| dir.exists()) {
            fs::remove_dir_all(&outside).with_context(|| outside.display().to_string())?;
        }
        // Stays where somebody else keeps something in it.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }
}

/// A slice's place among the five, and its documented ports.
fn standard(slice: &Slice) -> (u16, u16, u16) {
    let all = (0..).zip(config::SLICES);
    let mut own = all
        .filter(|(_, (name, _, _))| *name == slice.name)
        .map(|(place, (_, grpc, http))| (place, grpc, http));
    own.next().expect("kit lists the ports of every slice")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ports_follow_the_base_and_without_one_the_documentation() {
        let dir = std::env::temp_dir().join(format!("b3-layout-{}", std::process::id()));
        let (standard, other) = (Layout::new(&dir, None).unwrap(), Layout::new(&dir, Some(7000)).unwrap());
        let audit = audit::SERVICE.slice;
        assert_eq!(
            (standard.grpc(audit), standard.http(audit)),
            ("127.0.0.1:50055".into(), "127.0.0.1:9055".into())
        );
        assert_eq!(
            (other.grpc(audit), other.http(audit)),
            ("127.0.0.1:7005".into(), "127.0.0.1:7015".into())
        );
        assert!(Layout::new(&dir, Some(80)).is_err());
        fs::write(dir.join("somebody-elses"), "").unwrap();
        fs::write(dir.join("env"), "").unwrap();
        standard.remove().unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
