//! Lists of roles.

use api::identity::v1::*;
use uuid::Uuid;

use crate::house::{House, reason};

#[tokio::test]
async fn roles_are_listed_by_name_and_page_by_page() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    for name in ["baker", "zookeeper", "miner"] {
        house.create_role(ada.token(), name, &["designs.*.read"]).await.unwrap();
    }
    house.create_role(eve.token(), "cook", &[]).await.unwrap();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRolesRequest {
            page_size: 3,
            page_token,
        };
        let page = house.roles(ada.token()).list_roles(request).await.unwrap().into_inner();
        seen.extend(page.roles);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let foreign = ListRolesRequest {
            page_size: 3,
            page_token: page_token.clone(),
        };
        assert_eq!(
            reason(house.roles(eve.token()).list_roles(foreign).await),
            "PAGE_TOKEN_INVALID"
        );
    }
    let names: Vec<&str> = seen.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "admin",
            "baker",
            "editor",
            "miner",
            "operator",
            "owner",
            "viewer",
            "zookeeper"
        ]
    );
    for role in &seen {
        assert_eq!(&house.get_role(ada.token(), &role.id).await.unwrap(), role);
    }
}

#[tokio::test]
async fn the_lists_of_roles_keys_and_service_accounts_are_found_by_their_indexes() {
    let house = House::open().await;
    let admin = house.served.database.admin().await;
    admin
        .batch_execute("set role board3_identity_owner; set search_path = identity; set enable_seqscan = off; set enable_sort = off; set enable_bitmapscan = off")
        .await
        .unwrap();
    let org = Uuid::nil();
    let keys = format!("select id from api_keys where org_id = '{org}'");
    let newest = "order by created_at desc, id desc limit 51";
    let cases = [
        (
            "roles_name_key",
            format!(
                "select id from roles where org_id = any(array['{org}']::uuid[]) and name >= 'a' order by name, id limit 51"
            ),
        ),
        (
            "service_accounts_name_key",
            format!("select id from service_accounts where org_id = '{org}' and name > 'a' order by name limit 51"),
        ),
        (
            "service_accounts_role_idx",
            format!(
                "select count(*) from service_accounts where org_id = '{org}' and role_org_id = '{org}' and role_id = '{org}'"
            ),
        ),
        (
            "invitations_role_idx",
            format!(
                "select count(*) from invitations where org_id = '{org}' and role_org_id = '{org}' and role_id = '{org}'"
            ),
        ),
        (
            "organization_members_role_idx",
            format!(
                "select count(*) from organization_members where org_id = '{org}' and role_org_id = '{org}' and role_id = '{org}'"
            ),
        ),
        (
            "api_keys_created_at_idx",
            format!("{keys} and created_at <= now() {newest}"),
        ),
        (
            "api_keys_standing_idx",
            format!("{keys} and revoked_at is null and created_at <= now() {newest}"),
        ),
        (
            "api_keys_service_account_idx",
            format!("{keys} and service_account_id = '{org}' and created_at <= now() {newest}"),
        ),
    ];
    for (index, query) in cases {
        let plan = admin.query(&format!("explain {query}"), &[]).await.unwrap();
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
    }
}
