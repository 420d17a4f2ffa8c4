//! Etags: which state of a thing a caller has seen.

use kit::{Error, Reason, Result, Violations, failpoint};

/// An etag as it came in; any other text than the current one is merely not current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Etag(String);

impl Etag {
    /// The longest that is looked at.
    const LONGEST: usize = 64;

    /// Reads a required etag.
    pub(crate) fn required(field: &str, text: String, violations: &mut Violations) -> Option<Self> {
        violations.check(!text.is_empty(), field, "is required");
        violations.length(field, &text, 0, Self::LONGEST);
        (!text.is_empty()).then_some(Etag(text))
    }

    /// The etag of a version.
    pub(crate) fn of(version: i64) -> Self {
        Etag(format!("v{version}"))
    }

    /// Lets through who has seen this version of a thing.
    ///
    /// # Errors
    /// ETAG_MISMATCH with the current etag. The switch `identity.etag` lets everybody through, for tests.
    pub(crate) fn expect(&self, version: i64, thing: &'static str) -> Result<()> {
        let current = Etag::of(version);
        if *self == current || failpoint::without("identity.etag") {
            return Ok(());
        }
        Err(Error::new(
            Reason::EtagMismatch,
            format!("the {thing} has changed since; read it again"),
        )
        .with("current_etag", current.0))
    }
}

impl From<Etag> for String {
    fn from(etag: Etag) -> String {
        etag.0
    }
}
