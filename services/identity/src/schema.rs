//! The tables of `migrations/identity`.

diesel::table! {
    users (id) {
        id -> Uuid,
        email -> Text,
        username -> Text,
        first_name -> Text,
        last_name -> Text,
        password_hash -> Text,
        epoch -> Int8,
        version -> Int8,
        last_org_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        verified_at -> Timestamptz,
        suspended_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
        former_org_ids -> Array<Uuid>,
    }
}

diesel::table! {
    organizations (org_id) {
        org_id -> Uuid,
        name -> Text,
        slug -> Text,
        permission_version -> Int8,
        created_at -> Timestamptz,
        version -> Int8,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    domain_verifications (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        domain -> Text,
        token_hash -> Bytea,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    organization_domains (org_id, domain) {
        org_id -> Uuid,
        domain -> Text,
        verified_at -> Timestamptz,
    }
}

diesel::table! {
    roles (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        name -> Text,
        description -> Text,
        version -> Int8,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    permissions (org_id, role_id, permission) {
        org_id -> Uuid,
        role_id -> Uuid,
        permission -> Text,
    }
}

diesel::table! {
    organization_members (org_id, user_id) {
        org_id -> Uuid,
        user_id -> Uuid,
        role_org_id -> Uuid,
        role_id -> Uuid,
        joined_at -> Timestamptz,
        suspended_at -> Nullable<Timestamptz>,
        suspended_reason -> Text,
        search_username -> Text,
        search_email -> Text,
        search_first_name -> Text,
        search_last_name -> Text,
    }
}

diesel::table! {
    sessions (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        user_id -> Uuid,
        device -> Text,
        generation -> Int8,
        token_hash -> Bytea,
        previous_hash -> Nullable<Bytea>,
        successor -> Nullable<Bytea>,
        rotated_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        idle_expires_at -> Timestamptz,
        expires_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        address -> Text,
    }
}

diesel::table! {
    second_factors (user_id) {
        user_id -> Uuid,
        secret -> Bytea,
        created_at -> Timestamptz,
        confirmed_at -> Nullable<Timestamptz>,
        last_step -> Nullable<Int8>,
    }
}

diesel::table! {
    recovery_codes (user_id, code_hash) {
        user_id -> Uuid,
        code_hash -> Bytea,
    }
}

diesel::table! {
    api_keys (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        public_id -> Text,
        digest -> Bytea,
        name -> Text,
        scopes -> Array<Text>,
        creator_id -> Uuid,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        last_used_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
        service_account_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    service_accounts (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        name -> Text,
        description -> Text,
        role_org_id -> Uuid,
        role_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        disabled_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    invitations (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        email -> Text,
        role_org_id -> Uuid,
        role_id -> Uuid,
        token_hash -> Bytea,
        inviter_user_id -> Nullable<Uuid>,
        inviter_key_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        accepted_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    signing_keys (kid) {
        number -> Int8,
        kid -> Text,
        public_key -> Text,
        seed -> Nullable<Bytea>,
        state -> Text,
        believed -> Bool,
        created_at -> Timestamptz,
        activates_at -> Timestamptz,
        retired_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    signing_key_set (whole) {
        whole -> Bool,
        version -> Int8,
    }
}

diesel::table! {
    outbound_messages (id) {
        id -> Uuid,
        kind -> Text,
        content -> Nullable<Bytea>,
        attempts -> Int4,
        next_attempt_at -> Timestamptz,
        created_at -> Timestamptz,
        sent_at -> Nullable<Timestamptz>,
        given_up_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    sign_ups (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        address_hash -> Bytea,
        token_hash -> Bytea,
        content -> Bytea,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    password_resets (org_id, id) {
        org_id -> Uuid,
        id -> Uuid,
        user_id -> Nullable<Uuid>,
        token_hash -> Bytea,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    invitations,
    organization_domains,
    organization_members,
    organizations,
    permissions,
    roles,
    service_accounts,
    users
);
