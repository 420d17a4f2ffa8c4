-- Questions that an operator asks of the databases, with the SQL that answers them.
--
-- `./dev psql SERVICE` opens psql in a service's schema (a slice) with an administrator's login.
-- Each section begins with the service it is for; paste what you need. The whole file also runs as it is, and changes
-- nothing: every section is a transaction that is rolled back.
--
-- Three things to know:
-- * Take the role that the service itself has, as the sections do: `app` is what calls use, `worker` what relays and
--   consumers use. Neither owns a table nor steps over row-level security, so nothing is seen here that the service
--   could not see. `./dev psql SERVICE app` (or `worker`, or `owner`) logs in as that role from the start.
-- * Rows belong to organizations. As `app` (and as `worker` on tenant tables) you see those of one organization,
--   the one that `app.org` names; without it you see none. Set it with `set local app.org = '<organization id>'`.
-- * The platform organization, 00000000-0000-7000-8000-000000000000, owns what belongs to nobody: system roles,
--   templates, sign-ups, failed logins of unknown names.

---------------------------------------------------------------- ./dev psql identity

-- Which organizations are there? Across organizations only the owner sees; it is for looking, not for mending.
begin;
set local role board3_identity_owner;
set local search_path = identity;

select o.org_id, o.name, o.slug, o.created_at, count(m.user_id) as members
from organizations o left join organization_members m using (org_id)
group by o.org_id order by o.created_at;

-- Who is the user with this e-mail address, and where are they a member?
select u.id, u.username, u.first_name, u.last_name, m.org_id, r.name as role, m.joined_at
from users u
left join organization_members m on m.user_id = u.id
left join roles r on (r.org_id, r.id) = (m.role_org_id, m.role_id)
where u.email = lower('Ada@example.com');
rollback;

-- Who is a member of this organization, and what may they do?
begin;
set local role board3_identity_app;
set local search_path = identity;
set local app.org = '00000000-0000-7000-8000-000000000000';

select u.username, r.name as role, array_agg(p.permission order by p.permission) as permissions
from organization_members m
join users u on u.id = m.user_id
join roles r on (r.org_id, r.id) = (m.role_org_id, m.role_id)
left join permissions p on (p.org_id, p.role_id) = (r.org_id, r.id)
group by u.username, r.name order by u.username;

-- Which sessions stand, and since when has nobody used them?
select id, user_id, device, created_at, last_seen_at, least(idle_expires_at, expires_at) as ends_at
from sessions
where revoked_at is null and least(idle_expires_at, expires_at) > now()
order by last_seen_at desc limit 50;

-- Which API keys have not been used for 30 days? The key itself is stored nowhere.
select id, name, public_id, scopes, creator_id, created_at, last_used_at, expires_at
from api_keys
where revoked_at is null and expires_at > now() and coalesce(last_used_at, created_at) < now() - interval '30 days'
order by created_at;
rollback;

---------------------------------------------------------------- ./dev psql designs

begin;
set local role board3_designs_app;
set local search_path = designs;
set local app.org = '00000000-0000-7000-8000-000000000000';

-- The organization's designs with the creator's name and the template, as ListDesigns answers them.
select d.id, d.name, d.status, d.cloud_provider, d.revision, d.latest_version, d.updated_at,
  n.first_name || ' ' || n.last_name as creator, t.name as template, t.category
from designs d
left join user_names n on (n.org_id, n.user_id) = (d.org_id, d.creator_id)
left join templates t on (t.org_id, t.id) = (d.template_org_id, d.template_id)
where d.deleted_at is null
order by d.updated_at desc, d.id desc limit 50;

-- What is on a design's canvas, node by node?
select node.value ->> 'id' as node, node.value ->> 'resourceType' as resource_type, node.value ->> 'name' as name,
  node.value ->> 'parentId' as parent, node.value -> 'configuration' as configuration
from designs d, json_array_elements(d.canvas -> 'nodes') as node
where d.id = '01900000-0000-7000-8000-000000000000';

