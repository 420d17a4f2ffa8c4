//! The walls as PostgreSQL's catalog has them: every rule asks the catalog and answers what breaks it.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::accepted::{APP_RIGHTS, DEFINERS, INDEXES, NEAR_FOREIGN_KEYS, OWN_ROWS, POLICIES, WORKER_TABLES};

/// What is wrong, all of it. The client is an administrator's, in a transaction or not.
pub(crate) async fn problems(client: &Client, exempt: &[Exempt]) -> Vec<String> {
    let mut problems = Vec::new();
    let tables = tables(client).await;
    problems.extend(exemptions(&tables, exempt));
    for table in &tables {
        let tenant = !is_exempt(table, exempt);
        let own_policies = POLICIES.iter().any(|policy| policy.table == table.full());
        problems.extend(table.flaws(tenant, own_policies));
    }
    problems.extend(policies(client, &tables, exempt).await);
    problems.extend(indexes(client, &tables, exempt).await);
    problems.extend(foreign_keys(client, &tables, exempt).await);
    problems.extend(definers(client).await);
    problems.extend(rights_on_exempt_tables(client, &tables, exempt).await);
    for rule in RULES {
        problems.extend(texts(client, rule).await);
    }
    problems.sort();
    problems
}

/// A line of `migrations/exempt.txt`.
pub(crate) struct Exempt {
    /// A slice, or `*` for each.
    pub(crate) slice: String,
    pub(crate) table: String,
    pub(crate) reason: String,
}

/// The lines of `migrations/exempt.txt`.
pub(crate) fn exempt() -> Vec<Exempt> {
    let text = include_str!("../../../../../migrations/exempt.txt");
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let (slice, table) = name.split_once('.').unwrap_or(("", name));
            Exempt {
                slice: slice.to_owned(),
                table: table.to_owned(),
                reason: reason.trim().to_owned(),
            }
        })
        .collect()
}

/// A table of a slice.
pub(crate) struct Table {
    pub(crate) slice: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) enabled: bool,
    pub(crate) forced: bool,
    pub(crate) org_id: bool,
}

impl Table {
    pub(crate) fn full(&self) -> String {
        format!("{}.{}", self.slice, self.name)
    }

    fn flaws(&self, tenant: bool, own_policies: bool) -> Vec<String> {
        let guarded = tenant || own_policies;
        let rules = [
            (self.kind == "r" || self.kind == "p", "is no table"),
            (self.org_id || !tenant, "has no org_id uuid not null"),
            (self.enabled || !guarded, "has no row-level security"),
            (
                self.forced || !guarded,
                "does not force row-level security on its owner",
            ),
        ];
        rules
            .iter()
            .filter(|(holds, _)| !holds)
            .map(|(_, flaw)| format!("{} {flaw}", self.full()))
            .collect()
    }
}

/// Whether a table is no tenant table.
pub(crate) fn is_exempt(table: &Table, exempt: &[Exempt]) -> bool {
    exempt
        .iter()
        .any(|line| line.table == table.name && (line.slice == "*" || line.slice == table.slice))
}

/// Every table of the slices, of `board3` and of `public`.
pub(crate) async fn tables(client: &Client) -> Vec<Table> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text, c.relkind::text,
               c.relrowsecurity, c.relforcerowsecurity, exists (
                 select from pg_attribute a
                 where a.attrelid = c.oid and a.attname = 'org_id' and a.atttypid = 'uuid'::regtype and a.attnotnull)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit', 'board3', 'public') and c.relkind in ('r', 'p', 'm', 'f')
             order by 1, 2",
            &[],
        )
        .await
        .expect("the catalog can be read");
    rows.iter()
        .map(|row| Table {
            slice: row.get(0),
            name: row.get(1),
            kind: row.get(2),
            enabled: row.get(3),
            forced: row.get(4),
            org_id: row.get(5),
        })
        .collect()
}

fn exemptions(tables: &[Table], exempt: &[Exempt]) -> Vec<String> {
    let mut problems = Vec::new();
    for line in exempt {
        let name = format!("{}.{}", line.slice, line.table);
        if line.reason.len() < 10 {
            problems.push(format!("{name} is exempt without a reason"));
        }
        let slices = if line.slice == "*" {
            crate::house::SLICES.to_vec()
        } else {
            vec![line.slice.as_str()]
        };
        for slice in slices {
            if !tables
                .iter()
                .any(|table| table.slice == slice && table.name == line.table)
            {
                problems.push(format!("{slice}.{} is exempt and not there", line.table));
            }
        }
    }
    problems
}

