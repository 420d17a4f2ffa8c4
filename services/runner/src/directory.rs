//! A lease's private directory, and the file in it that tells a person what is known.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use api::pipelines::v1::Lease;
use serde::{Deserialize, Serialize};

/// What is known of a lease; holds no secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) lease_id: String,
    pub(crate) generation: i64,
    pub(crate) execution_id: String,
    pub(crate) stage_id: String,
    pub(crate) stage_name: String,
    pub(crate) kind: String,
    pub(crate) design_id: String,
    pub(crate) design_version: i32,
    pub(crate) state_name: String,
    /// What was done last.
    pub(crate) step: String,
    /// Empty while it is not known.
    pub(crate) outcome: String,
    pub(crate) failure_reason: String,
    pub(crate) failure_detail: String,
    /// Whether pipelines has taken the report.
    pub(crate) reported: bool,
}

impl Known {
    /// What a lease says by itself.
    pub(crate) fn of(lease: &Lease) -> Self {
        Known {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            execution_id: lease.execution_id.clone(),
            stage_id: lease.stage_id.clone(),
            stage_name: lease.stage_name.clone(),
            kind: lease.kind().as_str_name().to_owned(),
            design_id: lease.design_id.clone(),
            design_version: lease.design_version,
            state_name: lease.state_name.clone(),
            ..Known::default()
        }
    }
}

/// The directory of one lease. It stays unless it is removed.
pub(crate) struct Directory(PathBuf);

impl Directory {
    const OUTCOME: &str = "outcome.json";
    /// The name of the plan file where Terraform works.
    pub(crate) const PLAN: &str = "plan.tfplan";

    /// Makes it; nobody else can look into it.
    pub(crate) fn create(work: &Path, lease_id: uuid::Uuid) -> io::Result<Directory> {
        let path = work.join(lease_id.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        DirBuilder::new().mode(0o700).create(path.join("work"))?;
        Ok(Directory(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where Terraform works.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// A new file for Terraform's output, whose reader is given too.
    pub(crate) fn output(&self) -> io::Result<(File, File)> {
        let path = self.0.join("output");
        let _ = std::fs::remove_file(&path);
        let writer = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok((writer, File::open(&path)?))
    }

    /// Removes Terraform's output as it came, with the secrets that may be in it.
    pub(crate) fn remove_output(&self) {
        let _ = std::fs::remove_file(self.0.join("output"));
    }

    /// Whether Terraform left a state that it could not store.
    pub(crate) fn has_errored_state(&self) -> bool {
        self.work().join("errored.tfstate").exists()
    }

    /// Writes down what is known, whole or not at all.
    pub(crate) fn write(&self, known: &Known) {
        let written = serde_json::to_vec_pretty(known)
            .map_err(io::Error::other)
            .and_then(|text| {
                let partial = self.0.join("outcome.partial");
                let mut file = File::create(&partial)?;
                file.write_all(&text)?;
                file.sync_all()?;
                std::fs::rename(partial, self.0.join(Self::OUTCOME))
            });
        if let Err(error) = written {
            tracing::warn!(%error, "what is known could not be written down");
        }
    }

    /// Removes from it what nobody looks for: the providers, and the plan with its secrets.
    pub(crate) fn strip(&self) {
        let _ = std::fs::remove_dir_all(self.work().join(".terraform"));
        let _ = std::fs::remove_file(self.work().join(Self::PLAN));
    }

    /// Removes it.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "the directory could not be removed");
        }
    }

    /// Tells of what earlier runners left behind.
    pub(crate) fn tell_of_others(work: &Path) {
        for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
            let Ok(text) = std::fs::read(entry.path().join(Self::OUTCOME)) else {
                continue;
            };
            let known: Known = serde_json::from_slice(&text).unwrap_or_default();
            tracing::warn!(
                directory = %entry.path().display(),
                stage = known.stage_id,
                step = known.step,
                outcome = known.outcome,
                reported = known.reported,
                "an earlier lease's directory is kept"
            );
        }
    }
}
