//! The walls as a role meets them: what it sees, writes and deletes as one organization, as none, and as a user.
//!
//! Everything runs in one open transaction of an administrator who takes the role on, so that a mutation and what it
//! breaks can both be rolled back.

use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};

use super::{
    accepted::{POLICIES, POSSESSIONS, Shows, WORKER_TABLES},
    catalog::Table,
    rows::{ADA, BOB, PLATFORM, Rows, Whose},
};

/// Everything that a table shows or lets through against the rule, for each role of its slice.
pub(crate) async fn problems(client: &Client, rows: &Rows, table: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    for role in ["app", "worker", "owner"] {
        let mut met = Met {
            client,
            rows,
            table,
            role,
            problems: Vec::new(),
        };
        match (role, table.name.as_str()) {
            ("owner", _) => met.owner().await,
            ("app", "users") => met.accounts().await,
            (_, "users") => met.closed().await,
            ("app", _) if POSSESSIONS.contains(&table.full().as_str()) => met.possessions().await,
            _ if POSSESSIONS.contains(&table.full().as_str()) => met.closed().await,
            _ => met.tenant().await,
        }
        problems.append(&mut met.problems);
    }
    problems
}

struct Met<'a> {
    client: &'a Client,
    rows: &'a Rows,
    table: &'a Table,
    role: &'a str,
    problems: Vec<String>,
}

