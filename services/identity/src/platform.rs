//! The platform's organization: who is in it is said by the operator's configuration alone, and some RPCs are only for it.

use std::{collections::BTreeSet, time::Duration};

use api::events::v1::{PermissionsChanged, UserChanged, event::Payload};
use kit::{
    Error, Reason, Result, Violations,
    auth::{OrgScope, scope::WorkerScope},
    config::Env,
    db::{Db, Tx},
    ids::{OrgId, Principal, UserId},
    service::Kit,
};

use crate::{
    model::{Account, Email, RoleId},
    rpc::ending::end_sessions,
    store,
};

/// How long the start waits before it looks again while the database does not answer.
const RETRY: Duration = Duration::from_secs(5);

/// Lets only callers of the platform's organization pass.
///
/// # Errors
/// CALLER_NOT_ALLOWED for everybody else, whatever they hold in their own organization.
pub(crate) fn platform_only(scope: &OrgScope) -> Result<()> {
    if scope.org() == OrgId::PLATFORM {
        Ok(())
    } else {
        Err(Error::new(
            Reason::CallerNotAllowed,
            "this RPC is for members of the platform's organization",
        ))
    }
}

/// The addresses whose accounts own the platform's organization.
///
/// Its members are these and no others: whoever else is in it, by an invitation or an older list, is out at the next start.
#[derive(Clone, Debug)]
pub(crate) struct Admins(Vec<Email>);

impl Admins {
    /// Reads `BOARD3_PLATFORM_ADMINS`.
    pub(crate) fn read(env: &mut Env) -> Option<Self> {
        let text = env.optional("BOARD3_PLATFORM_ADMINS").unwrap_or_default();
        let addresses = text.split(',').map(str::trim).filter(|address| !address.is_empty());
        let admins: Option<Vec<Email>> = addresses
            .map(|address| Email::parse("", address, &mut Violations::new()))
            .collect();
        if admins.is_none() {
            env.problem(
                "BOARD3_PLATFORM_ADMINS must be a list of e-mail addresses like ada@example.com,grace@example.com",
            );
        }
        admins.map(Admins)
    }

    /// Makes an account that has just proven its address a member, if it is to be one. The transaction goes on where it was.
    pub(crate) async fn welcome(&self, tx: &mut Tx, user: UserId, email: &Email) -> Result<()> {
        if !self.0.contains(email) {
            return Ok(());
        }
        let (org, principal) = (tx.org(), tx.principal());
        tx.enter(OrgId::PLATFORM, Principal::User(user)).await?;
        store::organization::lock(tx).await?;
        if admit(tx, user).await? {
            permissions_changed(tx).await?;
        }
        tx.enter(org, principal).await
    }

    /// Makes the platform's members those who are to be it; done once the database has answered.
    pub(crate) fn settle(self, kit: &Kit) -> impl Future<Output = ()> + Send + 'static {
        let (db, scope) = (kit.db.clone(), kit.scope());
        async move {
            while let Err(error) = self.settle_once(&db, &scope).await {
                tracing::warn!(?error, "the platform's members are not settled yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn settle_once(&self, db: &Db, scope: &WorkerScope) -> Result<()> {
        db.read(scope, async |tx| {
            tx.enter(OrgId::PLATFORM, tx.principal()).await?;
            store::organization::lock(tx).await?;
            let mut wanted = BTreeSet::new();
            for email in &self.0 {
                wanted.extend(store::lookup::account_by_email(tx, email).await?);
            }
            let present: BTreeSet<UserId> = store::member::list_users(tx).await?.into_iter().collect();
            let mut changed = false;
            for user in present.difference(&wanted) {
                dismiss(tx, *user).await?;
                changed = true;
            }
            for user in &wanted {
                changed |= admit(tx, *user).await?;
            }
            if changed {
                permissions_changed(tx).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Makes a user an owner of the platform, in its transaction and under its lock; `false` for one who is it already.
async fn admit(tx: &mut Tx, user: UserId) -> Result<bool> {
    let made = store::member::insert(tx, user, OrgId::PLATFORM, RoleId::OWNER).await?;
    let Some(colleague) = store::user::find_colleague(tx, user).await? else {
        return Err(Error::internal("a member of the platform is not found"));
    };
    if !made && !store::member::make_owner(tx, user).await? {
        return Ok(false);
    }
    let profile = colleague.profile;
    tx.tell(Payload::UserChanged(UserChanged {
        user_id: user.to_string(),
        first_name: profile.first_name.as_str().to_owned(),
        last_name: profile.last_name.as_str().to_owned(),
        version: profile.version,
    }));
    tx.acted("AdmitPlatformMember", &Account(user));
    Ok(true)
}

/// Takes a user out of the platform's organization, in its transaction and under its lock.
async fn dismiss(tx: &mut Tx, user: UserId) -> Result<()> {
    store::member::delete(tx, user).await?;
    end_sessions(tx, Some(user)).await?;
    tx.acted("DismissPlatformMember", &Account(user));
    Ok(())
}

async fn permissions_changed(tx: &mut Tx) -> Result<()> {
    let permission_version = store::organization::update_permission_version(tx).await?;
    tx.tell(Payload::PermissionsChanged(PermissionsChanged { permission_version }));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_list_of_admins_is_read_without_case_and_refused_whole() {
        let read = |text: &str| {
            let mut env = Env::of([("BOARD3_PLATFORM_ADMINS".to_owned(), text.to_owned())]);
            let admins = Admins::read(&mut env);
            let problems = env.take_problems().len();
            admins.map_or(Err(problems), |admins| {
                Ok(admins
                    .0
                    .iter()
                    .map(|email| email.as_str().to_owned())
                    .collect::<Vec<_>>())
            })
        };
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(
            read(" Ada@Example.com, grace@example.com,"),
            Ok(vec!["ada@example.com".to_owned(), "grace@example.com".to_owned()])
        );
        assert_eq!(read("ada@example.com,grace"), Err(1));
    }
}
