//! Designs, their versions and resources.

use api::designs::v1;
use kit::{Error, Violations, ids, mask::Mask};

use super::{canvas, provider, required_provider, timestamp};
use crate::model::{
    Description, DesignId, DesignName, Etag, Message, PrincipalKind, TemplateId,
    canvas::Canvas,
    design::{DesignChange, NewDesign, Shown, Start},
    drift::Drift,
    resource::Resource,
    template::{Template, TemplateLabel},
    user::UserName,
    version::Version,
};

/// The fields that UpdateDesign writes.
const WRITABLE: [&str; 4] = ["name", "description", "cloud_provider", "canvas"];

impl TryFrom<v1::CreateDesignRequest> for NewDesign {
    type Error = Error;

    fn try_from(request: v1::CreateDesignRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let name = DesignName::parse("name", request.name, &mut violations);
        let description = Description::parse("description", request.description, &mut violations);
        let start = if request.template_id.is_empty() {
            let provider = required_provider("cloud_provider", request.cloud_provider, &mut violations);
            let canvas = canvas::read("canvas", request.canvas.unwrap_or_default(), &mut violations);
            provider
                .zip(canvas)
                .map(|(provider, canvas)| Start::Canvas(provider, canvas))
        } else {
            let provider = provider("cloud_provider", request.cloud_provider, &mut violations);
            if let Some(drawn) = request
                .canvas
                .filter(|canvas| !canvas.nodes.is_empty() || !canvas.edges.is_empty())
            {
                violations.add("canvas", "must be empty with a template");
                canvas::read("canvas", drawn, &mut violations);
            }
            ids::required::<TemplateId>("template_id", &request.template_id, &mut violations)
                .map(|template| Start::Template(template, provider))
        };
        let start = violations.finish(start)?;
        Ok(NewDesign {
            name,
            description,
            start,
        })
    }
}

/// A change to a design that was seen at an etag.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) id: DesignId,
    pub(crate) etag: Etag,
    pub(crate) change: DesignChange,
}

impl TryFrom<v1::UpdateDesignRequest> for Update {
    type Error = Error;

    fn try_from(request: v1::UpdateDesignRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("design_id", &request.design_id, &mut violations);
        violations.check(!request.etag.is_empty(), "etag", "is required");
        let etag = Etag::parse("etag", request.etag, &mut violations);
        let mask = Mask::parse(request.update_mask.as_ref(), &WRITABLE, &mut violations);
        violations.check(request.design.is_some(), "design", "is required");
        let mut change = DesignChange::default();
        if let (Some(mask), Some(design)) = (mask, request.design) {
            if mask.has("name") {
                change.name = Some(DesignName::parse("design.name", design.name, &mut violations));
            }
            if mask.has("description") {
                let description = Description::parse("design.description", design.description, &mut violations);
                change.description = Some(description);
            }
            if mask.has("cloud_provider") {
                let number = design.cloud_provider;
                change.cloud_provider = required_provider("design.cloud_provider", number, &mut violations);
            }
            if mask.has("canvas") {
                let drawn = design.canvas.unwrap_or_default();
                change.canvas = canvas::read("design.canvas", drawn, &mut violations);
            }
        }
        let id = violations.finish(id)?;
        Ok(Update { id, etag, change })
    }
}

/// A design to delete, if it still has the etag.
#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) id: DesignId,
    pub(crate) etag: Etag,
}

impl TryFrom<v1::DeleteDesignRequest> for Delete {
    type Error = Error;

    fn try_from(request: v1::DeleteDesignRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("design_id", &request.design_id, &mut violations);
        let etag = Etag::parse("etag", request.etag, &mut violations);
        let id = violations.finish(id)?;
        Ok(Delete { id, etag })
    }
}

/// A design to publish, if it still has the etag.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) id: DesignId,
    pub(crate) etag: Etag,
    pub(crate) message: Message,
}

impl TryFrom<v1::PublishDesignRequest> for Publish {
    type Error = Error;

    fn try_from(request: v1::PublishDesignRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("design_id", &request.design_id, &mut violations);
        let etag = Etag::parse("etag", request.etag, &mut violations);
        let message = Message::parse("message", request.message, &mut violations);
        let id = violations.finish(id)?;
        Ok(Publish { id, etag, message })
    }
}

impl TryFrom<v1::GetDesignRequest> for DesignId {
    type Error = Error;

    fn try_from(request: v1::GetDesignRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("design_id", &request.design_id, &mut violations);
        violations.finish(id)
    }
}

impl From<Shown> for v1::Design {
    fn from(shown: Shown) -> Self {
        let Shown {
            design,
            canvas,
            creator,
            template,
        } = shown;
        let etag = design.etag().into();
        let creator = creator.filter(|_| design.creator_kind == PrincipalKind::User);
        let UserName { first_name, last_name } = creator.unwrap_or_default();
        v1::Design {
            id: design.id.to_string(),
            name: design.name.into(),
            description: design.description.into(),
            cloud_provider: v1::CloudProvider::from(design.cloud_provider).into(),
            status: v1::DesignStatus::from(design.status).into(),
            canvas: canvas.map(Into::into),
            canvas_hash: design.canvas_hash.to_string(),
            template: design.template_id.map(|id| template_reference(id, template)),
            creator: Some(v1::Creator {
                id: design.creator_id.to_string(),
                first_name,
                last_name,
            }),
            latest_version: design.latest_version,
            etag,
            created_at: Some(timestamp(design.created_at)),
            updated_at: Some(timestamp(design.updated_at)),
        }
    }
}

fn template_reference(id: TemplateId, label: Option<TemplateLabel>) -> v1::TemplateReference {
    let (name, category) = label
        .map(|label| (label.name.into(), label.category.into()))
        .unwrap_or_default();
    v1::TemplateReference {
        id: id.to_string(),
        name,
        category,
    }
}

impl From<Version> for v1::Version {
    fn from(version: Version) -> Self {
        v1::Version {
            number: version.number,
            message: version.message.into(),
            canvas_hash: version.canvas_hash.to_string(),
            author_id: version.author_id.to_string(),
            created_at: Some(timestamp(version.created_at)),
        }
    }
}

/// A resource's message, with what has drifted of it.
pub(crate) fn resource(resource: Resource, drifts: Vec<Drift>) -> v1::Resource {
    let address = resource.address().into();
    v1::Resource {
        id: resource.id.to_string(),
        node_id: resource.node_id.into(),
        resource_type: resource.resource_type.into(),
        name: resource.name.into(),
        address,
        drifts: drifts.into_iter().map(Into::into).collect(),
    }
}

/// A template's message.
pub(crate) fn template(template: Template, canvas: Canvas) -> v1::Template {
    let platform = template.org_id == ids::OrgId::PLATFORM;
    v1::Template {
        id: template.id.to_string(),
        name: template.name.into(),
        description: template.description.into(),
        category: template.category.into(),
        cloud_provider: v1::CloudProvider::from(template.cloud_provider).into(),
        canvas: Some(canvas.into()),
        platform,
    }
}
