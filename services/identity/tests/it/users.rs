//! Users as their colleagues find them, and as they change themselves.

use api::{events::v1::event::Payload, identity::v1::*};
use futures_util::future::join;
use prost_types::FieldMask;
use testkit::Role;
use tonic::Status;

use crate::{
    house::{House, PASSWORD, Person, metadata, reason, reason_of, request_id, violations},
    totp::{code, confirm, enroll},
};

async fn list(house: &House, by: &Person, query: &str) -> Vec<OrganizationUser> {
    let request = ListUsersRequest {
        query: query.to_owned(),
        ..Default::default()
    };
    let answer = house.users(by.token()).list_users(request).await.unwrap();
    answer.into_inner().users
}

async fn found(house: &House, by: &Person, query: &str) -> Vec<String> {
    let listed = list(house, by, query).await;
    listed.into_iter().map(|one| one.user.unwrap().username).collect()
}

pub(crate) async fn me(house: &House, who: &Person) -> User {
    let answer = house.users(who.token()).get_me(GetMeRequest {}).await.unwrap();
    answer.into_inner().user.unwrap()
}

fn change(user: User, etag: &str, fields: &[&str]) -> UpdateUserRequest {
    UpdateUserRequest {
        user: Some(user),
        update_mask: Some(FieldMask {
            paths: fields.iter().map(|field| (*field).to_owned()).collect(),
        }),
        etag: etag.to_owned(),
        request_id: String::new(),
    }
}

/// Gives oneself another first name, whatever it is now.
pub(crate) async fn rename(house: &House, who: &Person, first_name: &str) -> Result<User, Status> {
    let now = me(house, who).await;
    let new = User {
        first_name: first_name.to_owned(),
        ..Default::default()
    };
    let request = change(new, &now.etag, &["first_name"]);
    let answer = house.users(who.token()).update_user(request).await?;
    Ok(answer.into_inner().user.unwrap())
}

#[tokio::test]
async fn colleagues_are_found_by_the_beginning_of_any_of_their_names() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "editor").await;
    house.colleague(&ada, "mary", "viewer").await;
    house.person("gracia").await;
    rename(&house, &grace, "Élise 100%").await.unwrap();

    assert_eq!(found(&house, &ada, "").await, ["ada", "grace", "mary"]);
    assert_eq!(found(&house, &ada, "GRA").await, ["grace"]);
    assert_eq!(found(&house, &ada, "Mary@Ex").await, ["mary"]);
    assert_eq!(found(&house, &ada, "éLISE").await, ["grace"]);
    assert_eq!(found(&house, &ada, "Fir").await, ["ada", "mary"]);
    assert_eq!(found(&house, &ada, "last").await, ["ada", "grace", "mary"]);
    for nothing in ["race", "%", "_", "gracie", "lise"] {
        assert_eq!(found(&house, &ada, nothing).await, Vec::<String>::new(), "{nothing}");
    }

    let request = GetUserRequest {
        user_id: grace.user.clone(),
    };
    let answer = house.users(ada.token()).get_user(request).await.unwrap().into_inner();
    let seen = answer.user.unwrap();
    assert_eq!((seen.role.as_str(), seen.suspended), ("editor", false));
    let user = seen.user.unwrap();
    assert_eq!(
        (user.first_name.as_str(), user.email.as_str()),
        ("Élise 100%", "grace@example.com")
    );
    // What only the user is told.
    assert_eq!((user.etag.as_str(), user.totp), ("", false));
}

#[tokio::test]
async fn a_user_of_another_organization_is_not_found() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let request = GetUserRequest {
        user_id: eve.user.clone(),
    };
    let refused = house.users(ada.token()).get_user(request).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), metadata(&refused, "resource").as_str()),
        ("RESOURCE_NOT_FOUND", "user")
    );
    let request = GetUserRequest::default();
    let refused = house.users(ada.token()).get_user(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["user_id"]);
}

