//! The slice's tables as diesel knows them; `migrations/designs` is the truth.

#![allow(missing_docs, unreachable_pub)]

/// PostgreSQL's types that diesel does not know.
pub mod sql_types {
    use diesel::{query_builder::QueryId, sql_types::SqlType};

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "cloud_provider", schema = "designs"))]
    pub struct ProviderEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "design_status", schema = "designs"))]
    pub struct StatusEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "principal_kind", schema = "designs"))]
    pub struct PrincipalEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "resource_drift_kind", schema = "designs"))]
    pub struct DriftEnum;

    /// `json`, read and written as its exact text.
    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(oid = 114, array_oid = 199))]
    pub struct JsonText;
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    templates (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        name -> Text,
        description -> Text,
        category -> Text,
        cloud_provider -> ProviderEnum,
        canvas -> JsonText,
        canvas_hash -> Bytea,
        revision -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    designs (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        name -> Text,
        description -> Text,
        cloud_provider -> ProviderEnum,
        status -> StatusEnum,
        canvas -> JsonText,
        canvas_hash -> Bytea,
        template_org_id -> Nullable<Uuid>,
        template_id -> Nullable<Uuid>,
        creator_kind -> PrincipalEnum,
        creator_id -> Uuid,
        latest_version -> Int4,
        revision -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    design_versions (org_id, design_id, number) {
        org_id -> Uuid,
        design_id -> Uuid,
        number -> Int4,
        message -> Text,
        canvas -> JsonText,
        canvas_hash -> Bytea,
        author_kind -> PrincipalEnum,
        author_id -> Uuid,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    resources (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        design_id -> Uuid,
        node_id -> Text,
        resource_type -> Text,
        name -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    user_names (org_id, user_id) {
        org_id -> Uuid,
        user_id -> Uuid,
        first_name -> Text,
        last_name -> Text,
        version -> Int8,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    resource_drifts (org_id, state_id, address) {
        org_id -> Uuid,
        state_id -> Uuid,
        address -> Text,
        design_id -> Uuid,
        state_name -> Text,
        kind -> DriftEnum,
        check_id -> Uuid,
        detected_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(designs, templates, user_names);

diesel::define_sql_function! {
    /// The time now, which `now()` is not in a transaction that has waited.
    fn clock_timestamp() -> Timestamptz;
}