/// Every policy there is, compared with every policy that should be: one line each, exact to the letter.
async fn policies(client: &Client, tables: &[Table], exempt: &[Exempt]) -> Vec<String> {
    let found = texts(
        client,
        "select format('%s.%s: %s policy %s for %s to %s using %s check %s', n.nspname, c.relname,
           case when p.polpermissive then 'permissive' else 'restrictive' end, p.polname,
           case p.polcmd when '*' then 'ALL' when 'r' then 'SELECT' when 'a' then 'INSERT' when 'w' then 'UPDATE' else 'DELETE' end,
           (select string_agg(case when r.oid = 0 then 'public' else pg_get_userbyid(r.oid)::text end, ',' order by 1)
            from unnest(p.polroles) r(oid)),
           coalesce(pg_get_expr(p.polqual, p.polrelid), '-'), coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '-'))
         from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace",
    )
    .await;
    let mut wanted = BTreeSet::new();
    for table in tables.iter().filter(|table| !is_exempt(table, exempt)) {
        let (full, slice) = (table.full(), &table.slice);
        let worker = if WORKER_TABLES.contains(&full.as_str()) {
            format!(",board3_{slice}_worker")
        } else {
            String::new()
        };
        wanted.insert(format!(
            "{full}: permissive policy tenant for ALL to board3_{slice}_app{worker} using {OWN_ROWS} check {OWN_ROWS}"
        ));
        wanted.insert(owner_all(&full, slice));
    }
    for policy in POLICIES {
        let (slice, _) = policy.table.split_once('.').expect("a table is named with its slice");
        let check = if policy.check.is_empty() { "-" } else { policy.check };
        wanted.insert(format!(
            "{}: permissive policy {} for {} to board3_{slice}_{} using {} check {check}",
            policy.table, policy.name, policy.command, policy.role, policy.using
        ));
        // A table with policies of its own that is no tenant table is still its owner's.
        wanted.insert(owner_all(policy.table, slice));
    }
    let found: BTreeSet<String> = found.into_iter().collect();
    let missing = wanted.difference(&found).map(|line| format!("missing: {line}"));
    missing
        .chain(found.difference(&wanted).map(|line| format!("not accepted: {line}")))
        .collect()
}

fn owner_all(table: &str, slice: &str) -> String {
    format!("{table}: permissive policy owner_all for ALL to board3_{slice}_owner using true check true")
}

