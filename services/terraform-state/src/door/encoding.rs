//! Answers as gzip, for callers who accept it: Terraform always does, and states get an order of magnitude smaller.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{Stream, TryStreamExt, stream};
use http::{HeaderMap, header};
use kit::{Error, Result};

use crate::content::aside_for;

/// Whether a caller accepts gzip (RFC 9110, 12.5.3): it is named, and not with a weight of nothing.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut words = coding.split(';').map(str::trim);
        let named = words.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = words.find_map(|word| word.strip_prefix("q="));
        named && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
    })
}

/// The parts of a body, compressed as they come. What breaks off breaks off here too, without gzip's end.
pub(super) fn gzip<S>(parts: S) -> impl Stream<Item = Result<Bytes>> + Send + 'static
where
    S: Stream<Item = Result<Bytes>> + Send + 'static,
{
    let start = (Box::pin(parts), Some(GzEncoder::new(Vec::new(), Compression::fast())));
    stream::try_unfold(start, |(mut parts, mut encoder)| async move {
        while let Some(open) = encoder {
            let part = parts.try_next().await?;
            let bytes = part.as_ref().map_or(0, Bytes::len);
            let (still, compressed) = aside_for(bytes, move || compressed(open, part))
                .await?
                .map_err(Error::internal)?;
            encoder = still;
            if !compressed.is_empty() {
                return Ok(Some((Bytes::from(compressed), (parts, encoder))));
            }
        }
        Ok(None)
    })
}

type Open = GzEncoder<Vec<u8>>;

/// What comes of another part, or of the end.
fn compressed(mut open: Open, part: Option<Bytes>) -> io::Result<(Option<Open>, Vec<u8>)> {
    let Some(part) = part else {
        return Ok((None, open.finish()?));
    };
    open.write_all(&part)?;
    let done = std::mem::take(open.get_mut());
    Ok((Some(open), done))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use futures_util::StreamExt;
    use http::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_accepted_by_those_who_say_so() {
        for (value, accepts) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip; q=1", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=x", false),
            ("identity", false),
            ("xgzip", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepts_gzip(&headers), accepts, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn what_was_compressed_in_parts_is_the_whole() {
        let parts = [b"one ".repeat(100_000), Vec::new(), b"two".to_vec()];
        let whole = parts.concat();
        let compressed = gzip(stream::iter(parts.map(|part| Ok(Bytes::from(part)))));
        let compressed: Vec<_> = compressed.map(Result::unwrap).collect().await;
        let compressed = compressed.concat();
        assert!(compressed.len() < whole.len() / 10);
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&compressed[..])
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, whole);
    }

    #[tokio::test]
    async fn what_breaks_off_has_no_end() {
        let parts = [Ok(Bytes::from_static(b"one")), Err(Error::internal("broken"))];
        let answered: Vec<_> = gzip(stream::iter(parts)).collect().await;
        assert!(answered.last().unwrap().is_err());
    }
}
