//! The one error of the suite: a reason, what the caller may read, and what only the log may.
//!
//! The gRPC code is a total function of the reason; no handler picks one.
//! `source` never crosses the wire and is never part of `Display`.

use std::{borrow::Cow, collections::BTreeMap, error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use api::errors::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A result with our error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
pub struct Error(Box<Inner>);

struct Inner {
    reason: Reason,
    message: Cow<'static, str>,
    metadata: BTreeMap<&'static str, String>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// One broken rule of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, for example `canvas.nodes[2].name`.
    pub field: String,
    /// What the rule is.
    pub description: String,
}

impl Violation {
    /// Longer texts are cut: a field's path may hold what the caller sent.
    const CHARACTERS: usize = 200;

    fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Violation {
            field: Self::shortened(field.into()),
            description: Self::shortened(description.into()),
        }
    }

    fn shortened(mut text: String) -> String {
        if text.chars().nth(Self::CHARACTERS).is_some() {
            let end = text.char_indices().nth(Self::CHARACTERS - 1).map_or(0, |(end, _)| end);
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

/// Collects the violations of a request, so that all are reported at once: as many as fit into an answer's headers.
#[derive(Debug, Default)]
pub struct Violations {
    listed: Vec<Violation>,
    bytes: usize,
    full: bool,
}

impl Violations {
    /// The most that one answer lists.
    const MOST: usize = 100;
    /// The most that their texts have together; they travel in headers, of which many clients take 16 KiB.
    const BYTES: usize = 6 * 1024;

    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.full {
            return;
        }
        let violation = Violation::new(field, description);
        self.bytes += violation.field.len() + violation.description.len();
        self.full = self.listed.len() == Self::MOST || self.bytes > Self::BYTES;
        if !self.full {
            self.listed.push(violation);
        }
    }

    /// Adds one unless the rule holds.
    pub fn check(&mut self, holds: bool, field: &str, description: &str) {
        if !holds {
            self.add(field, description);
        }
    }

    /// Checks that a text has `least` to `most` characters and no control characters besides line breaks and tabs.
    pub fn length(&mut self, field: &str, text: &str, least: usize, most: usize) {
        let characters = text.chars().count();
        if characters < least || characters > most {
            self.add(
                field,
                if least == 0 {
                    format!("must have at most {most} characters")
                } else {
                    format!("must have {least} to {most} characters")
                },
            );
        }
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.add(field, "must have no control characters");
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The error with all violations, if there are any.
    pub fn into_result(self) -> Result<()> {
        self.into_result_as(Reason::InvalidRequest, "the request is invalid")
    }

    /// As [`Violations::into_result`], where it is not the request that breaks rules but what it names.
    pub fn into_result_as(self, reason: Reason, message: &'static str) -> Result<()> {
        if self.listed.is_empty() {
            return Ok(());
        }
        let mut error = Error::new(reason, message);
        error.0.violations = self.listed;
        Err(error)
    }

    /// `parsed` if there are no violations, else all of them.
    ///
    /// A part that could not be parsed has left a violation behind: `None` comes with at least one.
    pub fn finish<T>(self, parsed: Option<T>) -> Result<T> {
        self.into_result()?;
        parsed.ok_or_else(|| Error::new(Reason::InvalidRequest, "the request is invalid"))
    }
}

impl Error {
    /// A failure with a text for the caller; the text must be safe to show.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// An invalid request with a single violation.
    pub fn violation(field: impl Into<String>, description: impl Into<String>) -> Self {
        let mut error = Error::new(Reason::InvalidRequest, "the request is invalid");
        error.0.violations.push(Violation::new(field, description));
        error
    }

    /// A fault of ours; the caller sees only that there was one.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::new(Reason::Internal, "internal error").with_source(source)
    }

    /// Something that we need cannot be reached; `dependency` is `postgres`, `redis` or a slice.
    pub fn unavailable(dependency: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::new(Reason::DependencyUnavailable, format!("{dependency} cannot be reached"))
            .with("dependency", dependency)
            .retry_after(Duration::from_secs(1))
            .with_source(source)
    }

    /// No such resource in the caller's organization.
    pub fn not_found(resource: &'static str, id: impl fmt::Display) -> Self {
        Error::new(Reason::ResourceNotFound, format!("there is no {resource} {id}"))
            .with("resource", resource)
            .with("id", id.to_string())
    }

    /// Adds what programs may read; what the message mentions must be here too (AIP-193).
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.metadata.insert(key, value.into());
        self
    }

    /// Adds the cause, for the log alone.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The reason as it stands in `ErrorInfo`: without its prefix.
    pub fn reason_name(&self) -> &'static str {
        name(self.0.reason)
    }

    /// The gRPC code of the reason.
    pub fn code(&self) -> Code {
        code(self.0.reason)
    }

    /// The violations of an invalid request.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The text for the caller, without the violations.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What was added for programs under this key, for protocols that tell it in their own way.
    pub fn told(&self, key: &str) -> Option<&str> {
        self.0.metadata.get(key).map(String::as_str)
    }

    /// When to try again, if that was said.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The status to answer, with the request id that finds the call in the log.
    pub fn to_status(&self, request_id: Option<&str>) -> Status {
        self.to_status_with(request_id, None)
    }

    /// As [`Error::to_status`]; an invalid request also lists what was found wrong outside of the handler.
    pub(crate) fn to_status_with(&self, request_id: Option<&str>, also: Option<Violation>) -> Status {
        let inner = &self.0;
        let also = also.filter(|also| inner.reason == Reason::InvalidRequest && !inner.violations.contains(also));
        let violations: Vec<&Violation> = inner.violations.iter().chain(also.iter()).collect();
        let mut metadata: std::collections::HashMap<String, String> = inner
            .metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let mut details = ErrorDetails::new();
        if let Some(id) = request_id {
            metadata.insert("request_id".to_owned(), id.to_owned());
            details.set_request_info(id, "");
        }
        details.set_error_info(self.reason_name(), "board3", metadata);
        for violation in &violations {
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
        if let Some(delay) = inner.retry_after {
            details.set_retry_info(Some(delay));
        }
        let mut message = inner.message.to_string();
        if let Some(first) = violations.first() {
            message = format!("{message}: {} {}", first.field, first.description);
            if violations.len() > 1 {
                message.push_str(&format!(" (and {} more)", violations.len() - 1));
            }
        }
        Status::with_error_details(self.code(), message, details)
    }
}

/// The name of a reason without its prefix.
pub fn name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The gRPC code of each reason; `errors.proto` says the same in brackets, and a test compares them.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidRequest | Reason::PageTokenInvalid | Reason::RequestIdReused => Code::InvalidArgument,
        Reason::SecretAlreadyShown | Reason::ResourceExists => Code::AlreadyExists,
        Reason::CredentialInvalid
        | Reason::SessionRevoked
        | Reason::LoginFailed
        | Reason::RefreshTokenInvalid
        | Reason::SecondFactorRequired => Code::Unauthenticated,
        Reason::PermissionMissing | Reason::CallerNotAllowed | Reason::Escalation | Reason::ReauthenticationFailed => {
            Code::PermissionDenied
        }
        Reason::OrganizationRequired
        | Reason::InvitationInvalid
        | Reason::LastOwner
        | Reason::EpochChanged
        | Reason::StateLocked
        | Reason::StateDeleted
        | Reason::LockMismatch
        | Reason::SerialConflict
        | Reason::LeaseLost
        | Reason::LogSealed
        | Reason::ExecutionFinished
        | Reason::DesignNotPublished
        | Reason::DesignInvalid
        | Reason::EmailTokenInvalid
        | Reason::SystemRole
        | Reason::RoleInUse => Code::FailedPrecondition,
        Reason::ResourceNotFound => Code::NotFound,
        Reason::EtagMismatch | Reason::Conflict => Code::Aborted,
        Reason::RateLimited | Reason::MessageTooLarge | Reason::QuotaExceeded => Code::ResourceExhausted,
        Reason::Overloaded | Reason::DependencyUnavailable | Reason::RevocationUnknown | Reason::KeyMissing => {
            Code::Unavailable
        }
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::EventsPruned | Reason::LogGap => Code::OutOfRange,
        Reason::ContentCorrupt => Code::DataLoss,
        Reason::MethodUnknown => Code::Unimplemented,
        Reason::Internal | Reason::Unspecified => Code::Internal,
    }
}

