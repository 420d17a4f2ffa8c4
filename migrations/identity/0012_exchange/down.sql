drop function api_key_by_public_id(text);
create function api_key_by_public_id(wanted text)
returns table (org_id uuid, id uuid, digest bytea, active boolean, expires_at timestamptz)
language sql stable security definer set search_path = identity, pg_temp as $$
  select k.org_id, k.id, k.digest, k.revoked_at is null and k.expires_at > clock_timestamp(), k.expires_at
  from api_keys k
  where k.public_id = wanted
$$;
grant execute on function api_key_by_public_id(text) to board3_identity_app;