impl Met<'_> {
    /// A tenant table, under `tenant` and what is accepted beside it.
    async fn tenant(&mut self) {
        let full = self.table.full();
        if self.role == "worker" && !WORKER_TABLES.contains(&full.as_str()) {
            return self.worker().await;
        }
        let ours = self
            .count(&format!("select 1 from {full} where org_id = '{}'", ADA.org))
            .await;
        let platform = match self.shows(Shows::Platform) {
            true => {
                self.count(&format!("select 1 from {full} where org_id = '{}'", PLATFORM.org))
                    .await
            }
            false => 0,
        };
        if self.may("SELECT").await {
            let seen = [
                ("as an organization", Some(ADA), None, ours + platform, ours),
                ("as none", None, None, platform, 0),
                (
                    "as a user of none",
                    None,
                    Some(ADA),
                    platform + self.own(ADA).await,
                    self.own(ADA).await,
                ),
            ];
            for (who, org, user, all, own) in seen {
                self.become_role(org, user).await;
                let theirs = format!(
                    "select 1 from {full} where org_id not in ('{}', '{}')",
                    ADA.org, PLATFORM.org
                );
                self.expect(&format!("{who} sees rows"), &format!("select 1 from {full}"), all)
                    .await;
                self.expect(
                    &format!("{who} sees its own"),
                    &format!("select 1 from {full} where org_id = '{}'", ADA.org),
                    own,
                )
                .await;
                self.expect(&format!("{who} sees another's"), &theirs, 0).await;
                self.leave_role().await;
            }
        }
        self.writes(ours).await;
    }

    /// INSERT, UPDATE and DELETE as an organization, as none, and as a user of none.
    async fn writes(&mut self, ours: u64) {
        let full = self.table.full();
        let may = [
            self.may("INSERT").await,
            self.may("UPDATE").await,
            self.may("DELETE").await,
        ];
        for (who, org, user, own) in [
            ("as an organization", Some(ADA), None, ours),
            ("as none", None, None, 0),
            ("as a user of none", None, Some(ADA), 0),
        ] {
            self.become_role(org, user).await;
            for whose in [ADA, BOB, PLATFORM] {
                let insert = self.rows.insert(&full, whose, 2);
                let passed = self.passes(&insert).await;
                let should = may[0] && org == Some(whose);
                if passed != should {
                    self.problem(format!(
                        "{who} {} a row of {}",
                        if passed { "writes" } else { "cannot write" },
                        whose.org
                    ));
                }
            }
            let touch = format!("update {full} set org_id = org_id");
            self.expect(&format!("{who} updates"), &touch, if may[1] { own } else { u64::MAX })
                .await;
            if may[1] && own > 0 {
                let give = format!("update {full} set org_id = '{}'", BOB.org);
                self.expect(&format!("{who} gives rows away"), &give, u64::MAX).await;
            }
            self.expect(
                &format!("{who} deletes"),
                &format!("delete from {full}"),
                if may[2] { own } else { u64::MAX },
            )
            .await;
            self.expect(&format!("{who} empties"), &format!("truncate {full}"), u64::MAX)
                .await;
            self.leave_role().await;
        }
    }

    /// A tenant table that the worker has no part in, but for what has expired.
    async fn worker(&mut self) {
        let full = self.table.full();
        if !self.shows(Shows::Expired) {
            return self.closed().await;
        }
        let old = format!("select org_id from {full} where created_at < now() - interval '24 hours'");
        let expired = self.count(&old).await;
        for org in [None, Some(ADA)] {
            self.become_role(org, None).await;
            self.expect("sees keys", &format!("select org_id from {full}"), expired)
                .await;
            self.expect("sees expired keys", &old, expired).await;
            self.expect("reads answers", &format!("select response from {full}"), u64::MAX)
                .await;
            self.expect("updates", &format!("update {full} set method = method"), u64::MAX)
                .await;
            self.expect("writes", &self.rows.insert(&full, ADA, 2), u64::MAX).await;
            self.expect("deletes", &format!("delete from {full}"), expired).await;
            self.leave_role().await;
        }
    }

    /// A table that a role has no right on.
    async fn closed(&mut self) {
        let full = self.table.full();
        let column = match self.table.name.as_str() {
            "users" => "id",
            _ if self.table.org_id => "org_id",
            _ => "user_id",
        };
        self.become_role(Some(ADA), Some(ADA)).await;
        let insert = self.rows.insert(&full, ADA, 2);
        for (what, sql) in [
            ("sees rows", format!("select 1 from {full}")),
            ("writes", insert),
            ("updates", format!("update {full} set {column} = {column}")),
            ("deletes", format!("delete from {full}")),
        ] {
            self.expect(what, &sql, u64::MAX).await;
        }
        self.leave_role().await;
    }

    /// Accounts belong to no organization: a user sees and writes their own, and sees the names of colleagues.
    async fn accounts(&mut self) {
        let members = |whose: Whose| {
            let ids: Vec<_> = super::rows::NUMBERS
                .iter()
                .map(|number| {
                    format!(
                        "'{}'",
                        self.rows.id("identity.organization_members", "user_id", whose, *number)
                    )
                })
                .collect();
            ids.join(", ")
        };
        let (mine, ours, theirs) = (self.user(ADA), members(ADA), members(BOB));
        let (table, touch) = (
            self.table.full(),
            format!("update {} set last_org_id = last_org_id", self.table.full()),
        );
        let select = format!("select id from {table}");
        for (who, org, user, seen, written) in [
            ("as none", None, None, 0, 0),
            ("as an organization", Some(ADA), None, 2, 0),
            ("as a user of none", None, Some(ADA), 1, 1),
            ("as a user in an organization", Some(ADA), Some(ADA), 2, 1),
        ] {
            self.become_role(org, user).await;
            self.expect(&format!("{who} sees accounts"), &select, seen).await;
            self.expect(
                &format!("{who} sees colleagues"),
                &format!("{select} where id in ({ours})"),
                seen,
            )
            .await;
            self.expect(
                &format!("{who} sees strangers"),
                &format!("{select} where id in ({theirs})"),
                0,
            )
            .await;
            self.expect(&format!("{who} writes accounts"), &touch, written).await;
            self.expect(
                &format!("{who} writes an address"),
                &format!("update {table} set email = 'x'"),
                u64::MAX,
            )
            .await;
            self.expect(
                &format!("{who} reads a hash"),
                &format!("select password_hash from {table}"),
                u64::MAX,
            )
            .await;
            self.expect(&format!("{who} deletes"), &format!("delete from {table}"), u64::MAX)
                .await;
            let stranger = self.passes(&self.rows.insert(&table, BOB, 2)).await;
            let own = self.passes(&self.rows.insert(&table, ADA, 0)).await;
            if stranger || own != (user == Some(ADA)) {
                self.problem(format!("{who} makes accounts: its own {own}, a stranger's {stranger}"));
            }
            self.leave_role().await;
        }
        debug_assert!(ours.contains(&mine));
    }

    /// What is an account's: its user meets it from within any organization, and nobody else does.
    async fn possessions(&mut self) {
        let table = self.table.full();
        let select = format!("select 1 from {table}");
        let mine = self
            .count(&format!("{select} where user_id = '{}'", self.user(ADA)))
            .await;
        let updates = self.may("UPDATE").await;
        for (who, org, user, met) in [
            ("as none", None, None, 0),
            ("as an organization", Some(ADA), None, 0),
            ("as a user of none", None, Some(ADA), mine),
            ("as a user in an organization", Some(BOB), Some(ADA), mine),
        ] {
            self.become_role(org, user).await;
            let written = if updates { met } else { u64::MAX };
            for (what, sql, rows) in [
                ("sees rows", select.clone(), met),
                ("updates", format!("update {table} set user_id = user_id"), written),
                ("deletes", format!("delete from {table}"), met),
            ] {
                self.expect(&format!("{who} {what}"), &sql, rows).await;
            }
            let stranger = self.passes(&self.rows.insert(&table, BOB, 2)).await;
            let own = self.passes(&self.rows.insert(&table, ADA, 0)).await;
            if stranger || own != (user == Some(ADA)) {
                self.problem(format!("{who} makes rows: its own {own}, a stranger's {stranger}"));
            }
            self.leave_role().await;
        }
    }

    /// The owner migrates: it sees all rows, policies or not.
    async fn owner(&mut self) {
        let select = format!("select 1 from {}", self.table.full());
        let all = self.count(&select).await;
        self.become_role(None, None).await;
        self.expect("sees rows", &select, all).await;
        self.leave_role().await;
    }

    /// How many rows concern a user, beyond those of an organization.
    async fn own(&self, whose: Whose) -> u64 {
        if !self.shows(Shows::User) {
            return 0;
        }
        let table = self.table.full();
        let number = super::rows::NUMBERS[0];
        let id = |column: &str| self.rows.id(&table, column, whose, number);
        let which = match self.table.name.as_str() {
            "organizations" | "organization_domains" => format!("org_id = '{}'", whose.org),
            "roles" => format!("id = '{}'", id("id")),
            "permissions" => format!("role_id = '{}'", id("role_id")),
            _ => format!("user_id = '{}'", self.user(whose)),
        };
        self.count(&format!("select 1 from {table} where {which}")).await
    }

    fn shows(&self, what: Shows) -> bool {
        let full = self.table.full();
        POLICIES
            .iter()
            .any(|policy| policy.table == full && policy.role == self.role && policy.shows == what)
    }

    fn user(&self, whose: Whose) -> String {
        self.rows
            .id("identity.users", "id", whose, super::rows::NUMBERS[0])
            .to_string()
    }

    async fn may(&self, right: &str) -> bool {
        let role = format!("board3_{}_{}", self.table.slice, self.role);
        let sql = format!(
            "select 1 where has_table_privilege('{role}', '{}', '{right}')",
            self.table.full()
        );
        self.count(&sql).await == 1
    }

    async fn become_role(&self, org: Option<Whose>, user: Option<Whose>) {
        let org = org.map(|whose| whose.org.to_string()).unwrap_or_default();
        let user = user.map(|whose| self.user(whose)).unwrap_or_default();
        let settings = format!(
            "select set_config('app.org', '{org}', true), set_config('app.user', '{user}', true);
             set local role board3_{}_{}",
            self.table.slice, self.role
        );
        self.client
            .batch_execute(&settings)
            .await
            .expect("an administrator can take a role on");
    }

    async fn leave_role(&self) {
        self.client
            .batch_execute("reset role")
            .await
            .expect("a role can be left");
    }

    /// Runs a statement that must concern so many rows, or be refused for want of a right (`u64::MAX`), and undoes it.
    async fn expect(&mut self, what: &str, sql: &str, rows: u64) {
        match (self.attempt(sql).await, rows) {
            (Ok(count), wanted) if count == wanted => {}
            (Err(state), u64::MAX) if state == SqlState::INSUFFICIENT_PRIVILEGE => {}
            (Ok(count), u64::MAX) => self.problem(format!("{what}: {count} rows, though it must be refused")),
            (Ok(count), wanted) => self.problem(format!("{what}: {count} rows instead of {wanted}")),
            (Err(state), _) => self.problem(format!("{what}: refused with {}", state.code())),
        }
    }

    /// Whether policies and rights let a row in; that it is there already is asked after them.
    async fn passes(&self, insert: &str) -> bool {
        match self.attempt(insert).await {
            Ok(_) => true,
            Err(state) if state == SqlState::UNIQUE_VIOLATION => true,
            Err(state) if state == SqlState::INSUFFICIENT_PRIVILEGE => false,
            Err(state) => panic!("{insert}: {}", state.code()),
        }
    }

    async fn attempt(&self, sql: &str) -> Result<u64, SqlState> {
        self.client
            .batch_execute("savepoint attempt")
            .await
            .expect("a transaction is open");
        let answer = self.client.simple_query(sql).await;
        self.client
            .batch_execute("rollback to savepoint attempt")
            .await
            .expect("the savepoint is there");
        let answer = answer.map_err(|error| error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone())?;
        Ok(answer
            .iter()
            .map(|message| {
                if let SimpleQueryMessage::CommandComplete(rows) = message {
                    *rows
                } else {
                    0
                }
            })
            .sum())
    }

    async fn count(&self, sql: &str) -> u64 {
        self.attempt(sql)
            .await
            .unwrap_or_else(|state| panic!("{sql}: {}", state.code()))
    }

    fn problem(&mut self, problem: String) {
        let line = format!("{} of {}: {problem}", self.role, self.table.full());
        self.problems.push(line);
    }
}
