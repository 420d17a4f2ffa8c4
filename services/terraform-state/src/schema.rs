//! The slice's tables as diesel knows them; `migrations/terraform-state` is the truth.

#![allow(missing_docs, unreachable_pub)]

/// PostgreSQL's types that diesel does not know.
pub mod sql_types {
    use diesel::{query_builder::QueryId, sql_types::SqlType};

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "state_version_kind", schema = "terraform_state"))]
    pub struct VersionKindEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "principal_kind", schema = "terraform_state"))]
    pub struct PrincipalEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "lock_ending", schema = "terraform_state"))]
    pub struct LockEndingEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "drift_kind", schema = "terraform_state"))]
    pub struct DriftEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "drift_status", schema = "terraform_state"))]
    pub struct DriftStatusEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "drift_severity", schema = "terraform_state"))]
    pub struct DriftSeverityEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "drift_cause", schema = "terraform_state"))]
    pub struct DriftCauseEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "rotation_stage", schema = "terraform_state"))]
    pub struct RotationStageEnum;

    #[derive(Clone, QueryId, SqlType)]
    #[diesel(postgres_type(name = "drift_run_outcome", schema = "terraform_state"))]
    pub struct DriftRunOutcomeEnum;
}

diesel::table! {
    designs (org_id, design_id) {
        org_id -> Uuid,
        design_id -> Uuid,
        deleted -> Bool,
        revision -> Int8,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    states (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        name -> Text,
        design_id -> Nullable<Uuid>,
        latest_version -> Int8,
        released_lock_id -> Nullable<Text>,
        released_by_force -> Bool,
        released_reason -> Text,
        released_by_kind -> Nullable<PrincipalEnum>,
        released_by_id -> Nullable<Uuid>,
        released_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        keep_versions -> Nullable<Int4>,
        keep_days -> Int4,
        keep_weeks -> Int4,
        stored_bytes -> Int8,
        labels -> Jsonb,
        revision -> Int8,
        deleted_at -> Nullable<Timestamptz>,
        greatest_serial -> Int8,
        resources_hash -> Nullable<Bytea>,
        unlisted_resources -> Int4,
    }
}

diesel::table! {
    state_resources (org_id, state_id, address) {
        org_id -> Uuid,
        state_id -> Uuid,
        address -> Text,
        #[sql_name = "type"]
        resource_type -> Text,
        provider -> Text,
        module -> Text,
        instances -> Int4,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    state_locks (org_id, state_id) {
        org_id -> Uuid,
        state_id -> Uuid,
        lock_id -> Text,
        operation -> Text,
        who -> Text,
        info -> Text,
        terraform_version -> Text,
        holder_kind -> PrincipalEnum,
        holder_id -> Uuid,
        created_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        maintenance_reason -> Text,
        execution_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    lock_history (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        state_id -> Uuid,
        lock_id -> Text,
        operation -> Text,
        who -> Text,
        info -> Text,
        terraform_version -> Text,
        holder_kind -> PrincipalEnum,
        holder_id -> Uuid,
        created_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        maintenance_reason -> Text,
        execution_id -> Nullable<Uuid>,
        ending -> LockEndingEnum,
        ended_by_kind -> Nullable<PrincipalEnum>,
        ended_by_id -> Nullable<Uuid>,
        ended_reason -> Text,
        ended_at -> Timestamptz,
    }
}

diesel::table! {
    lock_jobs (org_id, job_id) {
        org_id -> Uuid,
        job_id -> Uuid,
        ended_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    state_versions (org_id, state_id, number) {
        org_id -> Uuid,
        state_id -> Uuid,
        number -> Int8,
        id -> Uuid,
        serial -> Int8,
        lineage -> Text,
        kind -> VersionKindEnum,
        size_bytes -> Int8,
        chunks -> Int4,
        content_hash -> Bytea,
        terraform_version -> Text,
        resource_count -> Int4,
        blank -> Bool,
        author_kind -> PrincipalEnum,
        author_id -> Uuid,
        created_at -> Timestamptz,
        lock_id -> Nullable<Text>,
        body_id -> Uuid,
        data_key -> Nullable<Bytea>,
        key_id -> Nullable<Bytea>,
        base_number -> Nullable<Int8>,
        weighed_number -> Nullable<Int8>,
        stored_bytes -> Int8,
    }
}

diesel::table! {
    state_chunks (org_id, version_id, place) {
        org_id -> Uuid,
        version_id -> Uuid,
        place -> Int4,
        sealed -> Bytea,
    }
}

diesel::table! {
    organization_limits (org_id) {
        org_id -> Uuid,
        state_bytes -> Nullable<Int8>,
        stored_bytes -> Nullable<Int8>,
    }
}

diesel::table! {
    compactions (org_id, state_id) {
        org_id -> Uuid,
        state_id -> Uuid,
        due_at -> Timestamptz,
    }
}

diesel::table! {
    executions (org_id, execution_id) {
        org_id -> Uuid,
        execution_id -> Uuid,
        state_name -> Text,
        live -> Bool,
        revision -> Int8,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    key_rotations (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        key_id -> Bytea,
        total -> Int8,
        done -> Int8,
        failed -> Int8,
        after_org -> Uuid,
        after_state -> Uuid,
        after_number -> Int8,
        started_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        stage -> RotationStageEnum,
        done_values -> Int8,
        failed_values -> Int8,
    }
}

diesel::allow_tables_to_appear_in_same_query!(states, state_locks, state_resources, state_versions);

diesel::define_sql_function! {
    /// The time now, which `now()` is not in a transaction that has waited.
    fn clock_timestamp() -> Timestamptz;
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    drift_logs (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        state_id -> Uuid,
        check_id -> Uuid,
        address -> Text,
        resource_type -> Text,
        kind -> DriftEnum,
        path -> Text,
        before -> Nullable<Bytea>,
        after -> Nullable<Bytea>,
        masked -> Bool,
        detected_at -> Timestamptz,
        fingerprint -> Bytea,
        status -> DriftStatusEnum,
        severity -> DriftSeverityEnum,
        last_check_id -> Uuid,
        last_seen_at -> Timestamptz,
        times_seen -> Int4,
        opened_at -> Timestamptz,
        resolved_at -> Nullable<Timestamptz>,
        before_key_id -> Nullable<Bytea>,
        after_key_id -> Nullable<Bytea>,
    }
}

diesel::table! {
    drift_checks (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        state_id -> Uuid,
        number -> Int8,
        errored -> Bool,
        drifted_resources -> Int4,
        normalised_resources -> Int4,
        moved_resources -> Int4,
        unapplied_resources -> Int4,
        failed_checks -> Int4,
        truncated -> Bool,
        checked_at -> Timestamptz,
    }
}

diesel::table! {
    drift_sightings (org_id, check_id, drift_log_id) {
        org_id -> Uuid,
        check_id -> Uuid,
        drift_log_id -> Uuid,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    drift_changes (org_id, state_id, number) {
        org_id -> Uuid,
        state_id -> Uuid,
        number -> Int8,
        drift_log_id -> Uuid,
        before -> Nullable<DriftStatusEnum>,
        after -> DriftStatusEnum,
        reason -> Text,
        actor_kind -> Nullable<PrincipalEnum>,
        actor_id -> Nullable<Uuid>,
        check_id -> Nullable<Uuid>,
        changed_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    drift_rules (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        state_id -> Nullable<Uuid>,
        address -> Text,
        resource_type -> Text,
        path -> Text,
        kind -> Nullable<DriftEnum>,
        severity -> Nullable<DriftSeverityEnum>,
        reason -> Text,
        expires_at -> Nullable<Timestamptz>,
        author_kind -> PrincipalEnum,
        author_id -> Uuid,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    drift_views (org_id, state_id, place) {
        org_id -> Uuid,
        state_id -> Uuid,
        place -> Int4,
        check_id -> Uuid,
        address -> Text,
        resource_type -> Text,
        path -> Text,
        cause -> DriftCauseEnum,
        sealed -> Nullable<Bytea>,
        masked -> Bool,
        key_id -> Nullable<Bytea>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(drift_logs, drift_sightings, drift_changes);

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    drift_schedules (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        state_id -> Uuid,
        pipeline_id -> Uuid,
        cron -> Text,
        time_zone -> Text,
        window_seconds -> Int4,
        jitter_seconds -> Int4,
        paused -> Bool,
        due_at -> Nullable<Timestamptz>,
        run_at -> Nullable<Timestamptz>,
        run_before -> Nullable<Timestamptz>,
        last_run_id -> Nullable<Uuid>,
        author_kind -> PrincipalEnum,
        author_id -> Uuid,
        revision -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::*;

    drift_runs (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        schedule_id -> Uuid,
        state_id -> Uuid,
        due_at -> Timestamptz,
        run_before -> Timestamptz,
        outcome -> DriftRunOutcomeEnum,
        reason -> Text,
        execution_id -> Nullable<Uuid>,
        changed_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(drift_schedules, drift_runs);
