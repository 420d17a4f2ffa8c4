//! Designs: what is asked for, what is stored, and what is shown.

use diesel::prelude::{Insertable, Queryable, Selectable};
use kit::{Error, Reason, Result, db::About, ids::OrgId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    CloudProvider, Description, DesignId, DesignName, DesignStatus, Etag, PrincipalId, PrincipalKind, TemplateId,
    canvas::{Canvas, CanvasHash, CanvasText},
    micros,
    template::TemplateLabel,
    user::UserName,
};
use crate::schema::designs;

/// A design to make.
#[derive(Clone, Debug)]
pub struct NewDesign {
    /// Its name.
    pub name: DesignName,
    /// Its description.
    pub description: Description,
    /// What it starts from.
    pub start: Start,
}

/// What a new design starts from.
#[derive(Clone, Debug)]
pub enum Start {
    /// A canvas, blank or drawn.
    Canvas(CloudProvider, Canvas),
    /// A template, and the provider to use instead of its own.
    Template(TemplateId, Option<CloudProvider>),
}

/// What is to change in a design; nothing of what is absent.
#[derive(Clone, Debug, Default)]
pub struct DesignChange {
    /// A new name.
    pub name: Option<DesignName>,
    /// A new description.
    pub description: Option<Description>,
    /// Another provider.
    pub cloud_provider: Option<CloudProvider>,
    /// Another canvas.
    pub canvas: Option<Canvas>,
}

/// Which designs to list.
#[derive(Clone, Debug, Serialize)]
pub struct DesignFilter {
    /// Only with this status.
    pub status: Option<DesignStatus>,
    /// Only by this creator.
    pub creator: Option<PrincipalId>,
}

/// A design's row without its canvas.
#[derive(Clone, Debug, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = designs, check_for_backend(diesel::pg::Pg))]
pub struct Design {
    /// Its id.
    pub id: DesignId,
    /// Its name.
    pub name: DesignName,
    /// Its description.
    pub description: Description,
    /// What it is drawn for.
    pub cloud_provider: CloudProvider,
    /// Where it stands.
    pub status: DesignStatus,
    /// The hash of its canvas.
    pub canvas_hash: CanvasHash,
    /// The organization of its template.
    pub template_org_id: Option<OrgId>,
    /// The template it was made from.
    pub template_id: Option<TemplateId>,
    /// What kind of creator made it.
    pub creator_kind: PrincipalKind,
    /// Who made it.
    pub creator_id: PrincipalId,
    /// The newest version's number, 0 for none.
    pub latest_version: i32,
    /// Grows by one with each write.
    pub revision: i64,
    /// When it was made.
    #[serde(with = "micros")]
    pub created_at: OffsetDateTime,
    /// When it was last written.
    #[serde(with = "micros")]
    pub updated_at: OffsetDateTime,
}

/// A design's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = designs, check_for_backend(diesel::pg::Pg))]
pub struct DesignRow<'a> {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: DesignId,
    /// Its name.
    pub name: &'a DesignName,
    /// Its description.
    pub description: &'a Description,
    /// What it is drawn for.
    pub cloud_provider: CloudProvider,
    /// Its canvas.
    pub canvas: &'a CanvasText,
    /// The hash of its canvas.
    pub canvas_hash: CanvasHash,
    /// The organization of its template.
    pub template_org_id: Option<OrgId>,
    /// The template it is made from.
    pub template_id: Option<TemplateId>,
    /// What kind of creator makes it.
    pub creator_kind: PrincipalKind,
    /// Who makes it.
    pub creator_id: PrincipalId,
}

/// A design with what is shown beside it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The design.
    pub design: Design,
    /// Its canvas, left out in lists.
    pub canvas: Option<Canvas>,
    /// Its creator's name, where known.
    pub creator: Option<UserName>,
    /// Its template's name and category.
    pub template: Option<TemplateLabel>,
}

impl Design {
    /// The current etag.
    pub fn etag(&self) -> Etag {
        Etag::of(self.revision)
    }

    /// Refuses a caller who has seen another revision than the current one.
    ///
    /// # Errors
    /// ETAG_MISMATCH with the current etag.
    pub fn expect(&self, etag: &Etag) -> Result<()> {
        if *etag == self.etag() {
            return Ok(());
        }
        Err(
            Error::new(Reason::EtagMismatch, "the design has changed since; read it again")
                .with("current_etag", String::from(self.etag())),
        )
    }
}

impl About for Design {
    const TYPE: &'static str = "design";

    fn id(&self) -> String {
        self.id.to_string()
    }
}