async fn indexes(client: &Client, tables: &[Table], exempt: &[Exempt]) -> Vec<String> {
    let rows = client
        .query(
            "select n.nspname::text, t.relname::text, i.relname::text, coalesce(a.attname::text, 'an expression')
             from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid
               join pg_namespace n on n.oid = t.relnamespace
               left join pg_attribute a on a.attrelid = t.oid and a.attnum = x.indkey[0] and a.attnum > 0
             where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit')",
            &[],
        )
        .await
        .expect("the catalog can be read");
    let mut problems = Vec::new();
    let mut unused: BTreeSet<&str> = INDEXES.iter().map(|(name, _)| *name).collect();
    for row in rows {
        let (slice, table, index, first): (String, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let tenant = tables
            .iter()
            .any(|it| it.slice == slice && it.name == table && !is_exempt(it, exempt));
        let name = format!("{slice}.{index}");
        if tenant && first != "org_id" && !unused.remove(name.as_str()) {
            problems.push(format!("index {name} starts with {first}"));
        }
    }
    problems.extend(
        unused
            .iter()
            .map(|name| format!("index {name} is accepted and needs no exception")),
    );
    problems
}

/// A foreign key between tenant tables holds the organization on both sides.
async fn foreign_keys(client: &Client, tables: &[Table], exempt: &[Exempt]) -> Vec<String> {
    let rows = client
        .query(
            "select n.nspname::text, t.relname::text, k.conname::text, fn.nspname::text, ft.relname::text,
               (select coalesce(string_agg(a.attname::text, ','), '') from generate_subscripts(k.confkey, 1) s
                  join pg_attribute f on f.attrelid = k.confrelid and f.attnum = k.confkey[s] and f.attname = 'org_id'
                  join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[s]),
               coalesce((select string_agg(c.conname::text || ' ' || pg_get_constraintdef(c.oid), '; ')
                  from pg_constraint c where c.conrelid = k.conrelid and c.contype = 'c'), '')
             from pg_constraint k join pg_class t on t.oid = k.conrelid join pg_namespace n on n.oid = t.relnamespace
               join pg_class ft on ft.oid = k.confrelid join pg_namespace fn on fn.oid = ft.relnamespace
             where k.contype = 'f'",
            &[],
        )
        .await
        .expect("the catalog can be read");
    let mut problems = Vec::new();
    let mut unused: BTreeSet<&str> = NEAR_FOREIGN_KEYS.iter().map(|(name, ..)| *name).collect();
    for row in rows {
        let text = |at: usize| row.get::<_, String>(at);
        let (slice, table, key, other_slice, other, by, checks) =
            (text(0), text(1), text(2), text(3), text(4), text(5), text(6));
        let name = format!("{slice}.{key}");
        if slice != other_slice {
            problems.push(format!("foreign key {name} crosses into {other_slice}"));
        }
        let tenant = |slice: &str, table: &str| {
            tables
                .iter()
                .any(|it| it.slice == slice && it.name == table && !is_exempt(it, exempt))
        };
        if !tenant(&slice, &table) || !tenant(&other_slice, &other) || by == "org_id" {
            continue;
        }
        match NEAR_FOREIGN_KEYS
            .iter()
            .find(|(near, column, _)| *near == name && *column == by)
        {
            Some((near, column, check)) => {
                unused.remove(near);
                let kept = [
                    format!(
                        "{check} CHECK ((({column} = org_id) OR ({column} = '00000000-0000-7000-8000-000000000000'::uuid)))"
                    ),
                    format!(
                        "{check} CHECK (({column} = ANY (ARRAY[org_id, '00000000-0000-7000-8000-000000000000'::uuid])))"
                    ),
                ];
                if !checks.split("; ").any(|found| kept.iter().any(|kept| kept == found)) {
                    problems.push(format!(
                        "foreign key {name} has no check {check} that keeps {column} near: {checks}"
                    ));
                }
            }
            None => problems.push(format!("foreign key {name} refers to an organization's row by {by:?}")),
        }
    }
    problems.extend(
        unused
            .iter()
            .map(|name| format!("foreign key {name} is accepted and needs no exception")),
    );
    problems
}

async fn definers(client: &Client) -> Vec<String> {
    let found = texts(
        client,
        "select n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where p.prosecdef and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit', 'board3', 'public')",
    )
    .await;
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = DEFINERS.iter().copied().collect();
    let added = found
        .difference(&wanted)
        .map(|name| format!("function {name} runs as its definer and is not accepted"));
    added
        .chain(
            wanted
                .difference(&found)
                .map(|name| format!("function {name} is accepted and not there")),
        )
        .collect()
}

/// The app role has no right on a table without a tenant but those listed.
async fn rights_on_exempt_tables(client: &Client, tables: &[Table], exempt: &[Exempt]) -> Vec<String> {
    let mut problems = Vec::new();
    for table in tables
        .iter()
        .filter(|table| is_exempt(table, exempt) && table.slice != "board3")
    {
        let app = format!("board3_{}_app", table.slice);
        for right in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
            let has: bool = client
                .query_one("select has_table_privilege($1, $2, $3)", &[&app, &table.full(), &right])
                .await
                .expect("the role and the table are there")
                .get(0);
            if has != APP_RIGHTS.contains(&(table.name.as_str(), right)) {
                let verb = if has { "has" } else { "lacks" };
                problems.push(format!("{app} {verb} {right} on {}", table.full()));
            }
        }
    }
    problems
}

