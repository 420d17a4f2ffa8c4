//! Versions; there is no query that changes one, and the database would refuse it.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{Author, DesignId, Message, canvas::CanvasText, design::Design, version::Version},
    schema::design_versions,
};

/// Freezes a locked design's canvas as the version after its newest.
pub(crate) async fn insert(tx: &mut Tx, design: &Design, canvas: &CanvasText, message: &Message) -> Result<Version> {
    let author = Author::of(tx.principal())?;
    Ok(diesel::insert_into(design_versions::table)
        .values((
            design_versions::org_id.eq(tx.org()),
            design_versions::design_id.eq(design.id),
            design_versions::number.eq(design.latest_version + 1),
            design_versions::message.eq(message),
            design_versions::canvas.eq(canvas),
            design_versions::canvas_hash.eq(design.canvas_hash),
            design_versions::author_kind.eq(author.kind),
            design_versions::author_id.eq(author.id),
        ))
        .returning(Version::as_returning())
        .get_result(tx)
        .await?)
}

/// A version by its number.
pub(crate) async fn find(tx: &mut Tx, design: DesignId, number: i32) -> Result<Option<Version>> {
    Ok(design_versions::table
        .find((tx.org(), design, number))
        .select(Version::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// The canvas of a version.
pub(crate) async fn canvas(tx: &mut Tx, design: DesignId, number: i32) -> Result<Option<CanvasText>> {
    Ok(design_versions::table
        .find((tx.org(), design, number))
        .select(design_versions::canvas)
        .first(tx)
        .await
        .optional()?)
}

/// The versions of a design below a number, newest first; at most `limit`.
pub(crate) async fn list(tx: &mut Tx, design: DesignId, below: Option<i32>, limit: i64) -> Result<Vec<Version>> {
    Ok(design_versions::table
        .filter(design_versions::org_id.eq(tx.org()))
        .filter(design_versions::design_id.eq(design))
        .filter(design_versions::number.lt(below.unwrap_or(i32::MAX)))
        .order(design_versions::number.desc())
        .limit(limit)
        .select(Version::as_select())
        .load(tx)
        .await?)
}
