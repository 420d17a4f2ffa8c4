//! The table: one row per RPC, and nothing that a row does not say is assumed of an RPC.

use api::{
    audit::v1::{GetAuditLogRequest, ListAuditLogsRequest},
    designs::v1::{
        CloudProvider, CreateDesignRequest, DeleteDesignRequest, Design, GetDesignRequest, ListDesignsRequest,
        ListResourcesRequest, ListTemplatesRequest, ListVersionsRequest, PublishDesignRequest, UpdateDesignRequest,
    },
    events::v1::{HeadRequest, ReplayRequest},
    identity::v1::{
        AcceptInvitationRequest, CheckSessionRequest, CreateApiKeyRequest, ExchangeApiKeyRequest, GetMeRequest,
        GetPermissionSetRequest, GetSigningKeysRequest, InviteMemberRequest, ListMembersRequest, LoginRequest,
        LogoutRequest, PrincipalKind, RefreshTokenRequest, SignUpRequest, SwitchOrganizationRequest,
        UpdateMemberRequest,
    },
};
use kit::Reason;
use prost::Message;
use prost_types::FieldMask;
use uuid::Uuid;

use super::{
    row::{Foreign, Row, Valid},
    world::{Tenant, canvas},
};
use crate::story::request_id;

fn valid(message: impl Message) -> Valid {
    Valid {
        message: message.encode_to_vec(),
        caller: None,
        other: None,
    }
}

fn unique() -> String {
    Uuid::new_v4().simple().to_string()
}

const NONE: Row = Row {
    path: "",
    valid: |_, _| Box::pin(async { valid(GetMeRequest {}) }),
    foreign: &[],
    required: &[],
    free: &[],
    texts: &[],
};

const DESIGN: (&str, Foreign, fn(&Tenant) -> String) =
    ("design_id", Foreign::NotFound, |tenant| tenant.design.id.clone());
const ORG: fn(&Tenant) -> String = |tenant| tenant.owner.org.clone();
const USER: fn(&Tenant) -> String = |tenant| tenant.owner.user.clone();

