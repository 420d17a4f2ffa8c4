//! What stands beside the rule, each with its reason: whoever adds to the schema adds here, or the walls stay red.

/// The organization's rows and no others, as PostgreSQL prints it.
pub(crate) const OWN_ROWS: &str =
    "(org_id = ( SELECT (NULLIF(current_setting('app.org'::text, true), ''::text))::uuid AS \"nullif\"))";

/// Tables that the worker role works in within an organization: consumers, and what runs between calls.
pub(crate) const WORKER_TABLES: &[&str] = &[
    "designs.user_names",
    "designs.resource_drifts",
    "terraform_state.designs",
    // Old versions are compacted, thinned and sealed by other keys between calls.
    "terraform_state.states",
    "terraform_state.state_locks",
    "terraform_state.state_versions",
    "terraform_state.state_chunks",
    "terraform_state.compactions",
    "terraform_state.executions",
    "terraform_state.key_rotations",
    "terraform_state.drift_logs",
    "terraform_state.drift_views",
    // What is due is asked of pipelines, which tells what became of it.
    "terraform_state.drift_schedules",
    "terraform_state.drift_runs",
    // The locks of jobs that have ended are taken away.
    "terraform_state.lock_history",
    "terraform_state.lock_jobs",
    "pipelines.designs",
    "audit.audit_logs",
    "audit.notifications",
    // What waited in vain is forgotten.
    "identity.sign_ups",
    "identity.password_resets",
    // Drift starts executions, and the reaper ends leases that have run out.
    "pipelines.pipelines",
    "pipelines.pipeline_executions",
    "pipelines.pipeline_stages",
    "pipelines.stage_attempts",
    "pipelines.runners",
];

/// Tables in which no role of their slice makes a row or gives one away, so that only the catalog tells what `tenant` lets in.
pub(crate) const UNWRITTEN: &[&str] = &[
    // An operator writes them.
    "terraform_state.organization_limits",
];

/// A policy beside `tenant` and `owner_all`.
pub(crate) struct Policy {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    /// `SELECT`, `DELETE` or `ALL`.
    pub(crate) command: &'static str,
    /// `app` or `worker`.
    pub(crate) role: &'static str,
    /// What it shows, as PostgreSQL prints it.
    pub(crate) using: &'static str,
    /// What it lets in; empty where it lets nothing in.
    pub(crate) check: &'static str,
    pub(crate) shows: Shows,
}

/// Which rows a policy shows beyond the organization's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// What belongs to nobody and may be read by all: templates, system roles.
    Platform,
    /// What concerns the signed-in user in any of their organizations: GetMe, switching, their own account.
    User,
    /// Members of the organization, whose names lists show.
    Colleagues,
    /// Keys of answers older than a day, which the worker deletes.
    Expired,
}

const PLATFORM: &str = "(org_id = '00000000-0000-7000-8000-000000000000'::uuid)";
const USER_ID_IS_MINE: &str =
    "(user_id = ( SELECT (NULLIF(current_setting('app.user'::text, true), ''::text))::uuid AS \"nullif\"))";
const ID_IS_MINE: &str =
    "(id = ( SELECT (NULLIF(current_setting('app.user'::text, true), ''::text))::uuid AS \"nullif\"))";
const EXPIRED: &str = "(created_at < (now() - '24:00:00'::interval))";

const fn of_app(table: &'static str, name: &'static str, using: &'static str, shows: Shows) -> Policy {
    Policy {
        table,
        name,
        command: "SELECT",
        role: "app",
        using,
        check: "",
        shows,
    }
}

/// As all of [`POSSESSIONS`] have it.
const fn own(table: &'static str) -> Policy {
    Policy {
        table,
        name: "self",
        command: "ALL",
        role: "app",
        using: USER_ID_IS_MINE,
        check: USER_ID_IS_MINE,
        shows: Shows::User,
    }
}

const fn of_worker(table: &'static str, name: &'static str, command: &'static str) -> Policy {
    Policy {
        table,
        name,
        command,
        role: "worker",
        using: EXPIRED,
        check: "",
        shows: Shows::Expired,
    }
}

