//! The end of accounts, at their owners' word.

use api::{events::v1::event::Payload, identity::v1::*};
use futures_util::future::join;
use tonic::Status;

use crate::{
    house::{House, PASSWORD, Person, eventually, login, metadata, reason, reason_of, sign_up, violations},
    suspension::{answer, enter, key},
};

pub(crate) async fn delete(house: &House, who: &Person, anonymize: bool) -> Result<(), Status> {
    let request = DeleteUserRequest {
        password: PASSWORD.to_owned(),
        anonymize,
    };
    house.users(who.token()).delete_user(request).await.map(|_| ())
}

/// A member of another's organization and of none else.
async fn guest(house: &House, of: &Person, name: &str, role: &str) -> Person {
    let guest = house.colleague(of, name, role).await;
    let elsewhere = format!(
        "delete from organization_members where user_id = '{}' and org_id <> '{}'",
        guest.user, of.org
    );
    house.sql(&elsewhere).await;
    guest
}

/// Address, user name and names of an account, from the table.
async fn names(house: &House, user: &str) -> [String; 4] {
    let admin = house.served.database.admin().await;
    let row = format!("select email, username, first_name, last_name from identity.users where id = '{user}'");
    let row = admin.query_one(&row, &[]).await.unwrap();
    [0, 1, 2, 3].map(|column| row.get(column))
}

/// The names that an organization was told of a user, the latest last.
async fn told(house: &House, org: &str, user: &str) -> Vec<(String, i64)> {
    let told = house
        .told()
        .await
        .into_iter()
        .filter_map(|(where_to, payload)| match payload {
            Payload::UserChanged(one) if one.user_id == user && where_to == org => Some((one.first_name, one.version)),
            _ => None,
        });
    told.collect()
}

#[tokio::test]
async fn the_last_owner_of_an_organization_keeps_the_account() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house.colleague(&ada, "grace", "admin").await;
    let refused = delete(&house, &ada, true).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), metadata(&refused, "organization_id")),
        ("LAST_OWNER", ada.org.clone())
    );
    assert!(house.active(&ada).await);
    assert_eq!(names(&house, &ada.user).await[1], "ada");
    assert_eq!(house.audited("identity.DeleteUser").await.len(), 0);
}

#[tokio::test]
async fn an_account_is_deleted_by_who_knows_its_password() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = guest(&house, &ada, "grace", "viewer").await;
    let request = |password: &str| DeleteUserRequest {
        password: password.to_owned(),
        anonymize: false,
    };
    let mut users = house.users(grace.token());
    let refused = users.delete_user(request("")).await.unwrap_err();
    assert_eq!(violations(&refused), ["password"]);
    let refused = users.delete_user(request("something else")).await;
    assert_eq!(reason(refused), "REAUTHENTICATION_FAILED");
    assert!(house.active(&grace).await);
    assert_eq!(answer(&house, grace.token()).await, "");
}

#[tokio::test]
async fn a_deleted_account_opens_nothing_and_is_overwritten_after_thirty_days() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = guest(&house, &ada, "grace", "admin").await;
    let key = key(&house, &grace).await;
    assert_eq!(answer(&house, &key).await, "");
    delete(&house, &grace, false).await.unwrap();

    assert!(!house.active(&grace).await);
    eventually("the access token is void", async || {
        answer(&house, grace.token()).await == "SESSION_REVOKED"
    })
    .await;
    eventually("the key opens nothing", async || {
        answer(&house, &key).await == "PERMISSION_MISSING"
    })
    .await;
    assert_eq!(
        reason(house.refresh(&grace.tokens.refresh_token).await),
        "REFRESH_TOKEN_INVALID"
    );
    let refused = house.auth("").login(login(&grace.email, PASSWORD)).await;
    assert_eq!(reason(refused), "LOGIN_FAILED");
    let request = GetUserRequest {
        user_id: grace.user.clone(),
    };
    assert_eq!(
        reason(house.users(ada.token()).get_user(request).await),
        "RESOURCE_NOT_FOUND"
    );
    let [event] = &house.audited("identity.DeleteUser").await[..] else {
        panic!("one event")
    };
    assert_eq!(event.resource.clone().unwrap().id, grace.user);
    let [left] = &house.audited("identity.LeaveOrganization").await[..] else {
        panic!("one event")
    };
    assert_eq!(left.organization_id, ada.org);

    // Within the 30 days another start leaves it alone; the address is still taken.
    house
        .sql("update users set deleted_at = deleted_at - interval '29 days' where deleted_at is not null")
        .await;
    let env = || kit::config::Env::of(house.served.env.clone());
    let _replica = kit::service::start(identity::SERVICE, env()).await.ok().unwrap();
    let old = house.sql("update users set deleted_at = deleted_at - interval '2 days' where deleted_at is not null");
    assert_eq!(names(&house, &grace.user).await[0], "grace@example.com");
    old.await;
    let _another = kit::service::start(identity::SERVICE, env()).await.ok().unwrap();
    eventually("the names are overwritten", async || {
        let [email, username, first_name, last_name] = names(&house, &grace.user).await;
        email.starts_with("deleted-")
            && email.ends_with("@deleted.invalid")
            && username.starts_with("deleted-")
            && (first_name.as_str(), last_name.as_str()) == ("Deleted", "user")
    })
    .await;
    let told = told(&house, &ada.org, &grace.user).await;
    let (first_name, version) = told.last().unwrap();
    assert_eq!((first_name.as_str(), *version), ("Deleted", 3));
    assert_eq!(
        house
            .count("sessions where device = 'test' and user_id in (select id from identity.users where deleted_at is not null)")
            .await,
        0
    );
}

#[tokio::test]
async fn an_account_is_anonymized_at_once_if_asked() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = guest(&house, &ada, "grace", "viewer").await;
    delete(&house, &grace, true).await.unwrap();
    let [email, username, first_name, last_name] = names(&house, &grace.user).await;
    assert!(email.starts_with("deleted-") && username.starts_with("deleted-"));
    assert_eq!((first_name.as_str(), last_name.as_str()), ("Deleted", "user"));
    let told = told(&house, &ada.org, &grace.user).await;
    assert_eq!(told.last().unwrap().0, "Deleted");
    // The user name is free for another account.
    let again = SignUpRequest {
        email: "another@example.com".to_owned(),
        ..sign_up("grace")
    };
    let again = house.sign_up(again).await.unwrap();
    assert_ne!(again.user_id, grace.user);
}

#[tokio::test]
async fn of_two_owners_who_delete_themselves_at_once_one_stays() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    for round in 0..4 {
        let org = house.person(&format!("founder{round}")).await;
        let one = guest(&house, &org, &format!("one{round}"), "owner").await;
        let founder = format!("delete from organization_members where user_id = '{}'", org.user);
        let other = guest(&house, &org, &format!("other{round}"), "owner").await;
        house.sql(&founder).await;
        let (first, second) = join(delete(&house, &one, false), delete(&house, &other, false)).await;
        let refused = match (first, second) {
            (Ok(()), Err(status)) | (Err(status), Ok(())) => status,
            both => panic!("{both:?}"),
        };
        assert_eq!(
            (reason_of(&refused).as_str(), metadata(&refused, "organization_id")),
            ("LAST_OWNER", org.org)
        );
    }
    assert!(enter(&house, &ada.email, &ada.org).await.is_ok());
}
