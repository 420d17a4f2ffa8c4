//! The transaction guard.
//!
//! `BEGIN` and the tenant's settings travel as one simple query, joined with the next statement.
//! COMMIT is never joined with a statement: one that is not yet prepared would run after it and see no rows.

use std::sync::Arc;

use api::events::v1::{Event, event::Payload};
use diesel::dsl::{IntervalDsl, now};
use diesel::upsert::excluded;
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use prost::Message;
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Manager, record,
    requests::KEPT_HOURS,
    schema::{outbox, requests},
};
use crate::{
    auth::scope::{Begins, Call, Repeat, Tenancy},
    crypto::KeyRing,
    error::{Error, Reason, Result},
    failpoint,
    ids::{OrgId, Principal},
    redis::Redis,
    views,
};

mod statements;

/// How many events one statement writes; PostgreSQL takes 65,535 values, and an event has three.
const EVENTS_AT_ONCE: usize = 10_000;

/// What the audit event is about: the type and id of a resource.
pub trait About {
    /// Singular snake case, for example `design`.
    const TYPE: &'static str;
    /// Its id.
    fn id(&self) -> String;
}

/// One transaction of one scope.
///
/// Store functions take `&mut Tx` and run diesel queries on it.
/// Between the first statement and the end of the transaction the connection counts as open;
/// an open connection that is dropped (a cancelled or panicked call) is closed by the pool.
pub struct Tx {
    connection: bb8::PooledConnection<'static, Manager>,
    /// `BEGIN`, and the tenant's settings whenever they change, until the next statement takes them along.
    ahead: Option<String>,
    begun: bool,
    origin: Tenancy,
    tenancy: Tenancy,
    may_enter: bool,
    call: Option<Arc<Call>>,
    slice: &'static str,
    ring: Arc<KeyRing>,
    about: Option<(&'static str, String)>,
    told: Vec<(OrgId, Event)>,
    /// What views may show and is otherwise after the commit.
    changed: Vec<String>,
    cause: Option<record::Cause>,
    claimed: bool,
    /// Whether the outbox has new rows, for the relay to be woken.
    wrote: bool,
    committed: Arc<Notify>,
    redis: Option<Redis>,
}

/// What became of a request id.
pub(super) enum Claim {
    /// The first call with it, or a call without one.
    Fresh,
    /// It was answered before: the encoded answer.
    Repeated(Vec<u8>),
}

impl Tx {
    pub(super) fn new(
        mut connection: bb8::PooledConnection<'static, Manager>,
        scope: &impl Begins,
        slice: &'static str,
        ring: Arc<KeyRing>,
        committed: Arc<Notify>,
        redis: Option<Redis>,
    ) -> Self {
        let tenancy = scope.tenancy();
        let call = scope.call().cloned();
        let timeout = call
            .as_ref()
            .map_or(30_000, |call| call.remaining().as_millis().clamp(1, 60_000));
        let ahead = format!("begin; {}; set local statement_timeout = {timeout}", settings(tenancy));
        connection.open = true;
        Tx {
            connection,
            ahead: Some(ahead),
            begun: false,
            origin: tenancy,
            tenancy,
            may_enter: scope.may_enter(),
            call,
            slice,
            ring,
            about: None,
            told: Vec::new(),
            changed: Vec::new(),
            cause: None,
            claimed: false,
            wrote: false,
            committed,
            redis,
        }
    }

    /// The organization whose rows the transaction sees.
    pub fn org(&self) -> OrgId {
        self.tenancy.org
    }

    /// In whose name it writes.
    pub fn principal(&self) -> Principal {
        self.tenancy.principal
    }

    /// Where the call comes from; empty for what no call does.
    pub fn caller_address(&self) -> &str {
        self.call.as_ref().map_or("", |call| &call.caller_address)
    }

    /// Names what the audit event is about; the last word counts.
    pub fn about<T: About>(&mut self, resource: &T) {
        self.about = Some((T::TYPE, resource.id()));
    }

    /// Names something that [views](crate::views) show: those that show it are void once the transaction is committed.
    pub fn changes(&mut self, part: String) {
        self.changed.push(part);
    }

    /// Tells peers of a change in the transaction's organization.
    pub fn tell(&mut self, payload: Payload) {
        self.tell_in(self.tenancy.org, payload);
    }

    /// Tells peers of a change that concerns another organization: user changes go to each organization of the user.
    pub fn tell_in(&mut self, org: OrgId, payload: Payload) {
        let event = record::told(self.call.as_deref(), org, self.tenancy.principal, self.slice, payload);
        self.push(org, event);
    }

    /// Tells the audit trail what the transaction's principal did of itself: `<slice>.<verb>`, in the transaction's
    /// organization, following from what [`Tx::caused_by`] names. What a call does is told without it.
    pub fn acted<T: About>(&mut self, verb: &'static str, about: &T) {
        let event = record::acted(
            self.call.as_deref(),
            self.tenancy,
            self.slice,
            verb,
            (T::TYPE, about.id()),
        );
        self.push(self.tenancy.org, event);
    }

