//! The tables of `migrations/kit`, which every slice has.

#![allow(missing_docs)]

diesel::table! {
    outbox (id) {
        id -> Int8,
        event_id -> Uuid,
        org_id -> Uuid,
        envelope -> Bytea,
        created_at -> Timestamptz,
        position -> Nullable<Int8>,
    }
}

diesel::table! {
    relay_head (source) {
        source -> Text,
        epoch -> Uuid,
        position -> Int8,
    }
}

diesel::table! {
    inbox (consumer, source, event_id) {
        consumer -> Text,
        source -> Text,
        epoch -> Uuid,
        event_id -> Uuid,
        position -> Int8,
        applied_at -> Timestamptz,
    }
}

diesel::table! {
    cursors (consumer, source) {
        consumer -> Text,
        source -> Text,
        epoch -> Uuid,
        position -> Int8,
    }
}

diesel::table! {
    dead_letters (consumer, source, epoch, position) {
        consumer -> Text,
        source -> Text,
        epoch -> Uuid,
        position -> Int8,
        event_id -> Uuid,
        envelope -> Bytea,
        error -> Text,
        attempts -> Int4,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    requests (org_id, principal, method, request_id) {
        org_id -> Uuid,
        principal -> Text,
        method -> Text,
        request_id -> Uuid,
        arguments_hash -> Bytea,
        response -> Nullable<Bytea>,
        resource_id -> Nullable<Text>,
        created_at -> Timestamptz,
    }
}
