//! Contents, made small: zstd, whole or by what distinguishes a version from a newer one.

use std::io;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, get_error_name};

/// How hard zstd tries: level 3 takes 10 ms for a megabyte of JSON at most.
pub(crate) const LEVEL: i32 = 3;
/// The longest content that is told by another one, and that another one is told by: both are in memory then.
pub(crate) const MOST_DELTA_BYTES: i64 = 16 << 20;
/// A window of 32 MiB: it reaches from the end of the longest content to the start of the one that it is told by.
const WIDEST_WINDOW: u32 = 25;

/// A content, packed; by the one that it is told by, if there is one.
pub(crate) fn pack(plain: &[u8], base: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let mut context = CCtx::create();
    set(&mut context, CParameter::CompressionLevel(LEVEL))?;
    if let Some(base) = base {
        let reach = (plain.len() + base.len()).next_power_of_two().trailing_zeros();
        set(&mut context, CParameter::WindowLog(reach.clamp(16, WIDEST_WINDOW)))?;
        set(&mut context, CParameter::EnableLongDistanceMatching(true))?;
        context.ref_prefix(base).map_err(named)?;
    }
    let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()));
    context.compress2(&mut packed, plain).map_err(named)?;
    Ok(packed)
}

/// The content of `size` bytes that was packed.
pub(crate) fn unpack(packed: &[u8], base: Option<&[u8]>, size: usize) -> io::Result<Vec<u8>> {
    let mut context = DCtx::create();
    if let Some(base) = base {
        context.ref_prefix(base).map_err(named)?;
    }
    let mut plain = Vec::with_capacity(size);
    context.decompress(&mut plain, packed).map_err(named)?;
    Ok(plain)
}

fn set(context: &mut CCtx<'_>, parameter: CParameter) -> io::Result<()> {
    context.set_parameter(parameter).map(drop).map_err(named)
}

fn named(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// Unpacks a whole content as its parts come.
pub(crate) struct Unpacking(zstd::stream::raw::Decoder<'static>);

impl Unpacking {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Unpacking(zstd::stream::raw::Decoder::new()?))
    }

    /// Unpacks from `packed` on into `plain`, until that has no room left or the other is used up; says how much was used.
    pub(crate) fn step(&mut self, packed: &[u8], plain: &mut Vec<u8>) -> io::Result<usize> {
        use zstd::stream::raw::{InBuffer, Operation, OutBuffer};
        let mut input = InBuffer::around(packed);
        let written = plain.len();
        let mut output = OutBuffer::around_pos(plain, written);
        while output.pos() < output.capacity() {
            let before = (input.pos(), output.pos());
            self.0.run(&mut input, &mut output)?;
            if before == (input.pos(), output.pos()) {
                break;
            }
        }
        Ok(input.pos())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Something like a state of so many resources, of which one in `every` says something else in each round.
    fn state(resources: usize, every: usize, round: usize) -> Vec<u8> {
        let mut text = String::from("{\"resources\":[");
        for n in 0..resources {
            let round = if n % every == 0 { round } else { 0 };
            let hash = blake3::hash(format!("{n}.{round}").as_bytes());
            text.push_str(&format!("{{\"id\":\"{}\",\"n\":{n}}},", hash.to_hex()));
        }
        text.into_bytes()
    }

    #[test]
    fn a_content_of_ten_megabytes_is_told_by_its_successor_in_few_bytes() {
        // Random digits are the worst that a state can hold: what is saved comes from the successor alone.
        let (older, newer) = (state(125_000, 2000, 1), state(125_000, 2000, 2));
        assert!(newer.len() > 10 << 20);
        let whole = pack(&older, None).unwrap();
        let told = pack(&older, Some(&newer)).unwrap();
        assert!(told.len() * 200 < whole.len(), "{} of {}", told.len(), whole.len());
        assert!(unpack(&told, Some(&newer), older.len()).unwrap() == older);
        assert!(unpack(&whole, None, older.len()).unwrap() == older);
        // By another content it is another one, or none: what is told stands at a distance from its end.
        let other = unpack(&told, Some(&newer[..newer.len() - 1]), older.len());
        assert!(other.ok().is_none_or(|other| other != older));
    }

    #[test]
    fn what_is_packed_comes_back_in_parts_of_any_size() {
        let plain = state(5000, 1, 1);
        let packed = pack(&plain, None).unwrap();
        for (part, room) in [(1, 7), (1000, 100_000), (packed.len(), 1), (packed.len(), 1 << 20)] {
            let mut unpacking = Unpacking::new().unwrap();
            let mut back = Vec::new();
            for part in packed.chunks(part) {
                let mut rest = part;
                loop {
                    let mut out = Vec::with_capacity(room);
                    let used = unpacking.step(rest, &mut out).unwrap();
                    rest = &rest[used..];
                    back.extend_from_slice(&out);
                    if rest.is_empty() && out.len() < room {
                        break;
                    }
                }
            }
            assert!(back == plain, "{part} {room}");
        }
    }
}