impl From<Error> for Status {
    /// The layer in `rpc` finds the error again as the status' source, logs it once and adds the request id.
    fn from(error: Error) -> Status {
        let mut status = error.to_status(None);
        status.set_source(Arc::new(error));
        status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason_name(), self.0.message)?;
        for violation in &self.0.violations {
            write!(f, "; {} {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, "; caused by: {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind as Kind, Error as Diesel};
        match &error {
            Diesel::DatabaseError(Kind::SerializationFailure, _) => {
                Error::new(Reason::Conflict, "another call changed the same rows; try again")
                    .retry_after(Duration::from_millis(50))
                    .with_source(error)
            }
            Diesel::DatabaseError(Kind::ClosedConnection | Kind::UnableToSendCommand, _) => {
                Error::unavailable("postgres", error)
            }
            // PostgreSQL says "canceling statement due to statement timeout" (57014), and diesel has no kind for it.
            Diesel::DatabaseError(_, told) if told.message().starts_with("canceling statement due to") => {
                Error::new(Reason::DeadlineExceeded, "the call did not finish in its time").with_source(error)
            }
            Diesel::DatabaseError(_, told) if told.message() == "deadlock detected" => {
                Error::new(Reason::Conflict, "another call changed the same rows; try again")
                    .retry_after(Duration::from_millis(50))
                    .with_source(error)
            }
            Diesel::DatabaseError(_, told)
                if told.message().starts_with("terminating connection")
                    || told.message().contains("connection closed") =>
            {
                Error::unavailable("postgres", error)
            }
            _ => Error::internal(error),
        }
    }
}

/// Whether a database error is a violation of the named unique constraint.
pub fn violates(error: &diesel::result::Error, constraint: &str) -> bool {
    use diesel::result::{DatabaseErrorKind, Error as Diesel};
    matches!(error, Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, told) if told.constraint_name() == Some(constraint))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_proto_comments_name_the_code_of_every_reason() {
        let proto = include_str!("../../../proto/board3/errors/v1/errors.proto");
        let mut seen = 0;
        let lines: Vec<&str> = proto.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some((name, _)) = line.trim().split_once(" = ") else {
                continue;
            };
            let Some(reason) = Reason::from_str_name(name) else {
                continue;
            };
            if reason == Reason::Unspecified {
                continue;
            }
            let told = lines[index - 1].split(['[', ']']).nth(1).unwrap();
            let ours = format!("{:?}", code(reason));
            assert_eq!(told.replace('_', "").to_lowercase(), ours.to_lowercase(), "{name}");
            seen += 1;
        }
        assert_eq!(seen, 46);
    }

    #[test]
    fn a_status_carries_reason_violations_and_request_id_but_no_source() {
        let mut violations = Violations::new();
        violations.add("name", "is required");
        violations.add("page_size", "must not be negative");
        let error = violations.into_result().unwrap_err().with_source("secret driver text");
        let status = error.to_status(Some("r-1"));
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "INVALID_REQUEST");
        assert_eq!(details.bad_request().unwrap().field_violations.len(), 2);
        assert_eq!(details.request_info().unwrap().request_id, "r-1");
        assert!(!format!("{status:?}").contains("secret"));
    }

    #[test]
    fn violations_are_told_as_many_as_headers_hold_and_no_longer_than_readable() {
        let mut short = Violations::new();
        (0..1000).for_each(|index| short.add(format!("nodes[{index}]"), "is required"));
        let listed = short.into_result().unwrap_err();
        assert_eq!(listed.violations().len(), 100);
        assert_eq!(listed.violations()[99].field, "nodes[99]");

        // The worst: four bytes a character, each percent-encoded in `grpc-message`.
        let mut long = Violations::new();
        (0..1000).for_each(|_| long.add("🌍".repeat(10_000), "🌍".repeat(10_000)));
        let error = long.into_result().unwrap_err();
        assert!(error.violations().len() >= 3);
        let field = &error.violations()[0].field;
        assert!(field.chars().count() == 200 && field.ends_with("🌍…"), "{field}");
        let single = Error::violation("x".repeat(201), "is wrong");
        assert_eq!(single.violations()[0].field, format!("{}…", "x".repeat(199)));
        for error in [listed, error] {
            let answer = error.to_status(Some(&"r".repeat(128))).into_http::<()>();
            let size: usize = answer
                .headers()
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len() + 32)
                .sum();
            assert!(size < 16 * 1024, "{size}");
        }
    }
}