/// Tables of what is an account's, whichever organization it is in: `user_id` says whose.
pub(crate) const POSSESSIONS: &[&str] = &["identity.second_factors", "identity.recovery_codes"];

/// Every policy that is neither `tenant` nor `owner_all`.
pub(crate) const POLICIES: &[Policy] = &[
    of_app(
        "identity.organization_members",
        "own_membership",
        USER_ID_IS_MINE,
        Shows::User,
    ),
    of_app(
        "identity.organizations",
        "own_membership",
        "(EXISTS ( SELECT\n   FROM identity.organization_members m\n  WHERE ((m.org_id = organizations.org_id) AND (m.user_id = ( SELECT (NULLIF(current_setting('app.user'::text, true), ''::text))::uuid AS \"nullif\")))))",
        Shows::User,
    ),
    of_app(
        "identity.organization_domains",
        "own_membership",
        "(EXISTS ( SELECT\n   FROM identity.organization_members m\n  WHERE ((m.org_id = organization_domains.org_id) AND (m.user_id = ( SELECT (NULLIF(current_setting('app.user'::text, true), ''::text))::uuid AS \"nullif\")))))",
        Shows::User,
    ),
    of_app("identity.roles", "platform", PLATFORM, Shows::Platform),
    of_app(
        "identity.roles",
        "own_membership",
        "(EXISTS ( SELECT\n   FROM identity.organization_members m\n  WHERE ((m.role_org_id = roles.org_id) AND (m.role_id = roles.id) AND (m.user_id = ( SELECT (NULLIF(current_setting('app.user'::text, true), ''::text))::uuid AS \"nullif\")))))",
        Shows::User,
    ),
    of_app("identity.permissions", "platform", PLATFORM, Shows::Platform),
    of_app(
        "identity.permissions",
        "own_membership",
        "(EXISTS ( SELECT\n   FROM identity.organization_members m\n  WHERE ((m.role_org_id = permissions.org_id) AND (m.role_id = permissions.role_id) AND (m.user_id = ( SELECT (NULLIF(current_setting('app.user'::text, true), ''::text))::uuid AS \"nullif\")))))",
        Shows::User,
    ),
    of_app("identity.sessions", "own_session", USER_ID_IS_MINE, Shows::User),
    Policy {
        table: "identity.users",
        name: "self",
        command: "ALL",
        role: "app",
        using: ID_IS_MINE,
        check: ID_IS_MINE,
        shows: Shows::User,
    },
    own("identity.second_factors"),
    own("identity.recovery_codes"),
    of_app(
        "identity.users",
        "colleague",
        "(EXISTS ( SELECT\n   FROM identity.organization_members m\n  WHERE ((m.user_id = users.id) AND (m.org_id = ( SELECT (NULLIF(current_setting('app.org'::text, true), ''::text))::uuid AS \"nullif\")))))",
        Shows::Colleagues,
    ),
    of_app("designs.templates", "platform_read", PLATFORM, Shows::Platform),
    of_worker("identity.requests", "worker_old", "SELECT"),
    of_worker("identity.requests", "worker_prune", "DELETE"),
    of_worker("designs.requests", "worker_old", "SELECT"),
    of_worker("designs.requests", "worker_prune", "DELETE"),
    of_worker("terraform_state.requests", "worker_old", "SELECT"),
    of_worker("terraform_state.requests", "worker_prune", "DELETE"),
    of_worker("pipelines.requests", "worker_old", "SELECT"),
    of_worker("pipelines.requests", "worker_prune", "DELETE"),
    of_worker("audit.requests", "worker_old", "SELECT"),
    of_worker("audit.requests", "worker_prune", "DELETE"),
];

