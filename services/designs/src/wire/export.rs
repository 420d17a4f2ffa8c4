//! Exports: which design is asked for, and the file in parts.

use api::designs::v1;
use kit::{Error, Violations, ids};
use sha2::{Digest, Sha256};

use crate::model::{DesignId, export::StateName};

/// What a file is called.
const FILE_NAME: &str = "main.tf.json";
/// The most bytes of a part.
const PART_BYTES: usize = 256 << 10;

/// A design to export.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) id: DesignId,
    /// A version's number; none for the canvas as it is.
    pub(crate) version: Option<i32>,
    pub(crate) state: Option<StateName>,
}

impl TryFrom<v1::ExportTerraformRequest> for Export {
    type Error = Error;

    fn try_from(request: v1::ExportTerraformRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("design_id", &request.design_id, &mut violations);
        violations.check(request.version >= 0, "version", "must not be negative");
        let state = StateName::parse(&request.state_name);
        let sound = request.state_name.is_empty() || state.is_some();
        violations.check(sound, "state_name", StateName::RULE);
        let id = violations.finish(id)?;
        Ok(Export {
            id,
            version: Some(request.version).filter(|number| *number > 0),
            state,
        })
    }
}

/// The parts of a file, at least one.
pub(crate) fn parts(file: &str) -> Vec<v1::ExportTerraformResponse> {
    let mut parts: Vec<_> = file
        .as_bytes()
        .chunks(PART_BYTES)
        .map(|bytes| v1::ExportTerraformResponse {
            content: bytes.to_vec(),
            ..Default::default()
        })
        .collect();
    if let Some(first) = parts.first_mut() {
        first.file_name = FILE_NAME.to_owned();
        first.sha256 = hex::encode(Sha256::digest(file));
    }
    parts
}