-- Which kinds of resources does the organization use most?
select resource_type, count(*) as resources, count(distinct design_id) as designs
from resources group by resource_type order by resources desc limit 20;

-- Which resources have drifted, as the last check of each state told it?
select d.id, d.name, x.address, x.kind, x.state_name, x.detected_at
from resource_drifts x join designs d on (d.org_id, d.id) = (x.org_id, x.design_id)
order by x.detected_at desc limit 50;

-- Is every canvas what its hash says? (None should come back.)
select id, name from designs where canvas_hash <> sha256(convert_to(canvas::text, 'UTF8'));
rollback;

---------------------------------------------------------------- ./dev psql terraform-state

begin;
set local role board3_terraform_state_app;
set local search_path = terraform_state;
set local app.org = '00000000-0000-7000-8000-000000000000';

-- The organization's states with their newest version. What a state holds is sealed: no SQL shows it.
select s.id, s.name, s.design_id, v.number as version, v.serial, v.lineage, v.resource_count,
  pg_size_pretty(v.size_bytes) as size, v.author_kind, v.author_id, v.created_at as written_at
from states s
left join state_versions v on (v.org_id, v.state_id, v.number) = (s.org_id, s.id, s.latest_version)
order by s.name limit 50;

-- Who holds a lock, and since when has nobody heard of them? A lock has no end: `terraform force-unlock`, or
-- ForceUnlockState with a reason, takes it away.
select s.name, l.lock_id, l.operation, l.who, l.holder_kind, l.holder_id, l.created_at, now() - l.last_seen_at as silent_for
from state_locks l join states s on (s.org_id, s.id) = (l.org_id, l.state_id)
order by l.last_seen_at;

-- Which locks were taken from their holder, by whom and why? Each state remembers its last.
select name, released_lock_id, released_reason, released_by_kind, released_by_id, released_at
from states where released_by_force
order by released_at desc limit 20;

-- How did a state come to be what it is? `forced` went over Terraform's rules of serial and lineage.
select v.number, v.serial, v.lineage, v.kind, v.size_bytes, v.resource_count, v.terraform_version, v.author_id, v.created_at
from state_versions v join states s on (s.org_id, s.id) = (v.org_id, v.state_id)
where s.name = 'my-design/production'
order by v.number desc limit 20;

-- Has every version all of its chunks? (None should come back.)
select v.state_id, v.number, v.chunks, count(c.place) as found
from state_versions v left join state_chunks c on (c.org_id, c.version_id) = (v.org_id, v.id)
group by v.org_id, v.state_id, v.number, v.chunks having count(c.place) <> v.chunks;

-- What did the last check that found drift find, state by state? Values are sealed; ListDriftLogs shows them.
select s.name, d.detected_at, d.address, d.kind, d.path, d.masked
from states s
join lateral (select check_id from drift_logs d
  where (d.org_id, d.state_id) = (s.org_id, s.id) order by d.id desc limit 1) last on true
join drift_logs d on (d.org_id, d.check_id) = (s.org_id, last.check_id)
order by s.name, d.address, d.path limit 100;
rollback;

-- Which states are largest, with all their versions? Across organizations only the owner sees.
begin;
set local role board3_terraform_state_owner;
set local search_path = terraform_state;

select s.org_id, s.name, count(*) as versions, pg_size_pretty(sum(v.size_bytes)) as size
from state_versions v join states s on (s.org_id, s.id) = (v.org_id, v.state_id)
group by s.org_id, s.id, s.name order by sum(v.size_bytes) desc limit 20;
rollback;

---------------------------------------------------------------- ./dev psql pipelines

begin;
set local role board3_pipelines_app;
set local search_path = pipelines;
set local app.org = '00000000-0000-7000-8000-000000000000';

-- What has run lately, what started it, and how did it end?
select e.id, p.name as pipeline, e.design_version, e.state_name, e.trigger, e.status, e.status_detail, e.created_at,
  e.started_at - e.created_at as waited, e.finished_at - e.started_at as took
