//! Templates: the organization's and the platform's.

use std::collections::HashMap;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper, dsl::sql, sql_types::Bool,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::OrgId};

use crate::{
    model::{
        CloudProvider, TemplateId,
        canvas::CanvasText,
        readers,
        template::{Template, TemplateFilter, TemplateLabel},
    },
    schema::templates,
};

/// A template and its canvas.
pub(crate) async fn find(tx: &mut Tx, id: TemplateId) -> Result<Option<(Template, CanvasText)>> {
    Ok(templates::table
        .filter(templates::org_id.eq_any(readers(tx.org())))
        .filter(templates::id.eq(id))
        .select((Template::as_select(), templates::canvas))
        .first(tx)
        .await
        .optional()?)
}

/// What designs show of a template, and the revision that it is of.
pub(crate) async fn find_label(tx: &mut Tx, org: OrgId, id: TemplateId) -> Result<Option<(TemplateLabel, i64)>> {
    Ok(templates::table
        .find((org, id))
        .select((TemplateLabel::as_select(), templates::revision))
        .first(tx)
        .await
        .optional()?)
}

/// The canvases of some templates.
pub(crate) async fn canvases(tx: &mut Tx, ids: &[TemplateId]) -> Result<HashMap<TemplateId, CanvasText>> {
    let rows: Vec<(TemplateId, CanvasText)> = templates::table
        .filter(templates::org_id.eq_any(readers(tx.org())))
        .filter(templates::id.eq_any(ids))
        .select((templates::id, templates::canvas))
        .load(tx)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Templates by name, after a name and id; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &TemplateFilter,
    after: Option<(String, TemplateId)>,
    limit: i64,
) -> Result<Vec<Template>> {
    let mut query = templates::table
        .filter(templates::org_id.eq_any(readers(tx.org())))
        .select(Template::as_select())
        .order((templates::name, templates::id))
        .limit(limit)
        .into_boxed();
    if let Some(category) = &filter.category {
        query = query.filter(templates::category.eq(category));
    }
    if let Some(provider) = filter.cloud_provider {
        query = query.filter(is_for(provider));
    }
    if let Some((name, id)) = after {
        query = query.filter(
            templates::name
                .ge(name.clone())
                .and(templates::name.gt(name).or(templates::id.gt(id))),
        );
    }
    Ok(query.load(tx).await?)
}

/// The provider as a literal, which the planner proves a partial index from.
fn is_for(provider: CloudProvider) -> diesel::expression::SqlLiteral<Bool> {
    sql(match provider {
        CloudProvider::Aws => "templates.cloud_provider = 'aws'",
        CloudProvider::Azure => "templates.cloud_provider = 'azure'",
        CloudProvider::Gcp => "templates.cloud_provider = 'gcp'",
        CloudProvider::Builtin => "templates.cloud_provider = 'builtin'",
    })
}