#[tokio::test]
async fn users_are_listed_by_user_name_and_page_by_page() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    for name in ["mary", "joan", "radia", "grace"] {
        house.colleague(&ada, name, "viewer").await;
    }
    let (mut seen, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListUsersRequest {
            page_size: 2,
            page_token,
            query: "LAST".to_owned(),
        };
        let page = house.users(ada.token()).list_users(request).await.unwrap().into_inner();
        seen.extend(page.users.into_iter().map(|one| one.user.unwrap().username));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if pages == 1 {
            let other = ListUsersRequest {
                page_size: 2,
                page_token: page_token.clone(),
                query: "first".to_owned(),
            };
            assert_eq!(
                reason(house.users(ada.token()).list_users(other).await),
                "PAGE_TOKEN_INVALID"
            );
        }
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["ada", "grace", "joan", "mary", "radia"]);
    assert_eq!(pages, 3);
    let wrong = ListUsersRequest {
        page_size: -1,
        query: "x".repeat(255),
        ..Default::default()
    };
    let refused = house.users(ada.token()).list_users(wrong).await.unwrap_err();
    assert_eq!(violations(&refused), ["page_size", "query"]);
}

#[tokio::test]
async fn a_new_name_is_seen_at_once_and_told_in_each_organization() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let before = me(&house, &grace).await;
    let new = User {
        username: "hopper".to_owned(),
        first_name: "Grace".to_owned(),
        last_name: "not masked".to_owned(),
        email: "elsewhere@example.com".to_owned(),
        ..Default::default()
    };
    let mut request = change(new, &before.etag, &["username", "first_name"]);
    request.request_id = request_id();
    let mut users = house.users(grace.token());
    let changed = users.update_user(request.clone()).await.unwrap().into_inner();
    let user = changed.user.clone().unwrap();
    assert_eq!(
        (
            user.username.as_str(),
            user.first_name.as_str(),
            user.last_name.as_str(),
            user.email.as_str()
        ),
        ("hopper", "Grace", "Last", "grace@example.com")
    );
    assert_ne!(user.etag, before.etag);
    assert_eq!(me(&house, &grace).await, user);
    assert_eq!(found(&house, &ada, "hop").await, ["hopper"]);
    assert_eq!(found(&house, &ada, "gracex").await, Vec::<String>::new());

    let told = house
        .told()
        .await
        .into_iter()
        .filter_map(|(org, payload)| match payload {
            Payload::UserChanged(one) if one.first_name == "Grace" => Some((org, one.user_id, one.version)),
            _ => None,
        });
    let mut told: Vec<_> = told.collect();
    told.sort();
    assert_eq!(told.len(), 2);
    assert!(
        told.iter()
            .all(|(_, user, version)| *user == grace.user && *version == 2)
    );
    assert!(told.iter().any(|(org, ..)| *org == ada.org));

    // The same call again is answered the same; another with the etag of before is too late.
    assert_eq!(users.update_user(request.clone()).await.unwrap().into_inner(), changed);
    request.request_id.clear();
    let late = users.update_user(request).await.unwrap_err();
    assert_eq!(
        (reason_of(&late).as_str(), metadata(&late, "current_etag")),
        ("ETAG_MISMATCH", user.etag)
    );
    let [event] = &house.audited("identity.UpdateUser").await[..] else {
        panic!("one event")
    };
    assert_eq!(event.resource.clone().unwrap().id, grace.user);
}

#[tokio::test]
async fn of_two_changes_at_once_one_is_refused() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    for round in 0..10 {
        let etag = me(&house, &ada).await.etag;
        let named = |name: String| User {
            first_name: name,
            ..Default::default()
        };
        let (mut one, mut other) = (house.users(ada.token()), house.users(ada.token()));
        let (one, other) = join(
            one.update_user(change(named(format!("one {round}")), &etag, &["first_name"])),
            other.update_user(change(named(format!("other {round}")), &etag, &["first_name"])),
        )
        .await;
        let refused = match (one, other) {
            (Ok(_), Err(status)) | (Err(status), Ok(_)) => reason_of(&status),
            both => panic!("{both:?}"),
        };
        assert_eq!(refused, "ETAG_MISMATCH");
    }
}

