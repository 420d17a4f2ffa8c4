//! Logs: pieces that join on without a gap.

use diesel::prelude::{Queryable, Selectable};

use crate::schema::stage_logs;

/// The most bytes of one piece.
pub const MOST_PIECE_BYTES: usize = 1 << 20;
/// The most bytes of an attempt's log.
pub const MOST_LOG_BYTES: i64 = 64 << 20;

/// A piece of a log, sealed.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = stage_logs, check_for_backend(diesel::pg::Pg))]
pub struct Piece {
    /// Where it starts.
    pub start_offset: i64,
    /// How many bytes it has in clear.
    pub length: i32,
    /// Its bytes, sealed.
    pub content: Vec<u8>,
}
