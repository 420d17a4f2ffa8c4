//! Opening, continuing and forgetting sessions, for the RPCs that do.

use std::time::Duration;

use api::{
    events::v1::{SessionRevoked, event::Payload},
    identity::v1::SessionTokens,
};
use kit::{
    Error, Reason, Result,
    db::Tx,
    failpoint,
    ids::{OrgId, Principal, UserId},
};
use serde::Serialize;
use time::OffsetDateTime;

use super::Identity;
use crate::{
    issuer::Versions,
    model::{Letter, Mail, Presented, RefreshToken, SESSION_IDLE, Session, SessionId, now},
    store,
    wire::timestamp,
};

/// What became of a refresh token.
pub(super) enum Refreshed {
    /// It is the current one, or was until a moment ago.
    Tokens(Session, SessionTokens),
    /// It was used before: the session is over.
    Ended(Session),
    /// It opens nothing.
    Void,
}

/// What Redis knows of a session; PostgreSQL is the truth.
#[derive(Serialize)]
struct Live<'a> {
    user: UserId,
    org: OrgId,
    device: &'a str,
    last_seen: i64,
}

impl Identity {
    /// Opens a session in an organization that the user is a member of, or in none.
    pub(super) async fn open(&self, tx: &mut Tx, session: &Session) -> Result<SessionTokens> {
        tx.enter(session.org_id, Principal::User(session.user_id)).await?;
        store::organization::lock_entry(tx).await?;
        let org = place(tx, session.org_id, session.user_id).await?.ok_or_else(gone)?;
        failpoint::hit_in("identity.entering", &session.user_id.to_string()).await?;
        let refresh = RefreshToken::new(&self.ring, session.id, 1);
        let versions = versions(tx, session.user_id, org).await?;
        store::session::insert(tx, session, &refresh.hash(&self.ring), idle_end(session)).await?;
        tx.about(&session.id);
        self.tokens(session, org, &refresh, versions)
    }

    /// Continues the session of a refresh token, or ends it if the token was used before.
    ///
    /// The switch `identity.lock_order` takes the session's row before the user's, for tests.
    pub(super) async fn refresh(&self, tx: &mut Tx, token: &RefreshToken) -> Result<Refreshed> {
        let Some(state) = store::lookup::session_state(tx, token.session()).await? else {
            return Ok(Refreshed::Void);
        };
        if !state.active {
            return Ok(Refreshed::Void);
        }
        tx.enter(state.org_id, Principal::User(state.user_id)).await?;
        let Some(org) = place(tx, state.org_id, state.user_id).await? else {
            return Ok(Refreshed::Void);
        };
        // The user's row before the session's, as for everybody who takes both.
        let late = failpoint::without("identity.session_lock") || failpoint::without("identity.lock_order");
        let early = match late {
            true => None,
            false => match versions(tx, state.user_id, org).await {
                Err(error) if error.reason() == Reason::SessionRevoked => return Ok(Refreshed::Void),
                versions => Some(versions?),
            },
        };
        let Some(family) = store::session::lock(tx, token.session()).await? else {
            return Ok(Refreshed::Void);
        };
        let session = family.session.clone();
        let successor = match family.judge(&self.ring, token) {
            Presented::Current => {
                let next = RefreshToken::new(&self.ring, session.id, token.generation() + 1);
                let (hash, sealed) = (next.hash(&self.ring), next.seal(&self.ring));
                let idle = idle_end(&session);
                store::session::rotate(tx, session.id, next.generation(), &hash, &sealed, idle).await?;
                next
            }
            Presented::Repeated => family
                .successor
                .as_deref()
                .and_then(|sealed| token.open_successor(&self.ring, sealed))
                .ok_or_else(|| Error::internal("a kept successor cannot be opened"))?,
            Presented::Reused => {
                revoke(tx, session.id).await?;
                if let Some(owner) = store::user::find(tx, session.user_id).await? {
                    let device = session.device.clone();
                    let mail = Mail::new(owner.email, Letter::RefreshTokenReused { device });
                    store::mail::enqueue(tx, &self.ring, &mail).await?;
                }
                return Ok(Refreshed::Ended(session));
            }
            Presented::Void => return Ok(Refreshed::Void),
        };
        let versions = match early {
            Some(versions) => versions,
            None => versions(tx, session.user_id, org).await?,
        };
        let tokens = self.tokens(&session, org, &successor, versions)?;
        Ok(Refreshed::Tokens(session, tokens))
    }