    /// Tells another organization's audit trail what has become of something of its own, in the service's name: who did it
    /// is of no organization that it knows.
    pub fn acted_in<T: About>(&mut self, org: OrgId, verb: &'static str, about: &T) {
        let service = Tenancy {
            org,
            principal: Principal::Service(self.slice),
        };
        let event = record::acted(None, service, self.slice, verb, (T::TYPE, about.id()));
        self.push(org, event);
    }

    /// Names the event that what is told from here on follows from, and how long the chain behind it is.
    pub fn caused_by(&mut self, event: &Event) {
        self.cause = Some(record::Cause::of(event));
    }

    /// Tells the audit trail that an event is set aside for good.
    ///
    /// Not of one that itself tells of a dead letter: a broken audit would never come to an end of it.
    pub(crate) fn tell_dead_letter(&mut self, event: &Event, error: &Error) {
        if event.action.ends_with(record::DEAD_LETTER) {
            return;
        }
        let org = event.organization_id.parse().unwrap_or(OrgId::PLATFORM);
        self.caused_by(event);
        self.push(org, record::dead_letter(org, self.slice, event, error));
    }

    fn push(&mut self, org: OrgId, mut event: Event) {
        if let Some(cause) = &self.cause {
            cause.mark(&mut event);
        }
        self.told.push((org, event));
    }

    /// Goes on in an organization that the scope does not name, in the name of a principal proven there.
    ///
    /// For identity (sign-up, login, switching, invitations), for peers' calls that name an organization,
    /// and for consumers, before each organization's rows.
    ///
    /// # Errors
    /// INTERNAL for a scope that is bound to its organization.
    pub async fn enter(&mut self, org: OrgId, principal: Principal) -> Result<()> {
        if !self.may_enter {
            return Err(Error::internal("a transaction of an organization cannot enter another"));
        }
        self.tenancy = Tenancy { org, principal };
        self.apply_settings(self.tenancy);
        Ok(())
    }

    /// A savepoint around `body`: on an error everything since is undone and the transaction goes on.
    pub async fn savepoint<R>(&mut self, body: impl AsyncFnOnce(&mut Tx) -> Result<R>) -> Result<Result<R>> {
        self.batch_execute("savepoint attempt").await?;
        let (told, changed) = (self.told.len(), self.changed.len());
        match body(self).await {
            Ok(answer) => {
                self.batch_execute("release savepoint attempt").await?;
                Ok(Ok(answer))
            }
            Err(error) => {
                self.told.truncate(told);
                self.changed.truncate(changed);
                self.batch_execute("rollback to savepoint attempt; release savepoint attempt")
                    .await?;
                Ok(Err(error))
            }
        }
    }

    /// Claims the call's request id; a twin at the same moment waits here for the first one's end.
    /// One that is older than [`KEPT_HOURS`] counts as never used, whether or not it is pruned yet.
    pub(super) async fn claim(&mut self) -> Result<Claim> {
        use diesel::query_dsl::methods::FilterDsl as _;
        if let Some(wrong) = self.call.as_ref().and_then(|call| call.request_id_violation()) {
            return Err(Error::violation(wrong.field, wrong.description));
        }
        let Some((call, repeat)) = self.repeat() else {
            return Ok(Claim::Fresh);
        };
        let key = (self.origin.org.0, self.origin.principal.to_string(), call.method.action);
        let hash = self.ring.keyed_hash("board3 request arguments", &repeat.arguments);
        let claimed = diesel::insert_into(requests::table)
            .values((
                requests::org_id.eq(key.0),
                requests::principal.eq(&key.1),
                requests::method.eq(key.2),
                requests::request_id.eq(repeat.request_id),
                requests::arguments_hash.eq(hash.as_slice()),
            ))
            .on_conflict((
                requests::org_id,
                requests::principal,
                requests::method,
                requests::request_id,
            ))
            .do_update()
            .set((
                requests::arguments_hash.eq(excluded(requests::arguments_hash)),
                requests::response.eq(None::<Vec<u8>>),
                requests::resource_id.eq(None::<String>),
                requests::created_at.eq(now),
            ))
            .filter((requests::created_at + KEPT_HOURS.hours()).lt(now))
            .execute(self)
            .await?;
        if claimed == 1 {
            self.claimed = true;
            return Ok(Claim::Fresh);
        }
        type Row = (Vec<u8>, Option<Vec<u8>>, Option<String>);
        let row: Option<Row> = requests::table
            .find((key.0, &key.1, key.2, repeat.request_id))
            .select((requests::arguments_hash, requests::response, requests::resource_id))
            .first(self)
            .await
            .optional()?;
        let Some((known, response, resource_id)) = row else {
            return Err(Error::new(
                Reason::Conflict,
                "the first call with this request id has just ended; try again",
            ));
        };
        if !self.ring.matches("board3 request arguments", &repeat.arguments, &known) {
            return Err(Error::new(
                Reason::RequestIdReused,
                "this request id was used before with other arguments",
            ));
        }
        match response {
            Some(sealed) => {
                let aad = self.seal_context(&call, &repeat);
                let answer = self
                    .ring
                    .open(&sealed, &aad)
                    .map_err(|error| Error::internal(format!("a kept answer cannot be opened: {error:?}")))?;
                Ok(Claim::Repeated(answer.expose_secret().to_vec()))
            }
            None => Err(Error::new(
                Reason::SecretAlreadyShown,
                "this request succeeded before, and its answer is shown once",
            )
            .with("resource_id", resource_id.unwrap_or_default())),
        }
    }

