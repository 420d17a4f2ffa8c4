//! The slice's tables as diesel knows them; `migrations/pipelines` is the truth.

#![allow(missing_docs, unreachable_pub)]

/// PostgreSQL's types that diesel does not know.
pub mod sql_types {
    use diesel::{query_builder::QueryId, sql_types::SqlType};

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "principal_kind", schema = "pipelines"))]
    pub struct PrincipalEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "stage_kind", schema = "pipelines"))]
    pub struct KindEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "execution_trigger", schema = "pipelines"))]
    pub struct TriggerEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "execution_status", schema = "pipelines"))]
    pub struct ExecutionEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "stage_status", schema = "pipelines"))]
    pub struct StageEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "attempt_status", schema = "pipelines"))]
    pub struct AttemptEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "failure_reason", schema = "pipelines"))]
    pub struct FailureEnum;
}

diesel::table! {
    designs (org_id, design_id) {
        org_id -> Uuid,
        design_id -> Uuid,
        name -> Text,
        latest_version -> Int4,
        deleted -> Bool,
        revision -> Int8,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    pipelines (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        name -> Text,
        design_id -> Uuid,
        state_name -> Text,
        stages -> Jsonb,
        on_drift -> Bool,
        creator_kind -> PrincipalEnum,
        creator_id -> Uuid,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    pipeline_executions (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        pipeline_id -> Uuid,
        design_id -> Uuid,
        design_version -> Int4,
        state_name -> Text,
        trigger -> TriggerEnum,
        starter_kind -> Nullable<PrincipalEnum>,
        starter_id -> Nullable<Uuid>,
        cause_event_id -> Nullable<Uuid>,
        chain_depth -> Int4,
        status -> ExecutionEnum,
        status_detail -> Text,
        revision -> Int8,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    pipeline_stages (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        execution_id -> Uuid,
        position -> Int4,
        name -> Text,
        kind -> KindEnum,
        needs -> Array<Text>,
        status -> StageEnum,
        attempts -> Int4,
        failure_reason -> Nullable<FailureEnum>,
        failure_detail -> Text,
        created_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    runners (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        name -> Text,
        terraform_version -> Text,
        principal_kind -> PrincipalEnum,
        principal_id -> Uuid,
        created_at -> Timestamptz,
        seen_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    stage_attempts (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        stage_id -> Uuid,
        number -> Int4,
        runner_id -> Uuid,
        principal_kind -> PrincipalEnum,
        principal_id -> Uuid,
        generation -> Int8,
        status -> AttemptEnum,
        leased_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        renewed_at -> Timestamptz,
        expires_at -> Timestamptz,
        fence_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        log_bytes -> Int8,
        log_sealed -> Bool,
        credential_hash -> Bytea,
        plan -> Nullable<Bytea>,
        completion -> Nullable<Bytea>,
    }
}

diesel::table! {
    stage_logs (org_id, attempt_id, start_offset) {
        org_id -> Uuid,
        attempt_id -> Uuid,
        start_offset -> Int8,
        length -> Int4,
        content -> Bytea,
        created_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    pipelines,
    pipeline_executions,
    pipeline_stages,
    runners,
    stage_attempts,
    stage_logs
);

diesel::define_sql_function! {
    /// The time now, which `now()` is not in a transaction that has waited.
    fn clock_timestamp() -> Timestamptz;
}