from pipeline_executions e join pipelines p on (p.org_id, p.id) = (e.org_id, e.pipeline_id)
order by e.created_at desc, e.id desc limit 50;

-- Where does an execution stand, stage by stage, attempt by attempt?
select t.position, t.name, t.kind, t.status, t.failure_reason, t.failure_detail, a.number as attempt, a.status as attempt_status,
  r.name as runner, a.generation, a.started_at, a.finished_at, a.log_bytes
from pipeline_stages t
left join stage_attempts a on (a.org_id, a.stage_id) = (t.org_id, t.id)
left join runners r on (r.org_id, r.id) = (a.org_id, a.runner_id)
where t.execution_id = '01900000-0000-7000-8000-000000000000'
order by t.position, a.number;

-- What waits for a runner, and for how long? If runners are there, look at their log; if not, start one.
select t.id, t.name, t.kind, e.state_name, now() - t.created_at as waiting
from pipeline_stages t join pipeline_executions e on (e.org_id, e.id) = (t.org_id, t.execution_id)
where t.status = 'ready'
order by t.created_at limit 50;

-- Who works on what? Past `fence_at` a lease is taken away: a plan is tried again, an apply's outcome is unknown.
select r.name as runner, r.terraform_version, t.name as stage, t.kind, e.state_name, a.generation, a.renewed_at,
  a.expires_at - now() as lease_left, a.fence_at - now() as fence_in
from stage_attempts a
join pipeline_stages t on (t.org_id, t.id) = (a.org_id, a.stage_id)
join pipeline_executions e on (e.org_id, e.id) = (t.org_id, t.execution_id)
join runners r on (r.org_id, r.id) = (a.org_id, a.runner_id)
where a.status in ('leased', 'running')
order by a.fence_at;

-- Which applies are nobody's to judge but a person's? The state and its lock tell what is known.
select e.id, e.state_name, t.name as stage, t.failure_detail, t.finished_at
from pipeline_stages t join pipeline_executions e on (e.org_id, e.id) = (t.org_id, t.execution_id)
where t.status = 'outcome_unknown'
order by t.finished_at desc limit 20;

-- Which runners are there, and which have not been heard of for an hour?
select name, terraform_version, principal_kind, principal_id, seen_at, seen_at < now() - interval '1 hour' as silent
from runners order by name;
rollback;

-- Which leases wait for the reaper, of any organization? More than a few seconds behind means that it does not run.
begin;
set local role board3_pipelines_worker;
set local search_path = pipelines;

select count(*) as overdue from expired_leases(1000);
rollback;

---------------------------------------------------------------- ./dev psql audit

begin;
set local role board3_audit_app;
set local search_path = audit;
set local app.org = '00000000-0000-7000-8000-000000000000';

-- What happened in the organization during the last day?
select occurred_at, actor_kind, actor_id, action, resource_type, resource_id, outcome, reason
from audit_logs
where occurred_at >= now() - interval '1 day'
order by occurred_at desc, id desc limit 50;

-- What happened to one resource?
select occurred_at, actor_kind, actor_id, action, outcome, request_id
from audit_logs
where resource_type = 'design' and resource_id = '01900000-0000-7000-8000-000000000000'
order by occurred_at desc, id desc limit 50;

-- What did one caller do, and how often?
select action, outcome, count(*) as calls, max(occurred_at) as latest
from audit_logs
where actor_id = '01900000-0000-7000-8000-000000000000' and occurred_at >= now() - interval '30 days'
group by action, outcome order by calls desc;

-- Which rows did the call leave whose `x-request-id` (or `request_id`) somebody reports? Its trace has the rest.
select occurred_at, source, action, outcome, reason, trace_id
from audit_logs
where request_id = 'the-id' or idempotency_key = 'the-id'
order by occurred_at;

