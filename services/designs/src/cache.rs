//! What reads find in Redis: designs for 10 minutes, users' names for 30, templates' labels for 20.
//!
//! An entry carries the version of its row, so a slow reader cannot put an old row back after a write.
//! A write takes the old entry away after its commit, and its event does so again: a crash in between leaves nothing stale.

use std::time::Duration;

use kit::{
    Result,
    auth::scope::OrgScope,
    cache::Cache,
    db::Db,
    failpoint,
    ids::{OrgId, UserId},
    redis::Redis,
};
use serde::{Deserialize, Serialize};

use crate::{
    model::{
        DesignId, PrincipalId, PrincipalKind, TemplateId,
        canvas::{Canvas, CanvasText},
        design::{Design, Shown},
        template::TemplateLabel,
        user::UserName,
    },
    store,
};

const DESIGNS_LIVE: Duration = Duration::from_secs(600);
const USER_NAMES_LIVE: Duration = Duration::from_secs(1800);
const TEMPLATES_LIVE: Duration = Duration::from_secs(1200);

/// The service's caches.
#[derive(Clone)]
pub(crate) struct Caches {
    designs: Cache,
    user_names: Cache,
    templates: Cache,
}

/// A design as it is cached: canvas included, names not, since they change by themselves.
#[derive(Serialize, Deserialize)]
struct Cached {
    design: Design,
    canvas: CanvasText,
}

impl Caches {
    pub(crate) fn new(redis: &Redis) -> Self {
        Caches {
            designs: Cache::new(redis.clone(), "designs.v1"),
            user_names: Cache::new(redis.clone(), "user_names.v1"),
            templates: Cache::new(redis.clone(), "templates.v1"),
        }
    }

    /// A design with everything that is shown of it.
    pub(crate) async fn design(&self, db: &Db, scope: &OrgScope, id: DesignId) -> Result<Option<Shown>> {
        let org = scope.org();
        let load = || async {
            let found = db.read(scope, async |tx| store::design::find(tx, id).await).await?;
            failpoint::hit_in("designs.get.loaded", &id.to_string()).await?;
            Ok(found.map(|(design, canvas)| {
                let revision = design.revision;
                (Cached { design, canvas }, revision)
            }))
        };
        let found = self
            .designs
            .get_or_load(&design_key(org, id), DESIGNS_LIVE, load)
            .await?;
        let Some(Cached { design, canvas }) = found else {
            return Ok(None);
        };
        let creator = match design.creator_kind {
            PrincipalKind::User => self.user_name(db, scope, design.creator_id).await?,
            PrincipalKind::ApiKey => None,
        };
        let template = match (design.template_org_id, design.template_id) {
            (Some(owner), Some(template)) => self.template(db, scope, owner, template).await?,
            _ => None,
        };
        Ok(Some(Shown {
            canvas: Some(Canvas::read(canvas)?),
            design,
            creator,
            template,
        }))
    }

    async fn user_name(&self, db: &Db, scope: &OrgScope, user: PrincipalId) -> Result<Option<UserName>> {
        let load = || db.read(scope, async |tx| store::user_name::find(tx, user).await);
        self.user_names
            .get_or_load(&user_key(scope.org(), user), USER_NAMES_LIVE, load)
            .await
    }

    async fn template(&self, db: &Db, scope: &OrgScope, owner: OrgId, id: TemplateId) -> Result<Option<TemplateLabel>> {
        let load = || db.read(scope, async |tx| store::template::find_label(tx, owner, id).await);
        self.templates
            .get_or_load(&format!("{owner}:{id}"), TEMPLATES_LIVE, load)
            .await
    }

    /// A design has this revision now.
    pub(crate) async fn design_changed(&self, org: OrgId, id: DesignId, revision: i64) -> Result<()> {
        self.designs.invalidate(&design_key(org, id), revision).await
    }

    /// A user's name has this version now.
    pub(crate) async fn user_changed(&self, org: OrgId, user: UserId, version: i64) -> Result<()> {
        self.user_names
            .invalidate(&user_key(org, PrincipalId(user.0)), version)
            .await
    }
}

fn design_key(org: OrgId, id: DesignId) -> String {
    format!("{org}:{id}")
}

fn user_key(org: OrgId, user: PrincipalId) -> String {
    format!("{org}:{user}")
}
