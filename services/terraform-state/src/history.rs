//! What is done with versions that are there: their outputs, one brought back, two compared.

use futures_util::TryStreamExt;
use kit::{Error, Reason, Result, Violations, auth::scope::OrgScope, crypto::KeyRing, db::Tx, failpoint, ids::OrgId};
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::Value;
use tokio::{task::spawn_blocking, try_join};
use uuid::Uuid;

use crate::{
    backend::{Backend, reading::Reading},
    content::{Arriving, Content, Place, corrupt, too_large},
    memory::Share,
    model::{
        difference::{Layout, shown_outputs},
        state::State,
        version::Version,
    },
    store,
    wire::{
        difference::Rollback,
        top::{Field, NewSerial},
    },
};

/// Who may call RevealOutputs.
const REVEAL: &str = "terraform_state.output.reveal";
/// The most bytes of a content that is compared.
pub(crate) const MOST_COMPARED_BYTES: u64 = 32 << 20;
/// The most bytes of all outputs of a state.
const MOST_OUTPUT_BYTES: usize = 3 << 20;

/// A content, whole, to be compared.
pub(crate) struct Whole {
    text: SecretSlice<u8>,
    /// Until it is.
    _share: Share,
}

impl Whole {
    pub(crate) fn text(&self) -> &[u8] {
        self.text.expose_secret()
    }
}

/// Two of them.
pub(crate) struct Pair {
    before: Whole,
    after: Whole,
}

/// A version as it is to be brought back.
pub(crate) struct Restored {
    pub(crate) content: Content,
    /// The number of the version that was current when it was made.
    pub(crate) current: i64,
}

/// A version of a state; the current one for no number.
///
/// # Errors
/// RESOURCE_NOT_FOUND (`state_version`).
pub(crate) async fn version(tx: &mut Tx, state: &State, number: Option<i64>) -> Result<Version> {
    let number = number.unwrap_or(state.latest_version);
    let found = store::version::find(tx, state.id, number).await?;
    match found {
        Some(version) => Ok(version),
        None if number == state.latest_version && number > 0 => {
            Err(corrupt("the current version is missing", state.id, number))
        }
        None => Err(Error::not_found("state_version", number)),
    }
}

/// Refuses a content that OpenTofu encrypted.
///
/// # Errors
/// INVALID_REQUEST.
pub(crate) fn open_to_us(version: &Version, field: &'static str) -> Result<()> {
    let mut violations = Violations::new();
    violations.check(
        version.resource_count >= 0,
        field,
        "is of a content that OpenTofu encrypted: nothing in it can be seen",
    );
    violations.into_result()
}

/// Refuses a state that somebody holds.
///
/// # Errors
/// STATE_LOCKED with the holder.
pub(crate) async fn unlocked(tx: &mut Tx, state: &State) -> Result<()> {
    match store::lock::find(tx, state.id).await? {
        Some(held) => Err(held.refusal()),
        None => Ok(()),
    }
}

/// The version to go back to, and the serial that its content comes back under.
///
/// # Errors
/// RESOURCE_NOT_FOUND, INVALID_REQUEST for one that OpenTofu encrypted unless that is accepted.
pub(crate) async fn target(
    tx: &mut Tx,
    state: &State,
    number: i64,
    accept_unsafe_plans: bool,
) -> Result<(Version, i64)> {
    let target = version(tx, state, Some(number)).await?;
    if target.resource_count < 0 {
        // OpenTofu compares the serial outside with the one it encrypted.
        let mut violations = Violations::new();
        violations.check(
            accept_unsafe_plans,
            "accept_unsafe_plans",
            "must be true: OpenTofu encrypted the content, so it keeps its serial, and a plan that was saved since may be \
             applied silently",
        );
        violations.into_result()?;
        let serial = target.serial;
        return Ok((target, serial));
    }
    let serial = state
        .greatest_serial
        .checked_add(1)
        .ok_or_else(|| Error::new(Reason::SerialConflict, "there is no greater serial"))?;
    Ok((target, serial))
}

/// Refuses to go back where somebody holds the state or has written it since.
///
/// # Errors
/// STATE_LOCKED, SERIAL_CONFLICT, INVALID_REQUEST for the current version.
pub(crate) async fn may_return(tx: &mut Tx, state: &State, asked: &Rollback, seen: i64) -> Result<()> {
    if !failpoint::without(&format!("terraform_state.rollback_lock/{}", state.name.as_str())) {
        unlocked(tx, state).await?;
    }
    if state.latest_version != asked.current.unwrap_or(seen) || state.latest_version != seen {
        return Err(Error::new(Reason::SerialConflict, "another write came first")
            .with("current_version", state.latest_version.to_string()));
    }
    let mut violations = Violations::new();
    violations.check(asked.number != state.latest_version, "version", "is the current one");
    violations.into_result()
}

/// Whether the caller may see outputs that are kept back.
pub(crate) fn may_reveal(scope: &OrgScope) -> bool {
    scope.permissions().holds(REVEAL)
}

