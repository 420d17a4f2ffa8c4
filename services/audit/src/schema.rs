//! The tables of `migrations/audit`.

#![allow(missing_docs, unreachable_pub)]

/// The enum types of the schema.
pub mod types {
    use diesel::{query_builder::QueryId, sql_types::SqlType};

    #[derive(SqlType, QueryId)]
    #[diesel(postgres_type(name = "audit_log_kind", schema = "audit"))]
    pub struct AuditLogKind;

    #[derive(SqlType, QueryId)]
    #[diesel(postgres_type(name = "actor_kind", schema = "audit"))]
    pub struct ActorKind;

    #[derive(SqlType, QueryId)]
    #[diesel(postgres_type(name = "outcome", schema = "audit"))]
    pub struct Outcome;

    #[derive(SqlType, QueryId)]
    #[diesel(postgres_type(name = "notification_kind", schema = "audit"))]
    pub struct NotificationKind;
}

diesel::table! {
    use diesel::sql_types::*;
    use super::types::{ActorKind, AuditLogKind, Outcome};

    audit_logs (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        kind -> AuditLogKind,
        recorded_at -> Timestamptz,
        occurred_at -> Timestamptz,
        source -> Text,
        epoch -> Uuid,
        position -> Int8,
        actor_kind -> Nullable<ActorKind>,
        actor_id -> Nullable<Text>,
        action -> Nullable<Text>,
        resource_type -> Nullable<Text>,
        resource_id -> Nullable<Text>,
        outcome -> Nullable<Outcome>,
        reason -> Nullable<Text>,
        request_id -> Nullable<Text>,
        idempotency_key -> Nullable<Text>,
        trace_id -> Nullable<Text>,
        caller_address -> Nullable<Text>,
        cause_event_id -> Nullable<Text>,
        chain_depth -> Int4,
        envelope_hash -> Nullable<Bytea>,
        envelope -> Nullable<Bytea>,
        leaf_input -> Bytea,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::types::NotificationKind;

    notifications (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        kind -> NotificationKind,
        title -> Text,
        resource_type -> Text,
        resource_id -> Text,
        design_id -> Nullable<Uuid>,
        occurred_at -> Timestamptz,
    }
}

diesel::table! {
    notification_reads (org_id, principal, notification_id) {
        org_id -> Uuid,
        principal -> Text,
        notification_id -> Uuid,
        read_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(notifications, notification_reads);
