//! How Terraform hears of a failure: by a status, for it shows nothing else.

use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use kit::{Error, Reason};
use serde_json::json;
use tonic::body::Body;

use super::json_response;
use crate::model::lock::Lock;

/// The key under which an error of ours holds the call's request id, which the response's headers tell anyway.
pub(super) const REQUEST_ID: &str = "request_id";

/// The key under which an error of ours holds the verbs of an address that has others than a state's.
pub(super) const ALLOWED: &str = "allowed";

/// How Terraform hears of a failure.
pub(super) fn refusal(error: &Error) -> Response<Body> {
    let status = status(error.reason());
    let mut response = match error.told(Lock::TOLD).filter(|_| status == StatusCode::LOCKED) {
        // Terraform shows the holder, and stops waiting for it where it cannot read who that is.
        Some(info) => json_response(info.to_owned()),
        None => json_response(
            json!({
                "reason": error.reason_name(),
                "message": message(error),
                "request_id": error.told(REQUEST_ID),
            })
            .to_string(),
        ),
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"Board3\""),
            );
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = error.told(ALLOWED).and_then(|verbs| HeaderValue::from_str(verbs).ok());
            let usual = HeaderValue::from_static("GET, POST, PUT, LOCK, UNLOCK");
            headers.insert(header::ALLOW, allowed.unwrap_or(usual));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let delay = error.retry_delay().unwrap_or(Duration::from_secs(1));
            let seconds = delay.as_millis().div_ceil(1000).max(1);
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(u64::try_from(seconds).unwrap_or(1)),
            );
        }
        _ => {}
    }
    response
}

/// The status of a failure: what Terraform tries again (429, 500, 503), waits for (423), or gives up at (all else).
fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::InvalidRequest | Reason::PageTokenInvalid | Reason::RequestIdReused => StatusCode::BAD_REQUEST,
        Reason::CredentialInvalid | Reason::SessionRevoked => StatusCode::UNAUTHORIZED,
        Reason::PermissionMissing | Reason::CallerNotAllowed | Reason::OrganizationRequired => StatusCode::FORBIDDEN,
        Reason::ResourceNotFound => StatusCode::NOT_FOUND,
        // Not 404: a mistyped address must not look like an empty state.
        Reason::MethodUnknown => StatusCode::METHOD_NOT_ALLOWED,
        // Not 404 either: what is deleted is no empty state.
        Reason::StateDeleted => StatusCode::GONE,
        Reason::StateLocked => StatusCode::LOCKED,
        Reason::LockMismatch | Reason::SerialConflict => StatusCode::CONFLICT,
        // 507 would be tried again.
        Reason::MessageTooLarge | Reason::QuotaExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Reason::KeyMissing
        | Reason::DependencyUnavailable
        | Reason::RevocationUnknown
        | Reason::Overloaded
        | Reason::DeadlineExceeded
        | Reason::Conflict => StatusCode::SERVICE_UNAVAILABLE,
        Reason::ContentCorrupt | Reason::Internal | Reason::Unspecified => StatusCode::INTERNAL_SERVER_ERROR,
        // None of these is an answer to Terraform.
        Reason::SecretAlreadyShown
        | Reason::ResourceExists
        | Reason::LoginFailed
        | Reason::RefreshTokenInvalid
        | Reason::Escalation
        | Reason::InvitationInvalid
        | Reason::SecondFactorRequired
        | Reason::EmailTokenInvalid
        | Reason::ReauthenticationFailed
        | Reason::RoleInUse
        | Reason::SystemRole
        | Reason::LastOwner
        | Reason::EpochChanged
        | Reason::LeaseLost
        | Reason::LogSealed
        | Reason::ExecutionFinished
        | Reason::DesignNotPublished
        | Reason::DesignInvalid
        | Reason::EtagMismatch
        | Reason::EventsPruned
        | Reason::LogGap => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn message(error: &Error) -> Cow<'_, str> {
    if error.reason() == Reason::MethodUnknown {
        return "no such method or address here; states are at /v1/states/{name}".into();
    }
    match error.violations().first() {
        Some(violation) => format!("{}: {} {}", error.message(), violation.field, violation.description).into(),
        None => error.message().into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_after_a_while_and_nothing_is_404_but_what_is_not_there() {
        for number in 0..1000 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let error = Error::new(reason, "no").retry_after(Duration::from_millis(1500));
            let refused = refusal(&error);
            let status = refused.status().as_u16();
            assert_eq!(status == 404, reason == Reason::ResourceNotFound, "{reason:?}");
            assert!(status >= 400);
            let again = refused
                .headers()
                .get(header::RETRY_AFTER)
                .map(|value| value.to_str().unwrap());
            assert_eq!(again, [429, 503].contains(&status).then_some("2"), "{reason:?}");
            assert_eq!(refused.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
        }
        let later = refusal(&Error::new(Reason::RateLimited, "no"));
        assert_eq!(later.status().as_u16(), 429);
        assert_eq!(later.headers()[header::RETRY_AFTER], "1");
    }
}