/// The refusal of outputs that are none.
pub(crate) fn odd_outputs() -> Error {
    Error::violation("version", "is not laid out as Terraform writes states")
}

/// What Terraform reads of a state whose outputs alone are another one's to read.
///
/// # Errors
/// INVALID_REQUEST for outputs that are none, and what reading fails with.
pub(crate) async fn outputs_alone(reading: Reading, reveal: bool) -> Result<Vec<u8>> {
    let version = reading.version.clone();
    let written = reading.outputs().await?;
    let shown = shown_outputs(written.expose_secret(), reveal).ok_or_else(odd_outputs)?;
    let head = format!(
        "{{\"version\":4,\"terraform_version\":{},\"serial\":{},\"lineage\":{},\"outputs\":",
        Value::from(version.terraform_version),
        version.serial,
        Value::from(version.lineage),
    );
    Ok([head.as_bytes(), &shown, b",\"resources\":[],\"check_results\":null}"].concat())
}

impl Reading {
    /// The text of the content's `outputs`; empty where it has none.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE, and what reading fails with.
    pub(crate) async fn outputs(self) -> Result<SecretSlice<u8>> {
        let mut field = Field::new("outputs");
        let mut outputs = Vec::new();
        let mut parts = std::pin::pin!(self.parts());
        while let Some(part) = parts.try_next().await? {
            outputs.extend(part.iter().copied().filter(|byte| field.takes(*byte)));
            if outputs.len() > MOST_OUTPUT_BYTES {
                return Err(too_large(MOST_OUTPUT_BYTES as u64));
            }
        }
        Ok(SecretSlice::from(outputs))
    }

    async fn whole(self) -> Result<SecretSlice<u8>> {
        let mut whole = Vec::with_capacity(usize::try_from(self.version.size_bytes).map_err(Error::internal)?);
        let mut parts = std::pin::pin!(self.parts());
        while let Some(part) = parts.try_next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(SecretSlice::from(whole))
    }
}

impl Backend {
    /// A content, whole.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE, OVERLOADED, and what reading fails with.
    pub(crate) async fn whole(&self, reading: Reading) -> Result<Whole> {
        let bytes = u64::try_from(reading.version.size_bytes).map_err(Error::internal)?;
        if bytes > MOST_COMPARED_BYTES {
            return Err(too_large(MOST_COMPARED_BYTES));
        }
        let mut share = self.memory.share();
        share.grow(usize::try_from(bytes >> 20).map_err(Error::internal)? + 1)?;
        Ok(Whole {
            text: reading.whole().await?,
            _share: share,
        })
    }

    /// As [`Backend::whole`], of two.
    pub(crate) async fn pair(&self, before: Reading, after: Reading) -> Result<Pair> {
        let (before, after) = try_join!(self.whole(before), self.whole(after))?;
        Ok(Pair { before, after })
    }

    /// The content of an earlier version, sealed as the state's next one: under a serial that the state never had, or as
    /// it was for one that OpenTofu encrypted.
    ///
    /// # Errors
    /// What reading and writing fail with.
    pub(crate) async fn restored(
        &self,
        scope: &OrgScope,
        state: &State,
        reading: Reading,
        serial: i64,
    ) -> Result<Restored> {
        let place = Place {
            org: scope.org(),
            state: state.id,
            version: Uuid::new_v4(),
        };
        let kept = serial == reading.version.serial
            || failpoint::without(&format!("terraform_state.rollback_serial/{}", state.name.as_str()));
        let expected = if kept { reading.version.serial } else { serial };
        let mut serial = NewSerial::new(serial);
        let mut arriving = Arriving::new(&self.ring, place, u64::MAX, &self.memory);
        let mut parts = std::pin::pin!(reading.parts());
        while let Some(part) = parts.try_next().await? {
            if kept {
                arriving.push(&part).await?;
            } else {
                arriving.push(&serial.edit(&part)).await?;
            }
        }
        let content = arriving.finish(None).await?;
        if content.heading().serial != expected {
            return Err(Error::internal("a new serial did not reach the content"));
        }
        Ok(Restored {
            content,
            current: state.latest_version,
        })
    }
}

impl Pair {
    /// Compares them away from the threads that answer calls; `told` makes of it what is answered.
    ///
    /// # Errors
    /// INVALID_REQUEST for what Terraform does not lay out so.
    pub(crate) async fn compare<T: Send + 'static>(
        self,
        (ring, org): (KeyRing, OrgId),
        told: impl FnOnce(&Layout<'_>, &Layout<'_>, &KeyRing, OrgId) -> T + Send + 'static,
    ) -> Result<T> {
        let compared = spawn_blocking(move || {
            let odd = |field| Error::violation(field, "is not laid out as Terraform writes states");
            let before = Layout::read(self.before.text()).ok_or_else(|| odd("from_version"))?;
            let after = Layout::read(self.after.text()).ok_or_else(|| odd("to_version"))?;
            Ok(told(&before, &after, &ring, org))
        });
        // What a panic says may hold a part of a content.
        compared.await.map_err(|_| Error::internal("comparing panicked"))?
    }
}
