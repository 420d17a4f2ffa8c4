//! Streams end after a maximum age; their callers go on from a cursor, or begin anew.
//!
//! None is cut so that it looks whole.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use crate::error::{Error, Reason};

const OLDEST: Duration = Duration::from_secs(600);

/// How a caller sees that a stream was cut.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// gRPC's trailers say why.
    Trailers,
    /// The body breaks off: its connection or its HTTP/2 stream is reset.
    Broken,
}

struct Aged {
    inner: Body,
    ending: Ending,
    end: Pin<Box<tokio::time::Sleep>>,
    over: bool,
    span: tracing::Span,
}

/// Bounds a streamed response.
pub(super) fn bounded(response: Response<Body>, ending: Ending) -> Response<Body> {
    response.map(|inner| Body::new(Aged::new(inner, ending, OLDEST)))
}

impl Aged {
    fn new(inner: Body, ending: Ending, oldest: Duration) -> Self {
        Aged {
            inner,
            ending,
            end: Box::pin(tokio::time::sleep(oldest)),
            over: false,
            span: tracing::Span::current(),
        }
    }
}

/// How a stream failed, if this is its failing frame.
fn failure(frame: &Result<Frame<Bytes>, Status>) -> Option<Status> {
    let status = match frame {
        Err(status) => Some(status.clone()),
        Ok(frame) => frame.trailers_ref().and_then(Status::from_header_map),
    };
    status.filter(|status| status.code() != Code::Ok)
}

impl HttpBody for Aged {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.end.as_mut().poll(context).is_ready() {
            self.over = true;
            let status = Error::new(
                Reason::DeadlineExceeded,
                "the stream has reached its age; go on from its cursor",
            )
            .to_status(None);
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(match self.ending {
                Ending::Trailers => status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
                Ending::Broken => Err(status),
            }));
        }
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(frame)) = &frame
            && let Some(status) = failure(frame)
        {
            // The call was logged when it was answered; what goes wrong afterwards is found under its span.
            self.span
                .in_scope(|| tracing::warn!(code = ?status.code(), message = status.message(), "stream failed"));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    #[tokio::test]
    async fn an_old_stream_is_cut_and_its_caller_sees_that_it_was() {
        let endless = || {
            Body::new(StreamBody::new(futures_util::stream::pending::<
                Result<Frame<Bytes>, Status>,
            >()))
        };
        let cut = |ending| Aged::new(endless(), ending, Duration::ZERO).collect();
        let trailers = cut(Ending::Trailers).await.unwrap().trailers().cloned().unwrap();
        assert_eq!(trailers["grpc-status"], "4");
        assert_eq!(cut(Ending::Broken).await.unwrap_err().code(), Code::DeadlineExceeded);
    }
}