#[tokio::test]
async fn a_change_of_oneself_tells_all_that_is_wrong_and_takes_no_name_of_another() {
    let house = House::open().await;
    let (ada, _eve) = (house.person("ada").await, house.person("eve").await);
    let mut users = house.users(ada.token());
    let refused = users.update_user(UpdateUserRequest::default()).await.unwrap_err();
    assert_eq!(violations(&refused), ["etag", "update_mask", "user"]);
    let wrong = User {
        username: "-A".to_owned(),
        ..Default::default()
    };
    let request = change(wrong.clone(), "x", &["username", "first_name", "last_name"]);
    let refused = users.update_user(request).await.unwrap_err();
    assert_eq!(
        violations(&refused),
        ["user.first_name", "user.last_name", "user.username"]
    );
    let refused = users.update_user(change(wrong, "x", &["email"])).await.unwrap_err();
    assert_eq!(violations(&refused), ["update_mask"]);

    let taken = User {
        username: "eve".to_owned(),
        ..Default::default()
    };
    let etag = me(&house, &ada).await.etag;
    let refused = users
        .update_user(change(taken, &etag, &["username"]))
        .await
        .unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), metadata(&refused, "field").as_str()),
        ("RESOURCE_EXISTS", "username")
    );
    assert_eq!(me(&house, &ada).await.etag, etag);
}

#[tokio::test]
async fn whether_a_second_factor_is_in_force_is_told_to_its_user() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    assert!(!me(&house, &ada).await.totp);
    let begun = enroll(&house, &ada, PASSWORD).await.unwrap();
    assert!(!me(&house, &ada).await.totp);
    confirm(&house, &ada, &code(&begun.secret, 0)).await.unwrap();
    assert!(me(&house, &ada).await.totp);
}

#[tokio::test]
async fn lists_of_users_are_planned_on_their_indexes() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.served.database.admin().await;
    // Other organizations are as large; names differ in their first characters.
    let fill =
        "set search_path = identity;
         insert into organizations (org_id, name, slug)
         select gen_random_uuid(), 'other', 'other-' || n from generate_series(1, 4) n;
         insert into users (id, email, username, first_name, last_name, password_hash)
         select gen_random_uuid(), md5(n::text || 'e') || '@example.com', md5(n::text || 'u'), md5(n::text || 'f'), md5(n::text || 'l'), ''
         from generate_series(1, 4000) n;
         insert into organization_members (org_id, user_id, role_org_id, role_id)
         select o.org_id, u.id, '00000000-0000-7000-8000-000000000000', '00000000-0000-7000-8000-000000000005'
         from organizations o, users u
         where o.org_id <> '00000000-0000-7000-8000-000000000000' and u.password_hash = '';
         analyze organization_members; analyze users; analyze organizations; analyze roles";
    admin.batch_execute(fill).await.unwrap();
    let app = house.served.database.client(identity::SERVICE.slice, Role::App).await;
    app.batch_execute(&format!("set app.org = '{}'", ada.org))
        .await
        .unwrap();
    let query = |condition: &str| {
        format!(
            "select user_id from organization_members where org_id = '{}' {condition} order by search_username limit 51",
            ada.org
        )
    };
    let begins = |column: &str| format!("{column} >= 'abc' and {column} < 'abc\u{10FFFF}'");
    let searched = [
        "search_username",
        "search_email",
        "search_first_name",
        "search_last_name",
    ]
    .map(begins);
    let plan = async |query: String| -> String {
        let rows = app.query(&format!("explain (costs off) {query}"), &[]).await.unwrap();
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        lines.join("\n")
    };
    let all = plan(query("")).await;
    assert!(all.contains("organization_members_username_idx"), "{all}");
    let some = plan(query(&format!("and ({})", searched.join(" or ")))).await;
    for index in ["username", "email", "first_name", "last_name"] {
        assert!(
            some.contains(&format!("organization_members_{index}_idx")),
            "{index}:\n{some}"
        );
    }
    assert!(!some.contains("Seq Scan") && !all.contains("Seq Scan"), "{some}\n{all}");
}
