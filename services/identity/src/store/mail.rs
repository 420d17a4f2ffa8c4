//! Messages that wait to be sent. The app role puts them there; only the worker role sees and moves them.

use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName,
    dsl::sql,
    sql_types::{Binary, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{Error, Result, crypto::KeyRing, db::Tx, failpoint};
use secrecy::ExposeSecret;

use crate::{
    model::{Mail, MailContent, MailId},
    schema::outbound_messages,
};

/// The database's clock, which all of a message's times are by.
const NOW: &str = "clock_timestamp()";

/// A message in this process's hand.
#[derive(QueryableByName)]
pub(crate) struct Claimed {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: MailId,
    #[diesel(sql_type = Text)]
    pub(crate) kind: String,
    #[diesel(sql_type = Binary)]
    content: Vec<u8>,
    /// This one included.
    #[diesel(sql_type = Integer)]
    pub(crate) attempts: i32,
    /// Whether it has waited so long that this is its last.
    #[diesel(sql_type = Bool)]
    pub(crate) last: bool,
}

impl Claimed {
    /// Recipient, subject and text.
    pub(crate) fn content(&self, ring: &KeyRing) -> Result<MailContent> {
        let text = ring.open(&self.content, &context(self.id)).map_err(Error::internal)?;
        serde_json::from_slice(text.expose_secret()).map_err(Error::internal)
    }
}

/// Writes a message in the transaction that causes it: it leaves once that is committed, or never.
pub(crate) async fn enqueue(tx: &mut Tx, ring: &KeyRing, mail: &Mail) -> Result<()> {
    let id = MailId::new();
    let text = serde_json::to_vec(&mail.content()).map_err(Error::internal)?;
    diesel::insert_into(outbound_messages::table)
        .values((
            outbound_messages::id.eq(id),
            outbound_messages::kind.eq(mail.kind()),
            outbound_messages::content.eq(ring.seal(&text, &context(id))),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Takes due messages in hand, oldest first. Others skip them for `lease` seconds: by then they are sent, put off, or
/// their bearer is dead.
///
/// The switch `identity.mail_claim` makes nobody skip what is in another's hand, for tests.
pub(crate) async fn claim(tx: &mut Tx, most: i32, lease: f64, lifetime: f64) -> Result<Vec<Claimed>> {
    let locked = match failpoint::without("identity.mail_claim") {
        true => "",
        false => "for update skip locked",
    };
    let query = format!(
        "update outbound_messages m
        set attempts = m.attempts + 1, next_attempt_at = clock_timestamp() + make_interval(secs => $2)
        where m.id in (
          select d.id from outbound_messages d
          where d.sent_at is null and d.given_up_at is null and d.next_attempt_at <= clock_timestamp()
          order by d.next_attempt_at limit $1
          {locked}
        )
        returning m.id, m.kind, m.content, m.attempts,
          m.created_at < clock_timestamp() - make_interval(secs => $3) as last"
    );
    Ok(diesel::sql_query(query)
        .bind::<Integer, _>(most)
        .bind::<Double, _>(lease)
        .bind::<Double, _>(lifetime)
        .load(tx)
        .await?)
}

/// The message is sent: of what it said nothing is kept.
pub(crate) async fn update_sent(tx: &mut Tx, id: MailId) -> Result<()> {
    diesel::update(outbound_messages::table.find(id))
        .set((
            outbound_messages::sent_at.eq(sql::<Nullable<Timestamptz>>(NOW)),
            outbound_messages::given_up_at.eq(None::<time::OffsetDateTime>),
            outbound_messages::content.eq(None::<Vec<u8>>),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// The message is tried again after so many seconds.
pub(crate) async fn update_put_off(tx: &mut Tx, id: MailId, attempts: i32, seconds: f64) -> Result<()> {
    let query = "
        update outbound_messages set next_attempt_at = clock_timestamp() + make_interval(secs => $3)
        where id = $1 and attempts = $2 and sent_at is null and given_up_at is null";
    diesel::sql_query(query)
        .bind::<SqlUuid, _>(id)
        .bind::<Integer, _>(attempts)
        .bind::<Double, _>(seconds)
        .execute(tx)
        .await?;
    Ok(())
}

/// The message is kept and not tried again; `false` for one that somebody else has in hand by now.
pub(crate) async fn update_given_up(tx: &mut Tx, id: MailId, attempts: i32) -> Result<bool> {
    let given_up = diesel::update(outbound_messages::table.find(id))
        .filter(outbound_messages::attempts.eq(attempts))
        .filter(outbound_messages::sent_at.is_null())
        .set(outbound_messages::given_up_at.eq(sql::<Nullable<Timestamptz>>(NOW)))
        .execute(tx)
        .await?;
    Ok(given_up == 1)
}

/// Forgets that messages were sent, a day later.
pub(crate) async fn delete_sent(tx: &mut Tx) -> Result<usize> {
    let old = sql::<Bool>("sent_at < clock_timestamp() - interval '1 day'");
    Ok(diesel::delete(outbound_messages::table.filter(old)).execute(tx).await?)
}

fn context(id: MailId) -> Vec<u8> {
    format!("identity.outbound_messages|{id}").into_bytes()
}