/// One row per RPC.
pub(crate) const ROWS: &[Row] = &[
    Row {
        path: "/board3.audit.v1.AuditService/GetAuditLog",
        valid: |_, t| {
            Box::pin(async {
                valid(GetAuditLogRequest {
                    audit_log_id: t.audit_log.clone(),
                })
            })
        },
        foreign: &[("audit_log_id", Foreign::NotFound, |tenant| tenant.audit_log.clone())],
        required: &["audit_log_id"],
        ..NONE
    },
    Row {
        path: "/board3.audit.v1.AuditService/ListAuditLogs",
        valid: |_, _| Box::pin(async { valid(ListAuditLogsRequest::default()) }),
        foreign: &[
            ("actor_id", Foreign::Silent, USER),
            ("resource_id", Foreign::Silent, |tenant| tenant.design.id.clone()),
            ("request_id", Foreign::Silent, |_| "sweep".to_owned()),
        ],
        texts: &["resource_id", "request_id"],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/CreateDesign",
        valid: |_, _| {
            Box::pin(async {
                valid(CreateDesignRequest {
                    name: format!("a design {}", unique()),
                    cloud_provider: CloudProvider::Aws.into(),
                    canvas: Some(canvas(2)),
                    request_id: request_id(),
                    ..CreateDesignRequest::default()
                })
            })
        },
        foreign: &[("template_id", Foreign::NotFound, |tenant| tenant.template.clone())],
        required: &["name", "cloud_provider"],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/DeleteDesign",
        valid: |w, t| {
            Box::pin(async {
                let design = w.add_design(t).await;
                valid(DeleteDesignRequest {
                    design_id: design.id,
                    etag: design.etag,
                    request_id: request_id(),
                })
            })
        },
        foreign: &[DESIGN],
        required: &["design_id"],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/GetDesign",
        valid: |_, t| {
            Box::pin(async {
                valid(GetDesignRequest {
                    design_id: t.design.id.clone(),
                })
            })
        },
        foreign: &[DESIGN],
        required: &["design_id"],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/ListDesigns",
        valid: |_, _| Box::pin(async { valid(ListDesignsRequest::default()) }),
        foreign: &[("creator_id", Foreign::Silent, USER)],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/ListResources",
        valid: |_, t| {
            Box::pin(async {
                valid(ListResourcesRequest {
                    design_id: t.design.id.clone(),
                    ..Default::default()
                })
            })
        },
        foreign: &[DESIGN],
        required: &["design_id"],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/ListVersions",
        valid: |_, t| {
            Box::pin(async {
                valid(ListVersionsRequest {
                    design_id: t.design.id.clone(),
                    ..Default::default()
                })
            })
        },
        foreign: &[DESIGN],
        required: &["design_id"],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/PublishDesign",
        valid: |w, t| {
            Box::pin(async {
                let design = w.add_design(t).await;
                valid(PublishDesignRequest {
                    design_id: design.id,
                    etag: design.etag,
                    message: "as swept".to_owned(),
                    request_id: request_id(),
                })
            })
        },
        foreign: &[DESIGN],
        required: &["design_id"],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.DesignService/UpdateDesign",
        valid: |w, t| {
            Box::pin(async {
                let design = w.add_design(t).await;
                let paths = ["name", "description", "cloud_provider", "canvas"];
                valid(UpdateDesignRequest {
                    design_id: design.id,
                    design: Some(Design {
                        name: format!("a new name {}", unique()),
                        cloud_provider: CloudProvider::Gcp.into(),
                        canvas: Some(canvas(4)),
                        ..Design::default()
                    }),
                    update_mask: Some(FieldMask {
                        paths: paths.map(str::to_owned).to_vec(),
                    }),
                    etag: design.etag,
                    request_id: request_id(),
                })
            })
        },
        foreign: &[DESIGN],
        required: &["design_id", "design", "update_mask", "etag"],
        // No mask writes them.
        free: &[
            "design.id",
            "design.status",
            "design.canvas_hash",
            "design.template",
            "design.creator",
            "design.latest_version",
            "design.etag",
            "design.created_at",
            "design.updated_at",
        ],
        ..NONE
    },
    Row {
        path: "/board3.designs.v1.TemplateService/ListTemplates",
        valid: |_, _| Box::pin(async { valid(ListTemplatesRequest::default()) }),
        ..NONE
    },
    Row {
        path: "/board3.events.v1.EventLogService/Head",
        valid: |_, _| Box::pin(async { valid(HeadRequest {}) }),
        ..NONE
    },
    Row {
        path: "/board3.events.v1.EventLogService/Replay",
        valid: |_, _| {
            Box::pin(async {
                valid(ReplayRequest {
                    limit: 10,
                    ..ReplayRequest::default()
                })
            })
        },
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.ApiKeyService/CreateApiKey",
        valid: |_, _| {
            Box::pin(async {
                valid(CreateApiKeyRequest {
                    name: format!("a key {}", unique()),
                    scopes: vec!["identity.api_key.write".to_owned()],
                    request_id: request_id(),
                    ..CreateApiKeyRequest::default()
                })
            })
        },
        required: &["name", "scopes"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/CheckSession",
        valid: |_, t| {
            Box::pin(async {
                valid(CheckSessionRequest {
                    session_id: t.owner.session.clone(),
                    principal_kind: PrincipalKind::User.into(),
                    principal_id: t.owner.user.clone(),
                    epoch: 1,
                })
            })
        },
        foreign: &[
            ("session_id", Foreign::Answered, |tenant| tenant.owner.session.clone()),
            ("principal_id", Foreign::Answered, USER),
        ],
        required: &["session_id", "principal_kind", "principal_id"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/ExchangeApiKey",
        valid: |w, t| {
            Box::pin(async {
                let key = w.house.api_key(&t.owner, &["designs.design.read"]).await;
                valid(ExchangeApiKeyRequest { api_key: key.secret })
            })
        },
        required: &["api_key"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/GetPermissionSet",
        valid: |_, t| {
            Box::pin(async {
                valid(GetPermissionSetRequest {
                    organization_id: t.owner.org.clone(),
                    principal_kind: PrincipalKind::User.into(),
                    principal_id: t.owner.user.clone(),
                })
            })
        },
        foreign: &[
            ("organization_id", Foreign::Answered, ORG),
            ("principal_id", Foreign::Answered, USER),
        ],
        required: &["organization_id", "principal_kind", "principal_id"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/GetSigningKeys",
        valid: |_, _| Box::pin(async { valid(GetSigningKeysRequest {}) }),
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/Login",
        valid: |_, t| {
            Box::pin(async {
                valid(LoginRequest {
                    email: t.owner.email.clone(),
                    password: t.owner.password.clone(),
                    organization_id: t.owner.org.clone(),
                    device: "the sweep".to_owned(),
                })
            })
        },
        foreign: &[("organization_id", Foreign::Reason(Reason::LoginFailed), ORG)],
        required: &["email", "password"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/Logout",
        valid: |w, t| {
            Box::pin(async {
                let session = w.house.login(&t.owner.email, &t.owner.password).await;
                Valid {
                    caller: Some(session.access),
                    ..valid(LogoutRequest {})
                }
            })
        },
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/RefreshToken",
        valid: |w, t| {
            Box::pin(async {
                let session = w.house.login(&t.owner.email, &t.owner.password).await;
                valid(RefreshTokenRequest {
                    refresh_token: session.refresh,
                })
            })
        },
        required: &["refresh_token"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/SignUp",
        valid: |_, _| {
            Box::pin(async {
                let name = format!("swept-{}", &unique()[..16]);
                valid(SignUpRequest {
                    email: format!("{name}@example.test"),
                    username: name.clone(),
                    password: format!("correct {name} staple"),
                    first_name: "Swept".to_owned(),
                    last_name: "Testson".to_owned(),
                    organization_name: "The Swept".to_owned(),
                    organization_slug: name,
                    request_id: request_id(),
                })
            })
        },
        required: &[
            "email",
            "username",
            "password",
            "first_name",
            "last_name",
            "organization_name",
        ],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.AuthService/SwitchOrganization",
        valid: |_, t| {
            Box::pin(async {
                valid(SwitchOrganizationRequest {
                    organization_id: t.owner.org.clone(),
                })
            })
        },
        foreign: &[("organization_id", Foreign::NotFound, ORG)],
        required: &["organization_id"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.OrganizationService/AcceptInvitation",
        valid: |w, t| {
            Box::pin(async {
                let guest = w.house.sign_up("guest").await;
                let mut tokens = Vec::new();
                for _ in 0..2 {
                    let request = InviteMemberRequest {
                        email: guest.email.clone(),
                        role: "bare".to_owned(),
                        request_id: request_id(),
                    };
                    let invited = t
                        .owner
                        .organizations(&w.house)
                        .invite_member(request)
                        .await
                        .expect("InviteMember");
                    tokens.push(invited.into_inner().token);
                }
                let accept = |token: &String| AcceptInvitationRequest {
                    token: token.clone(),
                    request_id: request_id(),
                };
                Valid {
                    caller: Some(guest.access),
                    other: Some(accept(&tokens[1]).encode_to_vec()),
                    ..valid(accept(&tokens[0]))
                }
            })
        },
        foreign: &[("token", Foreign::Reason(Reason::InvitationInvalid), |tenant| {
            tenant.invitation.clone()
        })],
        required: &["token"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.OrganizationService/InviteMember",
        valid: |_, _| {
            Box::pin(async {
                valid(InviteMemberRequest {
                    email: format!("{}@example.test", unique()),
                    role: "bare".to_owned(),
                    request_id: request_id(),
                })
            })
        },
        foreign: &[("role", Foreign::NotFound, |tenant| tenant.role.clone())],
        required: &["email", "role"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.OrganizationService/ListMembers",
        valid: |_, _| Box::pin(async { valid(ListMembersRequest::default()) }),
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.OrganizationService/UpdateMember",
        valid: |w, t| {
            Box::pin(async {
                let user_id = w.add_member(t).await;
                valid(UpdateMemberRequest {
                    user_id,
                    role: "idle".to_owned(),
                    request_id: request_id(),
                })
            })
        },
        foreign: &[
            ("user_id", Foreign::NotFound, |tenant| tenant.member.clone()),
            ("role", Foreign::NotFound, |tenant| tenant.role.clone()),
        ],
        required: &["user_id", "role"],
        ..NONE
    },
    Row {
        path: "/board3.identity.v1.UserService/GetMe",
        valid: |_, _| Box::pin(async { valid(GetMeRequest {}) }),
        ..NONE
    },
];
