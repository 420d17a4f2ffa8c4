-- All that exchanging an API key needs, at once: the version is none of an organization that is deleted.
drop function api_key_by_public_id(text);
create function api_key_by_public_id(wanted text)
returns table (
  org_id uuid, id uuid, digest bytea, active boolean, expires_at timestamptz, lately_used boolean, permission_version bigint
)
language sql stable security definer set search_path = identity, pg_temp as $$
  select k.org_id, k.id, k.digest, k.revoked_at is null and k.expires_at > clock_timestamp(), k.expires_at,
    coalesce(k.last_used_at >= clock_timestamp() - interval '30 seconds', false), o.permission_version
  from api_keys k
  left join organizations o on o.org_id = k.org_id and o.deleted_at is null
  where k.public_id = wanted
$$;
grant execute on function api_key_by_public_id(text) to board3_identity_app;
