//! Calls that want the same rows take them in one order: the organization, the user, the session.

use std::future::Future;

use api::identity::v1::SessionTokens;
use futures_util::future::join;
use kit::failpoint::{Action, arm};
use tonic::Status;

use crate::{
    account::delete,
    house::{House, Person, eventually, reason},
    reset::{NEW, reset, token},
    without::fails_without,
};

/// What a change of an account is answered, and a refresh of its session that comes while the change holds the account.
async fn with_a_refresh(
    house: &House,
    who: &Person,
    change: impl Future<Output = Result<(), Status>>,
) -> (Result<(), Status>, Result<SessionTokens, Status>) {
    let point = arm(format!("identity.user_locked/{}", who.user), Action::Hold);
    let refreshing = async {
        point.held(1).await;
        let admin = house.served.database.admin().await;
        let waiting = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        let release = async {
            eventually("the refresh waits", async || {
                admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
            })
            .await;
            point.release();
        };
        join(house.refresh(&who.tokens.refresh_token), release).await.0
    };
    join(change, refreshing).await
}

#[tokio::test]
async fn a_session_is_refreshed_while_its_accounts_password_is_reset_or_its_account_deleted() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let asked = token(&house, &ada).await;
    let change = async {
        let mut auth = house.auth("");
        auth.reset_password(reset(&asked, NEW)).await.map(drop)
    };
    let (changed, refreshed) = with_a_refresh(&house, &ada, change).await;
    changed.unwrap();
    assert_eq!(reason(refreshed), "REFRESH_TOKEN_INVALID");

    house
        .sql(&format!(
            "delete from organization_members where user_id = '{}' and org_id <> '{}'",
            grace.user, ada.org
        ))
        .await;
    let (deleted, refreshed) = with_a_refresh(&house, &grace, delete(&house, &grace, false)).await;
    deleted.unwrap();
    assert_eq!(reason(refreshed), "REFRESH_TOKEN_INVALID");
}

#[tokio::test]
async fn without_the_order_the_two_wait_for_each_other() {
    let test = "lock_order::a_session_is_refreshed_while_its_accounts_password_is_reset_or_its_account_deleted";
    assert!(fails_without("identity.lock_order", test).await);
}