    fn tokens(
        &self,
        session: &Session,
        org: Option<OrgId>,
        refresh: &RefreshToken,
        versions: Versions,
    ) -> Result<SessionTokens> {
        let principal = Principal::User(session.user_id);
        let access = self
            .keeper
            .issuer
            .sign(principal, org, session.id.0, versions, session.expires_at)?;
        Ok(SessionTokens {
            access_token: access.text,
            access_token_expires_at: Some(timestamp(access.expires_at)),
            refresh_token: refresh.expose().to_owned(),
            session_expires_at: Some(timestamp(session.expires_at)),
            session_id: session.id.to_string(),
            organization_id: org.map(|org| org.to_string()).unwrap_or_default(),
        })
    }

    /// Shows a session in Redis until it would end by itself. Redis away is no reason to refuse anybody.
    pub(super) async fn show(&self, session: &Session) {
        let now = now();
        let live = Live {
            user: session.user_id,
            org: session.org_id,
            device: &session.device,
            last_seen: now.unix_timestamp(),
        };
        let left = Duration::try_from(idle_end(session) - now).unwrap_or_default();
        if let Ok(value) = serde_json::to_vec(&live) {
            let _ = self.redis.set(&self.redis_key(session.id), &value, left).await;
        }
    }

    /// Takes a session out of Redis.
    pub(super) async fn hide(&self, session: SessionId) {
        let _ = self.redis.del(&[self.redis_key(session)]).await;
    }

    /// As [`Identity::hide`], of many.
    pub(super) async fn hide_all(&self, sessions: &[SessionId]) {
        let keys: Vec<String> = sessions.iter().map(|session| self.redis_key(*session)).collect();
        let _ = self.redis.del(&keys).await;
    }

    fn redis_key(&self, session: SessionId) -> String {
        self.redis.key([format!("session:{session}")])
    }
}

/// Ends a session and tells everybody; one that is over already stays so.
pub(super) async fn revoke(tx: &mut Tx, session: SessionId) -> Result<()> {
    if store::session::revoke(tx, session).await? {
        tx.tell(Payload::SessionRevoked(SessionRevoked {
            session_id: session.to_string(),
        }));
    }
    Ok(())
}

/// Ends all of a user's sessions that stand but perhaps one, in every organization, tells everybody whose access tokens
/// may still be about, and answers which they were. The transaction is in one of these organizations then.
pub(super) async fn revoke_all(tx: &mut Tx, user: UserId, but: Option<SessionId>) -> Result<Vec<SessionId>> {
    let principal = Principal::User(user);
    tx.enter(OrgId::PLATFORM, principal).await?;
    let mut ended = Vec::new();
    for org in store::session::list_orgs(tx, user).await? {
        tx.enter(org, principal).await?;
        for (session, has_tokens) in store::session::revoke_of_user(tx, user, but).await? {
            if has_tokens {
                tx.tell(Payload::SessionRevoked(SessionRevoked {
                    session_id: session.to_string(),
                }));
            }
            ended.push(session);
        }
    }
    Ok(ended)
}

/// The organization that a session's tokens name, in its own transaction: the one it was opened in, as long as its user is
/// a member who is not kept out; inside, none for a user without one, whose session is the platform's. `None` outside:
/// the session has no place any more.
///
/// The platform's own members are told from users without an organization here, and nowhere else.
async fn place(tx: &mut Tx, org: OrgId, user: UserId) -> Result<Option<Option<OrgId>>> {
    if store::member::exists(tx, org, user).await? {
        Ok(Some(Some(org)))
    } else {
        Ok((org == OrgId::PLATFORM).then_some(None))
    }
}

fn gone() -> Error {
    Error::new(Reason::SessionRevoked, "the session has ended")
}

/// Enters the organization for the user, and answers what a token of it carries.
async fn versions(tx: &mut Tx, user: UserId, org: Option<OrgId>) -> Result<Versions> {
    let epoch = store::user::enter(tx, user, org).await?.ok_or_else(gone)?;
    let permission_version = match org {
        Some(_) => store::organization::permission_version(tx).await?.ok_or_else(gone)?,
        None => 0,
    };
    Ok(Versions {
        epoch,
        permission_version,
    })
}

fn idle_end(session: &Session) -> OffsetDateTime {
    (now() + SESSION_IDLE).min(session.expires_at)
}
