//! What a call brings along: its id, its trace, where it comes from, how long it may take, its credential.
//!
//! Headers are hints of a caller: what is malformed is replaced, and only a credential is ever refused.

use std::time::{Duration, Instant};

use api::policy::Method;
use http::{HeaderMap, request::Parts};
use opentelemetry::{propagation::Extractor, trace::TraceContextExt};
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use crate::{
    auth::scope::Call,
    error::{Error, Reason, Result},
};

const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that any call may take.
pub(super) const LONGEST_DEADLINE: Duration = Duration::from_secs(60);

/// The call that a request is.
pub(super) fn call(method: &'static Method, request_id: String, parts: &Parts, allowed: Duration) -> Call {
    Call::new(
        method,
        request_id,
        traceparent(&parts.headers),
        address(parts),
        Instant::now() + allowed,
    )
}

/// The span of a call, a child of the caller's where it sent one.
pub(super) fn span(call: &Call, headers: &HeaderMap, protocol: &'static str) -> tracing::Span {
    let span = tracing::info_span!(
        "rpc",
        otel.name = call.method.action,
        otel.kind = "server",
        rpc.system = protocol,
        rpc.service = call.method.service,
        rpc.method = call.method.name,
        request_id = %call.request_id,
        trace_id = call.traceparent.get(3..35).unwrap_or_default(),
    );
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    if parent.span().span_context().is_valid() {
        let _ = span.set_parent(parent);
    }
    span
}

/// The caller's `x-request-id`, if it is one, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    match text(headers, "x-request-id") {
        Some(id)
            if (1..=128).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) =>
        {
            id.to_owned()
        }
        _ => Uuid::now_v7().to_string(),
    }
}

/// The bearer credential.
///
/// # Errors
/// CREDENTIAL_INVALID for another kind of `authorization`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get("authorization") else {
        return Ok(None);
    };
    let malformed = || {
        Error::new(
            Reason::CredentialInvalid,
            "authorization must be `Bearer` and a token or an API key",
        )
    };
    let (kind, credential) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(malformed)?;
    if !kind.eq_ignore_ascii_case("bearer") || credential.trim().is_empty() {
        return Err(malformed());
    }
    Ok(Some(credential.trim()))
}

/// W3C trace context of this call: the caller's trace, or a new one, with a span id of ours.
fn traceparent(headers: &HeaderMap) -> String {
    let span = Uuid::new_v4().as_u128() as u64 | 1;
    match text(headers, "traceparent").filter(|value| well_formed(value)) {
        Some(theirs) => format!("00-{}-{span:016x}-{}", &theirs[3..35], &theirs[53..55]),
        None => format!("00-{:032x}-{span:016x}-01", Uuid::new_v4().as_u128()),
    }
}

fn well_formed(value: &str) -> bool {
    let lower_hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else {
        return false;
    };
    *version == "00"
        && trace.len() == 32
        && span.len() == 16
        && flags.len() == 2
        && [trace, span, flags].iter().all(|part| lower_hex(part))
        && trace.bytes().any(|b| b != b'0')
        && span.bytes().any(|b| b != b'0')
}

fn address(parts: &Parts) -> String {
    if let Some(info) = parts.extensions.get::<TcpConnectInfo>() {
        return info
            .remote_addr()
            .map(|address| address.ip().to_string())
            .unwrap_or_default();
    }
    if parts.extensions.get::<UdsConnectInfo>().is_some() {
        return "local".to_owned();
    }
    String::new()
}

/// The caller's `grpc-timeout`, a little shortened, because tonic's own timer fires at it and says CANCELLED.
pub(super) fn time_allowed(headers: &HeaderMap) -> Duration {
    let Some(asked) = text(headers, "grpc-timeout").and_then(timeout) else {
        return DEFAULT_DEADLINE;
    };
    let asked = asked.min(LONGEST_DEADLINE);
    asked.saturating_sub((asked / 10).min(Duration::from_millis(100)))
}

/// `grpc-timeout` of the gRPC protocol: up to 8 digits and a unit.
fn timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        text(self.0, key)
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_shortened_and_capped() {
        let allowed = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", value.parse().expect("ASCII"));
            time_allowed(&headers)
        };
        assert_eq!(allowed("5S"), Duration::from_millis(4900));
        assert_eq!(allowed("100m"), Duration::from_millis(90));
        assert_eq!(allowed("9H"), Duration::from_millis(59_900));
        assert_eq!(allowed("nonsense"), DEFAULT_DEADLINE);
        assert_eq!(time_allowed(&HeaderMap::new()), DEFAULT_DEADLINE);
    }

    #[test]
    fn a_trace_goes_on_and_nonsense_starts_a_new_one() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .expect("ASCII"),
        );
        assert!(traceparent(&headers).starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        headers.insert(
            "traceparent",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01"
                .parse()
                .expect("ASCII"),
        );
        let fresh = traceparent(&headers);
        assert!(well_formed(&fresh) && !fresh.contains("00000000000000000000000000000000"));
    }
}
