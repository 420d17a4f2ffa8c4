//! The queries on `notifications` and `notification_reads`.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, QueryDsl, SelectableHelper,
    dsl::{AsSelect, IntoBoxed, Select, auto_type},
    pg::Pg,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::OrgId, page::PageSize};

use super::time;
use crate::{
    model::{
        Cursor, LogId,
        notification::{Marked, Notification, NotificationFilter, NotificationId, Reader},
    },
    schema::{notification_reads, notifications},
};

/// A notification, and whether its reader has read it.
pub(crate) type Found = (Notification, bool);

type Page<'a> = IntoBoxed<'a, Select<beside_reads<'a>, (AsSelect<Notification, Pg>, was_read)>, Pg>;

/// Notifications, each beside the row that says that this reader has read it, if there is one.
#[auto_type]
fn beside_reads<'a>(org: OrgId, reader: &'a Reader) -> _ {
    notifications::table.left_join(
        notification_reads::table.on(notification_reads::org_id
            .eq(org)
            .and(notification_reads::principal.eq(reader))
            .and(notification_reads::notification_id.eq(notifications::id))),
    )
}

/// Whether there is such a row.
#[auto_type]
fn was_read() -> _ {
    notification_reads::notification_id.nullable().is_not_null()
}

/// Adds a notification; one that is there stays as it is.
pub(crate) async fn insert(tx: &mut Tx, new: &Notification) -> Result<()> {
    diesel::insert_into(notifications::table)
        .values((notifications::org_id.eq(tx.org()), new))
        .on_conflict((notifications::org_id, notifications::id))
        .do_nothing()
        .execute(tx)
        .await?;
    Ok(())
}

/// The notifications of a page, newest first, and one more if there is another page.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &NotificationFilter,
    after: Option<Cursor>,
    size: PageSize,
) -> Result<Vec<Found>> {
    let query = page(tx.org(), filter, after, size);
    Ok(query.load(tx).await?)
}

/// Which of these there are.
pub(crate) async fn known(tx: &mut Tx, asked: &Marked) -> Result<Vec<NotificationId>> {
    Ok(notifications::table
        .filter(notifications::org_id.eq(tx.org()))
        .filter(notifications::id.eq_any(&asked.0))
        .select(notifications::id)
        .load(tx)
        .await?)
}

/// Notes that somebody has read these; what was read before stays as it was.
pub(crate) async fn mark(tx: &mut Tx, reader: &Reader, marked: &Marked) -> Result<()> {
    let org = tx.org();
    let row = |id: &NotificationId| {
        (
            notification_reads::org_id.eq(org),
            notification_reads::principal.eq(reader.clone()),
            notification_reads::notification_id.eq(*id),
        )
    };
    diesel::insert_into(notification_reads::table)
        .values(marked.0.iter().map(row).collect::<Vec<_>>())
        .on_conflict_do_nothing()
        .execute(tx)
        .await?;
    Ok(())
}

/// The query of a page.
pub(crate) fn page(org: OrgId, filter: &NotificationFilter, after: Option<Cursor>, size: PageSize) -> Page<'_> {
    let mut query = beside_reads(org, &filter.reader)
        .select((Notification::as_select(), was_read()))
        .into_boxed()
        .filter(notifications::org_id.eq(org))
        .order((notifications::occurred_at.desc(), notifications::id.desc()))
        .limit(size.fetch());
    if filter.unread_only {
        // PostgreSQL makes an anti join of it: the join would need this not to be null.
        query = query.filter(notification_reads::notification_id.is_null());
    }
    if let Some(Cursor {
        occurred_at,
        id: LogId(id),
    }) = after
    {
        let at = time(occurred_at);
        // Said twice, since an index can start at the first half.
        query = query
            .filter(notifications::occurred_at.le(at))
            .filter(notifications::occurred_at.lt(at).or(notifications::id.lt(id)));
    }
    query
}