/// Each answers one line per flaw.
const RULES: &[&str] = &[
    // Tables and schemas belong to the slice's owner.
    "select format('%s.%s belongs to %s', n.nspname, c.relname, pg_get_userbyid(c.relowner))
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit') and c.relkind in ('r', 'p', 'v', 'S')
       and pg_get_userbyid(c.relowner) <> 'board3_' || n.nspname || '_owner'",
    "select format('schema %s belongs to %s', nspname, pg_get_userbyid(nspowner)) from pg_namespace
     where nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit') and pg_get_userbyid(nspowner) <> 'board3_' || nspname || '_owner'",
    // Nothing lies where no slice owns it.
    "select format('public.%s lies in no slice', relname) from pg_class where relnamespace = 'public'::regnamespace",
    // Views see what their reader may see.
    "select format('view %s.%s runs with its owner''s rights', n.nspname, c.relname)
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit') and c.relkind = 'v'
       and not coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false)",
    "select format('%s.%s is materialized and knows no policies', n.nspname, c.relname)
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit') and c.relkind in ('m', 'f')",
    // Functions that run as their definer look names up in their own schema and are granted by name.
    "select format('function %s.%s has no pinned search_path', n.nspname, p.proname)
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where p.prosecdef and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit', 'board3')
       and not coalesce(p.proconfig && array[format('search_path=%s, pg_temp', n.nspname)], false)",
    "select format('function %s.%s belongs to %s', n.nspname, p.proname, pg_get_userbyid(p.proowner))
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit') and pg_get_userbyid(p.proowner) <> 'board3_' || n.nspname || '_owner'",
    "select format('function %s.%s can be called by everyone', n.nspname, p.proname)
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit', 'board3')
       and (p.proacl is null or exists (select from aclexplode(p.proacl) where grantee = 0))",
    "select format('function %s.%s names another slice', n.nspname, p.proname)
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace, unnest(array['identity', 'designs', 'terraform_state', 'pipelines', 'audit']) other
     where n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit') and other <> n.nspname and p.prosrc ~ format('\\m%s\\.', other)",
    // Roles hold nothing that steps over row-level security.
    "select format('role %s has an attribute too many', rolname) from pg_roles
     where rolname like 'board3\\_%' and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)",
    "select format('owner %s can log in', rolname) from pg_roles where rolname like 'board3\\_%\\_owner' and rolcanlogin",
    "select format('%s is a member of %s', m.rolname, r.rolname)
     from pg_auth_members a join pg_roles m on m.oid = a.member join pg_roles r on r.oid = a.roleid
     where m.rolname like 'board3\\_%' and (m.rolname <> 'board3_migrate' or r.rolname not like 'board3\\_%\\_owner')",
    "select 'board3_migrate inherits what it may enter' from pg_roles where rolname = 'board3_migrate' and rolinherit",
    // Rights that no policy binds.
    "select format('%s may %s %s.%s', r.rolname, lower(p.kind), n.nspname, c.relname)
     from pg_roles r, pg_class c join pg_namespace n on n.oid = c.relnamespace, unnest(array['TRUNCATE', 'REFERENCES', 'TRIGGER']) p(kind)
     where r.rolname ~ '^board3_.+_(app|worker)$' and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit', 'board3')
       and c.relkind in ('r', 'p', 'v') and has_table_privilege(r.oid, c.oid, p.kind)",
    // Nobody holds anything in another slice.
    "select format('%s may enter schema %s', r.rolname, n.nspname)
     from pg_roles r, pg_namespace n
     where r.rolname ~ '^board3_.+_(owner|app|worker)$' and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit', 'public')
       and r.rolname not like format('board3\\_%s\\_%%', n.nspname)
       and (has_schema_privilege(r.oid, n.oid, 'USAGE') or has_schema_privilege(r.oid, n.oid, 'CREATE'))",
    "select format('%s may make objects in schema %s', r.rolname, n.nspname)
     from pg_roles r, pg_namespace n
     where r.rolname ~ '^board3_.+_(app|worker)$' and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit', 'public', 'board3')
       and has_schema_privilege(r.oid, n.oid, 'CREATE')",
    "select format('%s has rights on %s.%s', r.rolname, n.nspname, c.relname)
     from pg_roles r, pg_class c join pg_namespace n on n.oid = c.relnamespace
     where r.rolname ~ '^board3_.+_(owner|app|worker)$' and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit')
       and c.relkind in ('r', 'p', 'v', 'm', 'f') and r.rolname not like format('board3\\_%s\\_%%', n.nspname)
       and (has_table_privilege(r.oid, c.oid, 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER')
         or has_any_column_privilege(r.oid, c.oid, 'SELECT,INSERT,UPDATE,REFERENCES'))",
    "select format('%s may call %s.%s', r.rolname, n.nspname, p.proname)
     from pg_roles r, pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where r.rolname ~ '^board3_.+_(owner|app|worker)$' and n.nspname in ('identity', 'designs', 'terraform_state', 'pipelines', 'audit')
       and r.rolname not like format('board3\\_%s\\_%%', n.nspname) and has_function_privilege(r.oid, p.oid, 'EXECUTE')",
    "select format('%s may make temporary tables', r.rolname) from pg_roles r
     where r.rolname like 'board3\\_%' and has_database_privilege(r.oid, current_database(), 'TEMPORARY')",
    // Secrets of accounts are for definers alone.
    "select format('%s may read identity.users.password_hash', rolname) from pg_roles
     where rolname ~ '^board3_.+_(app|worker)$' and has_column_privilege(oid, 'identity.users', 'password_hash', 'SELECT')",
];

/// The first column of every row.
pub(crate) async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client
        .query(sql, &[])
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}