-- Who was refused, and of what, this week?
select actor_id, action, reason, count(*) as times, max(occurred_at) as latest
from audit_logs
where outcome = 'denied' and occurred_at >= now() - interval '7 days'
group by actor_id, action, reason order by times desc limit 20;

-- How long does an event take from its call to the trail?
select source, count(*) as events,
  percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from recorded_at - occurred_at)) as seconds
from audit_logs
where recorded_at >= now() - interval '1 hour' and kind = 'call'
group by source;

-- What should people hear of, and how many have read it?
select n.occurred_at, n.kind, n.title, n.resource_type, n.resource_id, count(r.principal) as readers
from notifications n left join notification_reads r on (r.org_id, r.notification_id) = (n.org_id, n.id)
group by n.org_id, n.id, n.occurred_at, n.kind, n.title, n.resource_type, n.resource_id
order by n.occurred_at desc, n.id desc limit 20;

-- Which events could not be understood? `envelope` is board3.events.v1.Event, encoded.
select recorded_at, source, epoch, position, octet_length(envelope) as bytes, encode(envelope_hash, 'hex') as sha256
from audit_logs where kind = 'unparsed'
order by recorded_at desc limit 20;
rollback;

-- The trail only grows: even its owner can change nothing. (This is expected to fail, so it is a comment.)
--   begin; set local role board3_audit_owner; delete from audit.audit_logs;
--   ERROR:  audit_logs is append-only: DELETE is refused

---------------------------------------------------------------- ./dev psql SERVICE: events, the same in every slice

begin;
set local role board3_audit_worker;
set local search_path = audit;

-- How far has each consumer come in each source, and what came last?
select c.consumer, c.source, c.epoch, c.position, max(i.applied_at) as last_applied_at
from cursors c left join inbox i using (consumer, source)
group by c.consumer, c.source, c.epoch, c.position order by c.consumer, c.source;

-- Is a consumer behind? Compare its position with this, in the source's own database.
select source, epoch, position as head from relay_head;

-- Are events waiting for the relay? More than a second's worth means that it does not run.
select count(*) as waiting, min(created_at) as oldest from outbox where position is null;

-- How many events were written, hour by hour?
select date_trunc('hour', created_at) as hour, count(*) as events, sum(octet_length(envelope)) as bytes
from outbox where created_at >= now() - interval '1 day'
group by hour order by hour;

-- Which events failed for good? The cursor has moved past them.
select consumer, source, position, event_id, attempts, error, created_at
from dead_letters order by created_at desc limit 20;
rollback;

---------------------------------------------------------------- ./dev psql SERVICE: the database itself

begin;
-- What runs just now, and for how long? Nothing should idle in a transaction.
select pid, usename, state, now() - xact_start as transaction_age, wait_event_type, left(query, 80) as query
from pg_stat_activity
where usename like 'board3\_%' order by xact_start nulls last;

-- Which tables are under forced row-level security? Those that are not stand in migrations/exempt.txt, or, as users
-- does, have policies of their own.
select n.nspname as slice, c.relname as table, c.relrowsecurity as secured, c.relforcerowsecurity as forced,
  (select array_agg(p.polname order by p.polname) from pg_policy p where p.polrelid = c.oid) as policies
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit')
order by 1, 2;

-- Which indexes are never used, and how large are they?
select schemaname as slice, relname as table, indexrelname as index, pg_size_pretty(pg_relation_size(indexrelid)) as size
from pg_stat_user_indexes
where idx_scan = 0 and schemaname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit')
order by pg_relation_size(indexrelid) desc limit 20;

-- Which migrations ran?
select 'identity' as slice, version, run_on from identity.__diesel_schema_migrations
union all select 'designs', version, run_on from designs.__diesel_schema_migrations
union all select 'terraform_state', version, run_on from terraform_state.__diesel_schema_migrations
union all select 'pipelines', version, run_on from pipelines.__diesel_schema_migrations
union all select 'audit', version, run_on from audit.__diesel_schema_migrations
order by slice, run_on, version;
rollback;
