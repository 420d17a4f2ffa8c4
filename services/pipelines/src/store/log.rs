//! Logs of attempts: pieces of at most 1 MiB, sealed one by one, that join on without a gap.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{
    Error, Reason, Result,
    crypto::{KeyRing, OpenError},
    db::Tx,
    ids::OrgId,
};
use secrecy::SecretSlice;

use crate::{
    model::{AttemptId, StageId, attempt::Attempt, log::Piece},
    schema::{stage_attempts, stage_logs},
};

/// Adds a piece where the log of an attempt ends; the attempt is held. Answers where the log ends now.
pub(crate) async fn insert(tx: &mut Tx, ring: &KeyRing, attempt: &Attempt, content: &[u8]) -> Result<i64> {
    let (start, length) = (
        attempt.log_bytes,
        i32::try_from(content.len()).map_err(Error::internal)?,
    );
    diesel::insert_into(stage_logs::table)
        .values((
            stage_logs::org_id.eq(tx.org()),
            stage_logs::attempt_id.eq(attempt.id),
            stage_logs::start_offset.eq(start),
            stage_logs::length.eq(length),
            stage_logs::content.eq(ring.seal(content, &place(tx.org(), attempt.id, start))),
        ))
        .execute(tx)
        .await?;
    let end = start + i64::from(length);
    diesel::update(stage_attempts::table.find((tx.org(), attempt.id)))
        .set(stage_attempts::log_bytes.eq(end))
        .execute(tx)
        .await?;
    Ok(end)
}

/// An attempt at a stage by its number, or the newest for 0.
pub(crate) async fn find_attempt(tx: &mut Tx, stage: StageId, number: i32) -> Result<Option<Attempt>> {
    let mut query = stage_attempts::table
        .filter(
            stage_attempts::org_id
                .eq(tx.org())
                .and(stage_attempts::stage_id.eq(stage)),
        )
        .order(stage_attempts::number.desc())
        .limit(1)
        .select(Attempt::as_select())
        .into_boxed();
    if number != 0 {
        query = query.filter(stage_attempts::number.eq(number));
    }
    Ok(query.first(tx).await.optional()?)
}

/// The piece that holds the byte at `offset`.
pub(crate) async fn find(tx: &mut Tx, attempt: AttemptId, offset: i64) -> Result<Option<Piece>> {
    let before = stage_logs::org_id
        .eq(tx.org())
        .and(stage_logs::attempt_id.eq(attempt))
        .and(stage_logs::start_offset.le(offset));
    let piece: Option<Piece> = stage_logs::table
        .filter(before)
        .order(stage_logs::start_offset.desc())
        .select(Piece::as_select())
        .first(tx)
        .await
        .optional()?;
    Ok(piece.filter(|piece| offset < piece.start_offset + i64::from(piece.length)))
}

/// The bytes of a piece.
///
/// # Errors
/// KEY_MISSING, CONTENT_CORRUPT.
pub(crate) fn open(ring: &KeyRing, org: OrgId, attempt: AttemptId, piece: &Piece) -> Result<SecretSlice<u8>> {
    opened(ring, &piece.content, &place(org, attempt, piece.start_offset))
}

/// What was sealed at a place.
///
/// # Errors
/// KEY_MISSING, CONTENT_CORRUPT.
pub(super) fn opened(ring: &KeyRing, sealed: &[u8], place: &[u8]) -> Result<SecretSlice<u8>> {
    ring.open(sealed, place).map_err(|why| match why {
        OpenError::UnknownKey(_) => Error::new(
            Reason::KeyMissing,
            "the key that this was sealed under is not in the service's ring",
        )
        .with_source(why),
        OpenError::Corrupt => Error::new(Reason::ContentCorrupt, "what is stored does not open").with_source(why),
    })
}

/// Where a piece stands; put elsewhere, it does not open.
fn place(org: OrgId, attempt: AttemptId, offset: i64) -> Vec<u8> {
    format!("stage_logs|{org}|{attempt}|{offset}").into_bytes()
}
