//! Designs.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl,
    SelectableHelper, dsl::sql, sql_types::Bool,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};
use time::OffsetDateTime;

use crate::{
    model::{
        Author, CloudProvider, Description, DesignId, DesignName, DesignStatus, PrincipalKind,
        canvas::{Canvas, CanvasText},
        design::{Design, DesignChange, DesignFilter, DesignRow, Shown},
        template::{Template, TemplateLabel},
        user::UserName,
    },
    schema::{clock_timestamp, designs, templates, user_names},
};

/// Designs beside the names of their creators and the labels of their templates.
macro_rules! labelled {
    () => {
        designs::table
            .left_join(
                user_names::table.on(user_names::org_id
                    .eq(designs::org_id)
                    .and(user_names::user_id.eq(designs::creator_id))
                    .and(designs::creator_kind.eq(PrincipalKind::User))),
            )
            .left_join(
                templates::table.on(templates::org_id
                    .nullable()
                    .eq(designs::template_org_id)
                    .and(templates::id.nullable().eq(designs::template_id))),
            )
    };
}
/// Makes a design.
pub(crate) async fn insert(
    tx: &mut Tx,
    (name, description): (&DesignName, &Description),
    cloud_provider: CloudProvider,
    canvas: &Canvas,
    template: Option<&Template>,
) -> Result<Design> {
    let author = Author::of(tx.principal())?;
    let row = DesignRow {
        org_id: tx.org(),
        id: DesignId::new(),
        name,
        description,
        cloud_provider,
        canvas: canvas.text(),
        canvas_hash: canvas.hash(),
        template_org_id: template.map(|template| template.org_id),
        template_id: template.map(|template| template.id),
        creator_kind: author.kind,
        creator_id: author.id,
    };
    Ok(diesel::insert_into(designs::table)
        .values(row)
        .returning(Design::as_returning())
        .get_result(tx)
        .await?)
}

/// A design and its canvas.
pub(crate) async fn find(tx: &mut Tx, id: DesignId) -> Result<Option<(Design, CanvasText)>> {
    Ok(designs::table
        .find((tx.org(), id))
        .filter(designs::deleted_at.is_null())
        .select((Design::as_select(), designs::canvas))
        .first(tx)
        .await
        .optional()?)
}

/// A design, held until the transaction ends: of two who write, the second sees what the first wrote.
pub(crate) async fn lock(tx: &mut Tx, id: DesignId) -> Result<Option<Design>> {
    Ok(designs::table
        .find((tx.org(), id))
        .filter(designs::deleted_at.is_null())
        .select(Design::as_select())
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

/// The canvas of a design.
pub(crate) async fn canvas(tx: &mut Tx, id: DesignId) -> Result<CanvasText> {
    Ok(designs::table
        .find((tx.org(), id))
        .select(designs::canvas)
        .first(tx)
        .await?)
}

/// Whether there is such a design.
pub(crate) async fn exists(tx: &mut Tx, id: DesignId) -> Result<bool> {
    let found = designs::table
        .find((tx.org(), id))
        .filter(designs::deleted_at.is_null());
    Ok(diesel::select(diesel::dsl::exists(found)).get_result(tx).await?)
}

/// What is shown of a design's creator and template.
pub(crate) async fn labels(tx: &mut Tx, id: DesignId) -> Result<(Option<UserName>, Option<TemplateLabel>)> {
    Ok(labelled!()
        .filter(designs::org_id.eq(tx.org()).and(designs::id.eq(id)))
        .select((Option::<UserName>::as_select(), Option::<TemplateLabel>::as_select()))
        .first(tx)
        .await?)
}

/// Designs with what is shown beside them, last updated first, after those up to `after`; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &DesignFilter,
    after: Option<(OffsetDateTime, DesignId)>,
    limit: i64,
) -> Result<Vec<Shown>> {
    let mut query = labelled!()
        .filter(designs::org_id.eq(tx.org()).and(designs::deleted_at.is_null()))
        .select((
            Design::as_select(),
            Option::<UserName>::as_select(),
            Option::<TemplateLabel>::as_select(),
        ))
        .order((designs::updated_at.desc(), designs::id.desc()))
        .limit(limit)
        .into_boxed();
    if let Some(status) = filter.status {
        query = query.filter(has_status(status));
    }
    if let Some(creator) = filter.creator {
        query = query.filter(designs::creator_id.eq(creator));
    }
    if let Some((time, id)) = after {
        query = query.filter(
            designs::updated_at
                .le(time)
                .and(designs::updated_at.lt(time).or(designs::id.lt(id))),
        );
    }
    let rows: Vec<(Design, Option<UserName>, Option<TemplateLabel>)> = query.load(tx).await?;
    Ok(rows
        .into_iter()
        .map(|(design, creator, template)| Shown {
            design,
            canvas: None,
            creator,
            template,
        })
        .collect())
}

/// Writes what is to change, and the next revision.
pub(crate) async fn update(tx: &mut Tx, design: &Design, change: &DesignChange) -> Result<Design> {
    Ok(diesel::update(designs::table.find((tx.org(), design.id)))
        .set((
            change.name.as_ref().map(|name| designs::name.eq(name)),
            change
                .description
                .as_ref()
                .map(|description| designs::description.eq(description)),
            change
                .cloud_provider
                .map(|provider| designs::cloud_provider.eq(provider)),
            change.canvas.as_ref().map(|canvas| {
                (
                    designs::canvas.eq(canvas.text()),
                    designs::canvas_hash.eq(canvas.hash()),
                )
            }),
            designs::revision.eq(designs::revision + 1),
            designs::updated_at.eq(clock_timestamp()),
        ))
        .returning(Design::as_returning())
        .get_result(tx)
        .await?)
}

/// Writes that a version was published, and the next revision.
pub(crate) async fn update_published(tx: &mut Tx, design: &Design, number: i32) -> Result<Design> {
    Ok(diesel::update(designs::table.find((tx.org(), design.id)))
        .set((
            designs::status.eq(DesignStatus::Published),
            designs::latest_version.eq(number),
            designs::revision.eq(designs::revision + 1),
            designs::updated_at.eq(clock_timestamp()),
        ))
        .returning(Design::as_returning())
        .get_result(tx)
        .await?)
}

/// Marks a design as deleted, which is a revision too.
pub(crate) async fn update_deleted(tx: &mut Tx, design: &Design) -> Result<Design> {
    Ok(diesel::update(designs::table.find((tx.org(), design.id)))
        .set((
            designs::deleted_at.eq(clock_timestamp().nullable()),
            designs::revision.eq(designs::revision + 1),
            designs::updated_at.eq(clock_timestamp()),
        ))
        .returning(Design::as_returning())
        .get_result(tx)
        .await?)
}

/// The status as a literal, which the planner proves a partial index from.
fn has_status(status: DesignStatus) -> diesel::expression::SqlLiteral<Bool> {
    sql(match status {
        DesignStatus::Draft => "designs.status = 'draft'",
        DesignStatus::Published => "designs.status = 'published'",
        DesignStatus::Archived => "designs.status = 'archived'",
    })
}
