//! The queries on `audit_logs`: adding a row, finding one, listing a page. Those on notifications are in [`notification`].

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::{AsSelect, IntoBoxed, Select},
    pg::Pg,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::OrgId, page::PageSize};
use time::OffsetDateTime;

use crate::{
    leaf,
    model::{AuditLog, Cursor, Filter, LogId, NewLog, time_of},
    schema::audit_logs,
};

pub(crate) mod notification;

/// A row as its columns have it, and its leaf input.
pub(crate) type Found = (AuditLog, Vec<u8>);

type Columns = Select<audit_logs::table, (AsSelect<AuditLog, Pg>, audit_logs::leaf_input)>;

/// Adds a row with its leaf input; answers whether it was added, which it is not where its id is taken.
pub(crate) async fn insert(tx: &mut Tx, new: &NewLog) -> Result<bool> {
    let leaf_input = audit_logs::leaf_input.eq(leaf::encode(&new.log));
    let envelope = audit_logs::envelope.eq(new.envelope.as_deref());
    let added = diesel::insert_into(audit_logs::table)
        .values((&new.log, envelope, leaf_input))
        .on_conflict((audit_logs::org_id, audit_logs::id))
        .do_nothing()
        .execute(tx)
        .await?;
    Ok(added == 1)
}

/// A row of the organization.
pub(crate) async fn find(tx: &mut Tx, id: LogId) -> Result<Option<Found>> {
    let org = tx.org();
    let found = audit_logs::table
        .filter(audit_logs::org_id.eq(org).and(audit_logs::id.eq(id)))
        .select((AuditLog::as_select(), audit_logs::leaf_input))
        .first(tx)
        .await
        .optional()?;
    Ok(found)
}

/// The rows of a page, newest first, and one more if there is another page.
pub(crate) async fn list(tx: &mut Tx, filter: &Filter, after: Option<Cursor>, size: PageSize) -> Result<Vec<Found>> {
    let query = page(tx.org(), filter, after, size);
    Ok(query.load(tx).await?)
}

/// The query of a page.
pub(crate) fn page(org: OrgId, filter: &Filter, after: Option<Cursor>, size: PageSize) -> IntoBoxed<'_, Columns, Pg> {
    let mut query = audit_logs::table
        .select((AuditLog::as_select(), audit_logs::leaf_input))
        .into_boxed()
        .filter(audit_logs::org_id.eq(org))
        .order((audit_logs::occurred_at.desc(), audit_logs::id.desc()))
        .limit(size.fetch());
    if let Some(since) = filter.since.map(time) {
        query = query.filter(audit_logs::occurred_at.ge(since));
    }
    if let Some(until) = filter.until.map(time) {
        query = query.filter(audit_logs::occurred_at.lt(until));
    }
    if let Some(actor) = filter.actor_id {
        query = query.filter(audit_logs::actor_id.eq(actor.to_string()));
    }
    if let Some(action) = &filter.action {
        query = query.filter(audit_logs::action.eq(action));
    }
    if let Some(resource_type) = &filter.resource_type {
        query = query.filter(audit_logs::resource_type.eq(resource_type));
    }
    if let Some(resource_id) = &filter.resource_id {
        query = query.filter(audit_logs::resource_id.eq(resource_id));
    }
    if let Some(request_id) = &filter.request_id {
        query = query.filter(
            audit_logs::request_id
                .eq(request_id)
                .or(audit_logs::idempotency_key.eq(request_id)),
        );
    }
    if let Some(after) = after {
        let at = time(after.occurred_at);
        // Said twice, since an index can start at the first half.
        query = query
            .filter(audit_logs::occurred_at.le(at))
            .filter(audit_logs::occurred_at.lt(at).or(audit_logs::id.lt(after.id)));
    }
    query
}

pub(crate) fn time(micros: i64) -> OffsetDateTime {
    time_of(micros).expect("filters and cursors hold times that were read from a Timestamp or a row")
}
