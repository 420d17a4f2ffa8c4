//! Every list: how it grows, how many rows it has, and a filter of it.

use api::{
    designs::v1::{Design, UpdateDesignRequest},
    policy::PERMISSIONS,
};
use futures_util::future::BoxFuture;
use prost_reflect::{DynamicMessage, Value};
use prost_types::FieldMask;

use super::{
    people::PLATFORM,
    wire::set,
    world::{Tenant, World, add_template, canvas},
};

/// What the sweep must know of a list.
pub(super) struct List {
    pub(super) action: &'static str,
    /// Adds at least four rows.
    pub(super) grow: for<'a> fn(&'a World, &'a Tenant) -> BoxFuture<'a, ()>,
    /// How many rows the organization has, by the tables.
    pub(super) count: fn(&Tenant) -> String,
    /// Another filter with rows, where there is a filter.
    pub(super) filter: Option<fn(&mut DynamicMessage, &Tenant)>,
}

pub(super) const LISTS: &[List] = &[
    List {
        action: "audit.ListAuditLogs",
        grow: |_, _| Box::pin(async {}),
        count: |t| format!("select count(*) from audit.audit_logs where org_id = '{}'", t.owner.org),
        filter: Some(|message, _| set(message, "action", "designs.CreateDesign")),
    },
    List {
        action: "audit.ListNotifications",
        grow: |w, t| Box::pin(async { drift(w, t).await }),
        count: |t| {
            format!(
                "select count(*) from audit.notifications where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, _| message.set_field_by_name("unread_only", Value::Bool(true))),
    },
    List {
        action: "terraform_state.ListDriftLogs",
        grow: |w, t| Box::pin(async { drift(w, t).await }),
        count: |t| {
            format!(
                "select count(*) from terraform_state.drift_logs where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, tenant| set(message, "state_id", &tenant.works.state.id)),
    },
    List {
        action: "terraform_state.ListLocks",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_locked_state(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from terraform_state.state_locks where org_id = '{}'",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "terraform_state.ListLockHistory",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_past_lock(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from terraform_state.lock_history where org_id = '{}'",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "terraform_state.ListStateResources",
        grow: |w, t| Box::pin(async { w.add_resources(t).await }),
        count: |t| {
            format!(
                "select count(*) from terraform_state.state_resources where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, _| set(message, "type", "terraform_data")),
    },
    List {
        action: "terraform_state.GetThreeWayView",
        grow: |_, _| Box::pin(async {}),
        count: |t| {
            format!(
                "select count(*) from terraform_state.drift_views where state_id = '{}'",
                t.works.state.id
            )
        },
        filter: None,
    },
    List {
        action: "terraform_state.ListDriftRules",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_drift_rule(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from terraform_state.drift_rules where org_id = '{}'",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "terraform_state.ListDriftSchedules",
        grow: |w, t| Box::pin(async { w.add_drift_schedules(t, 4).await }),
        count: |t| {
            format!(
                "select count(*) from terraform_state.drift_schedules where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, tenant| set(message, "state_id", &tenant.works.state.id)),
    },
    List {
        action: "terraform_state.ListStates",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_state(t, "listed").await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from terraform_state.states where org_id = '{}' and deleted_at is null",
                t.owner.org
            )
        },
        filter: Some(|message, _| set(message, "name_prefix", "sweep/listed/")),
    },
    List {
        action: "terraform_state.ListStateVersions",
        grow: |w, t| {
            Box::pin(async {
                for serial in 2..6 {
                    w.add_version(t, serial).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from terraform_state.state_versions where state_id = '{}'",
                t.works.state.id
            )
        },
        filter: None,
    },
    List {
        action: "pipelines.ListExecutions",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_execution(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from pipelines.pipeline_executions where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, tenant| set(message, "pipeline_id", &tenant.works.pipeline)),
    },
    List {
        action: "pipelines.ListPipelines",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_pipeline(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from pipelines.pipelines where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, tenant| set(message, "design_id", &tenant.design.id)),
    },
    List {
        action: "pipelines.ListRunners",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_runner(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from pipelines.runners where org_id = '{}'",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "pipelines.ListStages",
        grow: |_, _| Box::pin(async {}),
        count: |t| {
            format!(
                "select count(*) from pipelines.pipeline_stages where execution_id = '{}'",
                t.works.execution
            )
        },
        filter: None,
    },
    List {
        action: "designs.ListDesigns",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_design(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from designs.designs where org_id = '{}' and deleted_at is null",
                t.owner.org
            )
        },
        filter: Some(|message, tenant| set(message, "creator_id", &tenant.owner.user)),
    },
    List {
        action: "designs.ListResources",
        grow: |w, t| Box::pin(async { draw(w, t, &t.other_design, 4).await }),
        count: |t| {
            format!(
                "select count(*) from designs.resources where design_id = '{}'",
                t.design.id
            )
        },
        filter: Some(|message, tenant| set(message, "design_id", &tenant.other_design.id)),
    },
    List {
        action: "designs.ListVersions",
        grow: |w, t| {
            Box::pin(async {
                w.publish(t, &t.other_design.id).await;
                for nodes in 4..8 {
                    for design in [&t.design, &t.other_design] {
                        draw(w, t, design, nodes).await;
                        w.publish(t, &design.id).await;
                    }
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from designs.design_versions where design_id = '{}'",
                t.design.id
            )
        },
        filter: Some(|message, tenant| set(message, "design_id", &tenant.other_design.id)),
    },
    List {
        action: "designs.ListTemplates",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    // The same name, so that a page ends between equals.
                    add_template(&w.admin, &t.owner.org, "a template like others").await;
                }
            })
        },
        count: |t| {
            let platform = "00000000-0000-7000-8000-000000000000";
            format!(
                "select count(*) from designs.templates where org_id in ('{}', '{platform}')",
                t.owner.org
            )
        },
        filter: Some(|message, _| set(message, "category", "starter")),
    },
    List {
        action: "identity.ListMembers",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_member(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.organization_members where org_id = '{}'",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "identity.ListUsers",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_member(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.organization_members where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, _| set(message, "query", "member")),
    },
    List {
        action: "identity.ListSessions",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.house.login(&t.owner.email, &t.owner.password).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.sessions where user_id = '{}' and revoked_at is null",
                t.owner.user
            )
        },
        filter: None,
    },
    List {
        action: "identity.ListInvitations",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_invitation(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.invitations where org_id = '{}'",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "identity.ListOrganizations",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_organization(&t.owner).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.organization_members where user_id = '{}'",
                t.owner.user
            )
        },
        filter: Some(|message, _| message.set_field_by_name("show_deleted", Value::Bool(true))),
    },
    List {
        action: "identity.ListApiKeys",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_key(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.api_keys where org_id = '{}'",
                t.owner.org
            )
        },
        filter: Some(|message, _| message.set_field_by_name("show_ended", Value::Bool(true))),
    },
    List {
        action: "identity.ListServiceAccounts",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_service_account(t).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.service_accounts where org_id = '{}'",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "identity.ListRoles",
        grow: |w, t| {
            Box::pin(async {
                for _ in 0..4 {
                    w.add_role(&t.owner).await;
                }
            })
        },
        count: |t| {
            format!(
                "select count(*) from identity.roles where org_id in ('{}', '{PLATFORM}')",
                t.owner.org
            )
        },
        filter: None,
    },
    List {
        action: "identity.ListPermissions",
        grow: |_, _| Box::pin(async {}),
        count: |_| format!("select {}::bigint", PERMISSIONS.len()),
        filter: None,
    },
    List {
        action: "identity.ListSigningKeys",
        grow: |w, _| {
            Box::pin(async {
                let administrator = w.administrator().await;
                for _ in 0..4 {
                    w.add_signing_key(&administrator).await;
                }
            })
        },
        count: |_| "select count(*) from identity.signing_keys".to_owned(),
        filter: None,
    },
];

/// Finds drift four times; once all is quiet, audit has told of it.
async fn drift(world: &World, tenant: &Tenant) {
    for _ in 0..4 {
        world.add_drift(tenant).await;
    }
}

/// Draws another canvas on a design.
async fn draw(world: &World, tenant: &Tenant, design: &Design, nodes: usize) {
    let etag = world
        .house
        .read_design(&tenant.owner, &design.id)
        .await
        .expect("GetDesign")
        .etag;
    let request = UpdateDesignRequest {
        design_id: design.id.clone(),
        design: Some(Design {
            canvas: Some(canvas(nodes)),
            ..Design::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["canvas".to_owned()],
        }),
        etag,
        ..UpdateDesignRequest::default()
    };
    tenant
        .owner
        .designs(&world.house)
        .update_design(request)
        .await
        .expect("UpdateDesign");
}
