//! Requests that break off, which never look as if they had ended.
//!
//! tonic takes the end of a call that its caller cancels for the end of the caller's stream: half an upload would be
//! written as a whole one.

use http_body_util::BodyExt;
use tonic::{Status, body::Body};

use crate::{
    error::{Error, Reason},
    failpoint,
};

/// A body whose break is an error of ours.
pub(super) fn or_broken(body: Body) -> Body {
    if failpoint::without("whole_requests") {
        return body;
    }
    Body::new(body.map_err(|status| {
        let error = Error::new(Reason::InvalidRequest, "the request broke off").with_source(status);
        Status::from(error)
    }))
}