/// Indexes of tenant tables that do not start with `org_id`.
pub(crate) const INDEXES: &[(&str, &str)] = &[
    (
        "terraform_state.compactions_due_idx",
        "what is due is looked for in all organizations",
    ),
    (
        "terraform_state.drift_schedules_run_idx",
        "what is due is looked for in all organizations",
    ),
    (
        "identity.organizations_slug_key",
        "slugs are unique in the installation",
    ),
    (
        "identity.organization_domains_domain_key",
        "a domain belongs to one organization of the installation",
    ),
    (
        "identity.organization_members_user_id_idx",
        "login and GetMe ask for a user's memberships",
    ),
    (
        "identity.sessions_id_key",
        "a session is looked up before its organization is known",
    ),
    (
        "identity.sessions_standing_idx",
        "a user's sessions are listed across organizations",
    ),
    ("identity.api_keys_id_key", "a key's token names the key alone"),
    (
        "identity.api_keys_public_id_key",
        "a key is looked up before its organization is known",
    ),
    (
        "identity.invitations_id_key",
        "an invitation is looked up before its organization is known",
    ),
    (
        "identity.requests_created_at_idx",
        "the worker deletes across organizations",
    ),
    (
        "designs.requests_created_at_idx",
        "the worker deletes across organizations",
    ),
    (
        "terraform_state.requests_created_at_idx",
        "the worker deletes across organizations",
    ),
    (
        "pipelines.requests_created_at_idx",
        "the worker deletes across organizations",
    ),
    (
        "pipelines.stage_attempts_credential_key",
        "a job is looked up by its credential before its organization is known",
    ),
    (
        "pipelines.stage_attempts_fence_idx",
        "the reaper looks for leases across organizations",
    ),
    (
        "audit.requests_created_at_idx",
        "the worker deletes across organizations",
    ),
    (
        "designs.templates_search_idx",
        "search_templates asks across organizations and filters by the caller's",
    ),
];

/// Foreign keys between tenant tables whose organization is another column, with the check that keeps it near:
/// a role or template of the platform may be used in every organization.
pub(crate) const NEAR_FOREIGN_KEYS: &[(&str, &str, &str)] = &[
    (
        "identity.organization_members_role_fkey",
        "role_org_id",
        "organization_members_role_org_id_near",
    ),
    (
        "identity.invitations_role_fkey",
        "role_org_id",
        "invitations_role_org_id_near",
    ),
    (
        "identity.service_accounts_role_fkey",
        "role_org_id",
        "service_accounts_role_org_id_near",
    ),
    (
        "designs.designs_template_fkey",
        "template_org_id",
        "designs_template_readable",
    ),
];

/// Functions that step over row-level security, each of them granted to one role by name.
pub(crate) const DEFINERS: &[&str] = &[
    "identity.login_account",
    "identity.session_state",
    "identity.api_key_state",
    "identity.api_key_by_public_id",
    "identity.invitation_org",
    "identity.claim_domain",
    "identity.fill_member_search",
    "identity.refresh_member_search",
    "identity.account_grants",
    "identity.renew_account_permissions",
    "identity.set_account_suspended",
    "identity.end_account_sessions",
    "identity.anonymize_accounts",
    "identity.account_by_email",
    "identity.own_password",
    "identity.sign_up_state",
    "designs.search_templates",
    "pipelines.job_by_credential",
    "pipelines.expired_leases",
    "terraform_state.due_compactions",
    "terraform_state.due_drift_schedules",
    "terraform_state.running_rotations",
    "terraform_state.next_sealed_otherwise",
    "terraform_state.sealed_by_key",
];

/// What an app role may do with a table that is no tenant table; nothing where it is not listed.
pub(crate) const APP_RIGHTS: &[(&str, &str)] = &[
    ("outbox", "INSERT"),
    ("__diesel_schema_migrations", "SELECT"),
    ("users", "INSERT"),
    ("second_factors", "SELECT"),
    ("second_factors", "INSERT"),
    ("second_factors", "UPDATE"),
    ("second_factors", "DELETE"),
    ("recovery_codes", "SELECT"),
    ("recovery_codes", "INSERT"),
    ("recovery_codes", "DELETE"),
    ("outbound_messages", "INSERT"),
    ("signing_keys", "SELECT"),
    ("signing_keys", "INSERT"),
    ("signing_keys", "UPDATE"),
    ("signing_key_set", "SELECT"),
    ("signing_key_set", "UPDATE"),
];
