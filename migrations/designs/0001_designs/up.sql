-- Designs, their versions and resources, the templates they start from, and the names of those who make them.
--
-- Under row-level security PostgreSQL uses an index condition only if its operator is leakproof: a row that the
-- policy hides must not reach an operator that could tell of it. Comparisons of uuid, text, numbers and times are;
-- comparisons of enum types and of tsvector are not. Hence a partial index for each value of an enum (a predicate is
-- proven when planning and not run), which queries name as a literal, and a definer's function for search.

create type cloud_provider as enum ('aws', 'azure', 'gcp', 'builtin');
create type design_status as enum ('draft', 'published', 'archived');
create type principal_kind as enum ('user', 'api_key');

-- What a design can start from. `canvas` is RFC 8785 JSON: type json keeps its text byte for byte, as the hash needs.
create table templates (
  org_id uuid not null,
  id uuid not null,
  name text not null constraint templates_name_length check (char_length(name) between 1 and 200),
  description text not null default '' constraint templates_description_length check (char_length(description) <= 4000),
  category text not null constraint templates_category_length check (char_length(category) between 1 and 100),
  cloud_provider cloud_provider not null,
  canvas json not null constraint templates_canvas_size check (octet_length(canvas::text) <= 1048576),
  canvas_hash bytea not null,
  -- Grows with each change.
  revision bigint not null default 1 constraint templates_revision_positive check (revision > 0),
  search tsvector not null
    generated always as (
      setweight(to_tsvector('simple'::regconfig, name), 'A') ||
      setweight(to_tsvector('simple'::regconfig, category), 'B') ||
      setweight(to_tsvector('simple'::regconfig, description), 'C')
    ) stored,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint templates_pkey primary key (org_id, id),
  constraint templates_canvas_hashed check (canvas_hash = sha256(convert_to(canvas::text, 'UTF8')))
);
create index templates_name_idx on templates (org_id, name, id);
create index templates_category_idx on templates (org_id, category, name, id);
create index templates_aws_idx on templates (org_id, name, id) where cloud_provider = 'aws';
create index templates_azure_idx on templates (org_id, name, id) where cloud_provider = 'azure';
create index templates_gcp_idx on templates (org_id, name, id) where cloud_provider = 'gcp';
create index templates_builtin_idx on templates (org_id, name, id) where cloud_provider = 'builtin';
create index templates_search_idx on templates using gin (search) with (fastupdate = off);
select board3.tenant_table('templates');

create table designs (
  org_id uuid not null,
  id uuid not null,
  name text not null constraint designs_name_length check (char_length(name) between 1 and 200),
  description text not null constraint designs_description_length check (char_length(description) <= 4000),
  cloud_provider cloud_provider not null,
  status design_status not null default 'draft',
  canvas json not null constraint designs_canvas_size check (octet_length(canvas::text) <= 1048576),
  canvas_hash bytea not null,
  -- The template's own organization: this one or the platform's.
  template_org_id uuid,
  template_id uuid,
  creator_kind principal_kind not null,
  creator_id uuid not null,
  latest_version integer not null default 0 constraint designs_latest_version_natural check (latest_version >= 0),
  -- Grows by one with each write; the etag says it.
  revision bigint not null default 1 constraint designs_revision_positive check (revision > 0),
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  deleted_at timestamptz,
  constraint designs_pkey primary key (org_id, id),
  constraint designs_template_fkey foreign key (template_org_id, template_id) references templates (org_id, id),
  constraint designs_template_whole check ((template_id is null) = (template_org_id is null)),
  constraint designs_template_readable
    check (template_org_id in (org_id, '00000000-0000-7000-8000-000000000000'::uuid)),
  constraint designs_canvas_hashed check (canvas_hash = sha256(convert_to(canvas::text, 'UTF8')))
);
create index designs_updated_at_idx on designs (org_id, updated_at desc, id desc) where deleted_at is null;
create index designs_creator_idx on designs (org_id, creator_id, updated_at desc, id desc) where deleted_at is null;
create index designs_draft_idx on designs (org_id, updated_at desc, id desc)
  where deleted_at is null and status = 'draft';
create index designs_published_idx on designs (org_id, updated_at desc, id desc)
  where deleted_at is null and status = 'published';
create index designs_archived_idx on designs (org_id, updated_at desc, id desc)
  where deleted_at is null and status = 'archived';
select board3.tenant_table('designs');

-- Published canvases; nobody but the owner can change or delete one.
create table design_versions (
  org_id uuid not null,
  design_id uuid not null,
  number integer not null constraint design_versions_number_positive check (number > 0),
  message text not null constraint design_versions_message_length check (char_length(message) <= 1000),
  canvas json not null,
  canvas_hash bytea not null,
  author_kind principal_kind not null,
  author_id uuid not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint design_versions_pkey primary key (org_id, design_id, number),
  constraint design_versions_design_fkey foreign key (org_id, design_id) references designs (org_id, id),
  constraint design_versions_canvas_hashed check (canvas_hash = sha256(convert_to(canvas::text, 'UTF8')))
);
select board3.tenant_table('design_versions');

-- One row for each node of a design's canvas; the id stays while the node's id stays.
create table resources (
  org_id uuid not null,
  id uuid not null,
  design_id uuid not null,
  node_id text collate "C" not null,
  resource_type text not null,
  name text not null,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint resources_pkey primary key (org_id, id),
  constraint resources_node_key unique (org_id, design_id, node_id),
  constraint resources_design_fkey foreign key (org_id, design_id) references designs (org_id, id)
);
select board3.tenant_table('resources');

-- Users' names as identity last told them; an older version than the one here is ignored.
create table user_names (
  org_id uuid not null,
  user_id uuid not null,
  first_name text not null,
  last_name text not null,
  version bigint not null,
  updated_at timestamptz not null default clock_timestamp(),
  constraint user_names_pkey primary key (org_id, user_id)
);
select board3.tenant_table('user_names', true);

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
begin
  execute format('create policy platform_read on templates for select to %s using (org_id = %L::uuid)', app,
    '00000000-0000-7000-8000-000000000000');
  execute format('revoke update, delete on design_versions from %s', app);
  execute format('revoke insert, update, delete on user_names from %s', app);
end
$$;

-- The templates that a query of words finds, best first. It runs as the owner, whom no policy filters, so that
-- templates_search_idx serves it; the organization is the caller's setting, never an argument.
create function search_templates(query text, most integer) returns setof uuid
language sql stable security definer set search_path = designs, pg_temp as $$
  select id from templates
  where search @@ websearch_to_tsquery('simple'::regconfig, query)
    and org_id in (
      (select nullif(current_setting('app.org', true), '')::uuid),
      '00000000-0000-7000-8000-000000000000'::uuid
    )
  order by ts_rank(search, websearch_to_tsquery('simple'::regconfig, query)) desc, name, id
  limit most
$$;
do $$
begin
  execute format('grant execute on function search_templates(text, integer) to %I', 'board3_' || current_schema() || '_app');
end
$$;
