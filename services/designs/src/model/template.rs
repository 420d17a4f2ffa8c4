//! Templates: what designs start from.

use diesel::prelude::{Queryable, Selectable};
use kit::ids::OrgId;
use serde::{Deserialize, Serialize};

use super::{Category, CloudProvider, Description, TemplateId, TemplateName};
use crate::schema::templates;

/// Which templates to list.
#[derive(Clone, Debug, Serialize)]
pub struct TemplateFilter {
    /// Only of this category.
    pub category: Option<Category>,
    /// Only for this provider.
    pub cloud_provider: Option<CloudProvider>,
}

/// A template's row without its canvas.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = templates, check_for_backend(diesel::pg::Pg))]
pub struct Template {
    /// Whose it is: the caller's organization's or the platform's.
    pub org_id: OrgId,
    /// Its id.
    pub id: TemplateId,
    /// Its name.
    pub name: TemplateName,
    /// Its description.
    pub description: Description,
    /// Its category.
    pub category: Category,
    /// What it is drawn for.
    pub cloud_provider: CloudProvider,
}

/// What a design shows of its template.
#[derive(Clone, Debug, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = templates, check_for_backend(diesel::pg::Pg))]
pub struct TemplateLabel {
    /// The template's name.
    pub name: TemplateName,
    /// The template's category.
    pub category: Category,
}
