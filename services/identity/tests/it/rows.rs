//! The tables themselves: who sees which rows, and which index finds them.

use testkit::Role;

use crate::house::House;

#[tokio::test]
async fn the_app_role_sees_its_own_organization_and_no_password_hash() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    house.colleague(&ada, "grace", "viewer").await;
    let app = house.served.database.client(identity::SERVICE.slice, Role::App).await;
    let refused = app.query("select password_hash from users", &[]).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("permission denied"));
    let seen = async |org: &str, user: &str, what: &str| -> Vec<String> {
        let settings =
            format!("begin; select set_config('app.org', '{org}', true), set_config('app.user', '{user}', true)");
        app.batch_execute(&settings).await.unwrap();
        let rows = app.query(what, &[]).await.unwrap();
        app.batch_execute("rollback").await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let users = "select username from users order by created_at";
    assert_eq!(seen("", "", users).await, Vec::<String>::new());
    assert_eq!(seen(&ada.org, "", users).await, ["ada", "grace"]);
    assert_eq!(seen(&eve.org, "", users).await, ["eve"]);
    assert_eq!(seen("", &eve.user, users).await, ["eve"]);
    let organizations = "select slug from organizations order by created_at";
    assert_eq!(seen("", &ada.user, organizations).await, ["ada-inc"]);
    assert_eq!(seen(&eve.org, &ada.user, organizations).await, ["ada-inc", "eve-inc"]);
    let sessions = "select distinct user_id::text from sessions";
    assert_eq!(seen("", &ada.user, sessions).await, [ada.user.as_str()]);
    assert_eq!(seen("", "", sessions).await, Vec::<String>::new());
    let roles = "select name from roles order by id";
    assert_eq!(
        seen(&ada.org, "", roles).await,
        ["owner", "admin", "editor", "operator", "viewer"]
    );

    // Nobody writes into an organization, or over a user, by being a member or a colleague.
    for statement in [
        "update organizations set name = 'stolen'",
        "update users set last_org_id = null",
        "update organization_members set role_id = '00000000-0000-7000-8000-000000000001'",
        "update sessions set revoked_at = now()",
    ] {
        app.batch_execute(&format!("begin; select set_config('app.user', '{}', true)", eve.user))
            .await
            .unwrap();
        let written = app.execute(statement, &[]).await.unwrap();
        app.batch_execute("rollback").await.unwrap();
        let own_row = u64::from(statement.contains("users"));
        assert_eq!(written, own_row, "{statement}");
    }
}

#[tokio::test]
async fn the_migrations_go_down_with_everybody_still_there() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house.colleague(&ada, "grace", "editor").await;
    house.invite(&ada, "eve@example.com", "viewer").await.unwrap();
    // Somebody without an organization, with a session in the platform's.
    let loner = house.person("loner").await;
    house
        .sql(&format!(
            "delete from organization_members where user_id = '{}'",
            loner.user
        ))
        .await;
    house.login(&loner.email).await;
    let url = house.served.database.url(identity::SERVICE.slice, Role::Migrate);
    let reverted = kit::db::migrate::revert_all(&url, identity::SERVICE.slice)
        .await
        .unwrap();
    assert!(reverted.len() >= 4, "{reverted:?}");
}

#[tokio::test]
async fn accounts_and_organizations_are_found_by_their_indexes() {
    let house = House::open().await;
    let admin = house.served.database.admin().await;
    admin
        .batch_execute("set role board3_identity_owner; set search_path = identity; set enable_seqscan = off; set enable_sort = off")
        .await
        .unwrap();
    let cases = [
        ("users_email_key", "select id from users where email = 'a@b'"),
        ("users_username_key", "select id from users where username = 'a'"),
        (
            "organizations_slug_key",
            "select org_id from organizations where slug = 'a'",
        ),
        (
            "organization_members_user_id_idx",
            "select org_id from organization_members where user_id = '00000000-0000-7000-8000-000000000000' order by joined_at",
        ),
        (
            "sessions_id_key",
            "select org_id from sessions where id = '00000000-0000-7000-8000-000000000000'",
        ),
        (
            "api_keys_public_id_key",
            "select id from api_keys where public_id = 'abcdefghijkl'",
        ),
        (
            "invitations_id_key",
            "select org_id from invitations where id = '00000000-0000-7000-8000-000000000000'",
        ),
        (
            "organization_members_joined_at_idx",
            concat!(
                "select user_id from organization_members where org_id = '00000000-0000-7000-8000-000000000000' ",
                "order by joined_at, user_id limit 51"
            ),
        ),
    ];
    for (index, query) in cases {
        let plan = admin.query(&format!("explain {query}"), &[]).await.unwrap();
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
    }
}