    /// Keeps the answer for repeats, sealed; of an answer with a secret, only what it is about.
    pub(super) async fn keep(&mut self, answer: &impl Message) -> Result<()> {
        if !self.claimed {
            return Ok(());
        }
        let Some((call, repeat)) = self.repeat() else {
            return Ok(());
        };
        let response = if call.method.answers_secret {
            None
        } else {
            let aad = self.seal_context(&call, &repeat);
            Some(self.ring.seal(&answer.encode_to_vec(), &aad))
        };
        let entered = self.tenancy;
        if entered.org != self.origin.org {
            self.apply_settings(self.origin);
        }
        let resource = self.about.as_ref().map(|(_, id)| id.clone());
        diesel::update(requests::table.find((
            self.origin.org.0,
            self.origin.principal.to_string(),
            call.method.action,
            repeat.request_id,
        )))
        .set((requests::response.eq(response), requests::resource_id.eq(resource)))
        .execute(self)
        .await?;
        Ok(())
    }

    /// Writes the audit event and what peers are told, then commits.
    pub(crate) async fn commit(mut self) -> Result<()> {
        let mut events = Vec::new();
        if let Some(call) = self.call.clone().filter(|call| call.method.audited) {
            let about = self.about.take();
            if about.is_none() && cfg!(debug_assertions) {
                return Err(Error::internal(format!(
                    "{} does not say what it is about",
                    call.method.action
                )));
            }
            events.push((self.tenancy.org, record::audited(&call, self.tenancy, about)));
        }
        events.append(&mut self.told);
        self.write_events(events).await?;
        failpoint::hit("tx.before_commit").await?;
        if self.begun {
            let mut pg = &self.connection.pg;
            pg.batch_execute("commit").await?;
        }
        self.connection.open = false;
        if self.wrote {
            self.committed.notify_one();
        }
        let Tx {
            connection,
            redis,
            changed,
            ..
        } = self;
        drop(connection);
        if let Some(redis) = redis.filter(|_| !changed.is_empty()) {
            // A caller who hangs up at this moment does not keep it from being noted.
            let noted = tokio::spawn(async move { views::note(&redis, &changed).await });
            noted.await.map_err(Error::internal)?;
        }
        Ok(())
    }

    /// Ends the transaction without a trace; a connection on which even that fails is closed.
    pub(crate) async fn roll_back(mut self) {
        if !self.begun || (&self.connection.pg).batch_execute("rollback").await.is_ok() {
            self.connection.open = false;
        }
    }

    pub(super) async fn write_events(&mut self, events: Vec<(OrgId, Event)>) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        for events in events.chunks(EVENTS_AT_ONCE) {
            let rows: Vec<_> = events
                .iter()
                .map(|(org, event)| {
                    let id = Uuid::parse_str(&event.event_id).map_err(Error::internal)?;
                    Ok((
                        outbox::event_id.eq(id),
                        outbox::org_id.eq(org.0),
                        outbox::envelope.eq(event.encode_to_vec()),
                    ))
                })
                .collect::<Result<_>>()?;
            diesel::insert_into(outbox::table).values(rows).execute(self).await?;
        }
        self.wrote = true;
        Ok(())
    }

    /// Makes the commit write nothing that would follow from the call.
    pub(super) fn forget_call(&mut self) {
        self.call = None;
    }

    fn repeat(&self) -> Option<(Arc<Call>, Repeat)> {
        let call = self.call.clone().filter(|call| call.method.takes_request_id)?;
        let repeat = call.repeat()?.clone();
        Some((call, repeat))
    }

    fn seal_context(&self, call: &Call, repeat: &Repeat) -> Vec<u8> {
        format!(
            "requests|{}|{}|{}|{}",
            self.origin.org, self.origin.principal, call.method.action, repeat.request_id
        )
        .into_bytes()
    }

    fn apply_settings(&mut self, tenancy: Tenancy) {
        let ahead = self.ahead.get_or_insert_default();
        if !ahead.is_empty() {
            ahead.push_str("; ");
        }
        ahead.push_str(&settings(tenancy));
    }

    /// What goes ahead of the statement that is sent now.
    fn take_ahead(&mut self) -> Option<String> {
        self.begun = true;
        self.ahead.take()
    }
}

/// The statements that bind row-level security to a tenancy for the rest of the transaction; nothing plans them, as it would a
/// SELECT of `set_config`.
fn settings(tenancy: Tenancy) -> String {
    // Ids are UUIDs by type: nothing in them needs quoting.
    let user = tenancy
        .principal
        .user()
        .map(|user| user.to_string())
        .unwrap_or_default();
    format!(
        "set local app.org = '{}'; set local app.\"user\" = '{user}'",
        tenancy.org
    )
}
