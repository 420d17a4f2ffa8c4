//! Organizations: made, found, listed, changed, deleted and restored.

use api::identity::v1::{get_organization_request::Key, *};
use futures_util::future::join;
use prost_types::FieldMask;
use testkit::Role;
use tonic::{Code, Status};

use crate::house::{House, Person, metadata, reason, reason_of, request_id, violations};

pub(crate) async fn create(house: &House, who: &Person, name: &str, slug: &str) -> Result<Organization, Status> {
    let request = CreateOrganizationRequest {
        name: name.to_owned(),
        slug: slug.to_owned(),
        request_id: String::new(),
    };
    let made = house.organizations(who.token()).create_organization(request).await?;
    Ok(made.into_inner().organization.unwrap())
}

pub(crate) async fn get(house: &House, who: &Person, key: Key) -> Result<Organization, Status> {
    let request = GetOrganizationRequest { key: Some(key) };
    let found = house.organizations(who.token()).get_organization(request).await?;
    Ok(found.into_inner().organization.unwrap())
}

pub(crate) async fn list(
    house: &House,
    who: &Person,
    request: ListOrganizationsRequest,
) -> Result<ListOrganizationsResponse, Status> {
    Ok(house
        .organizations(who.token())
        .list_organizations(request)
        .await?
        .into_inner())
}

pub(crate) async fn slugs(house: &House, who: &Person, show_deleted: bool) -> Vec<String> {
    let request = ListOrganizationsRequest {
        show_deleted,
        ..Default::default()
    };
    let listed = list(house, who, request).await.unwrap().organizations;
    listed.into_iter().map(|organization| organization.slug).collect()
}

pub(crate) async fn rename(
    house: &House,
    who: &Person,
    name: &str,
    slug: &str,
    etag: &str,
) -> Result<Organization, Status> {
    let mut paths = vec!["name".to_owned()];
    if !slug.is_empty() {
        paths.push("slug".to_owned());
    }
    let request = UpdateOrganizationRequest {
        organization: Some(Organization {
            name: name.to_owned(),
            slug: slug.to_owned(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths }),
        etag: etag.to_owned(),
        request_id: String::new(),
    };
    let changed = house.organizations(who.token()).update_organization(request).await?;
    Ok(changed.into_inner().organization.unwrap())
}

pub(crate) async fn delete(house: &House, who: &Person) -> Result<DeleteOrganizationResponse, Status> {
    let etag = get(house, who, Key::Id(who.org.clone())).await?.etag;
    let request = DeleteOrganizationRequest {
        etag,
        request_id: String::new(),
    };
    Ok(house
        .organizations(who.token())
        .delete_organization(request)
        .await?
        .into_inner())
}

pub(crate) async fn restore(house: &House, who: &Person, org: &str) -> Result<Organization, Status> {
    let request = UndeleteOrganizationRequest {
        organization_id: org.to_owned(),
        request_id: String::new(),
    };
    let restored = house.organizations(who.token()).undelete_organization(request).await?;
    Ok(restored.into_inner().organization.unwrap())
}

/// The same person with a session in another organization.
pub(crate) async fn switched(house: &House, who: &Person, org: &str) -> Person {
    Person {
        org: org.to_owned(),
        tokens: house.switch(who, org).await.unwrap(),
        ..who.clone()
    }
}

#[tokio::test]
async fn an_organization_is_made_by_its_owner_and_entered() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let made = create(&house, &ada, "Ada inc", "").await.unwrap();
    assert!(made.slug.starts_with("ada-inc-"), "{}", made.slug);
    assert_eq!(
        (made.name.as_str(), made.domains.len(), made.deleted_at),
        ("Ada inc", 0, None)
    );
    let there = switched(&house, &ada, &made.id).await;
    house.invite(&there, "new@example.com", "owner").await.unwrap();
    assert_eq!(slugs(&house, &ada, false).await, ["ada-inc", made.slug.as_str()]);
    assert_eq!(slugs(&house, &eve, true).await, ["eve-inc"]);
    let taken = create(&house, &eve, "Mine", "ada-inc").await.unwrap_err();
    assert_eq!(
        (reason_of(&taken).as_str(), metadata(&taken, "field").as_str()),
        ("RESOURCE_EXISTS", "slug")
    );
    assert_eq!(
        violations(&create(&house, &eve, "", "-").await.unwrap_err()),
        ["name", "slug"]
    );
    let [event] = &house.audited("identity.CreateOrganization").await[..] else {
        panic!("one event")
    };
    assert_eq!(
        (&event.organization_id, &event.resource.clone().unwrap().id),
        (&made.id, &made.id)
    );
}

#[tokio::test]
async fn a_user_owns_at_most_a_hundred_also_when_two_are_made_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house
        .sql(&format!(
            "insert into organizations (org_id, name, slug) select gen_random_uuid(), 'one of many', 'many-' || n from generate_series(1, 98) n;
             insert into organization_members (org_id, user_id, role_org_id, role_id)
             select org_id, '{}', '00000000-0000-7000-8000-000000000000', '00000000-0000-7000-8000-000000000001'
             from organizations where name = 'one of many'",
            ada.user
        ))
        .await;
    let (one, other) = join(create(&house, &ada, "One", ""), create(&house, &ada, "Other", "")).await;
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} {other:?}");
    assert_eq!(
        violations(&create(&house, &ada, "Third", "").await.unwrap_err()),
        ["name"]
    );
}

#[tokio::test]
async fn an_organization_is_found_by_its_members_alone() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let grace = house.colleague(&ada, "grace", "viewer").await;
    house
        .sql(&format!(
            "insert into organization_domains (org_id, domain) values ('{}', 'example.com')",
            ada.org
        ))
        .await;
    let keys = || {
        [
            Key::Id(ada.org.clone()),
            Key::Slug("ada-inc".to_owned()),
            Key::Domain("Example.COM".to_owned()),
        ]
    };
    for key in keys() {
        let found = get(&house, &grace, key.clone()).await.unwrap();
        assert_eq!(
            (found.id, found.domains),
            (ada.org.clone(), vec!["example.com".to_owned()])
        );
        let refused = get(&house, &eve, key).await.unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), refused.code()),
            ("RESOURCE_NOT_FOUND", Code::NotFound)
        );
    }
    house
        .sql(&format!(
            "update organization_members set suspended_at = now() where user_id = '{}' and org_id = '{}'",
            grace.user, ada.org
        ))
        .await;
    let elsewhere = Person {
        tokens: house.login(&grace.email).await,
        ..grace.clone()
    };
    for key in keys() {
        assert_eq!(reason(get(&house, &elsewhere, key).await), "RESOURCE_NOT_FOUND");
    }
    assert_eq!(slugs(&house, &elsewhere, true).await, ["grace-inc"]);
    let none = house
        .organizations(ada.token())
        .get_organization(GetOrganizationRequest { key: None })
        .await;
    assert_eq!(violations(&none.unwrap_err()), ["key"]);
    for (key, field) in [
        (Key::Id("x".to_owned()), "id"),
        (Key::Slug("X".to_owned()), "slug"),
        (Key::Domain("x".to_owned()), "domain"),
    ] {
        assert_eq!(violations(&get(&house, &ada, key).await.unwrap_err()), [field]);
    }
}

#[tokio::test]
async fn organizations_are_listed_page_by_page_also_when_they_were_joined_at_one_moment() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    for name in ["One", "Two", "Three", "Four"] {
        create(&house, &ada, name, "").await.unwrap();
    }
    house
        .sql(&format!(
            "update organization_members set joined_at = now() where user_id = '{}'",
            ada.user
        ))
        .await;
    let (mut seen, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListOrganizationsRequest {
            page_size: 2,
            page_token: page_token.clone(),
            show_deleted: false,
        };
        let page = list(&house, &ada, request.clone()).await.unwrap();
        seen.extend(page.organizations.into_iter().map(|organization| organization.id));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
        let token = ListOrganizationsRequest {
            page_token: page_token.clone(),
            ..request
        };
        assert_eq!(reason(list(&house, &eve, token.clone()).await), "PAGE_TOKEN_INVALID");
        let other = ListOrganizationsRequest {
            show_deleted: true,
            ..token
        };
        assert_eq!(reason(list(&house, &ada, other).await), "PAGE_TOKEN_INVALID");
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((seen.len(), pages), (5, 3));
    assert_eq!(seen, sorted);
    let huge = ListOrganizationsRequest {
        page_size: i32::MAX,
        ..Default::default()
    };
    assert_eq!(list(&house, &ada, huge).await.unwrap().organizations.len(), 5);
    let negative = ListOrganizationsRequest {
        page_size: -1,
        ..Default::default()
    };
    assert_eq!(
        violations(&list(&house, &ada, negative).await.unwrap_err()),
        ["page_size"]
    );
}

#[tokio::test]
async fn a_change_is_made_to_what_was_seen_also_when_two_change_it_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    house.person("eve").await;
    let viewer = house.colleague(&ada, "grace", "viewer").await;
    let seen = get(&house, &ada, Key::Id(ada.org.clone())).await.unwrap();
    for _ in 0..5 {
        let seen = get(&house, &ada, Key::Id(ada.org.clone())).await.unwrap();
        let (one, other) = join(
            rename(&house, &ada, "One", "", &seen.etag),
            rename(&house, &ada, "Other", "", &seen.etag),
        )
        .await;
        let refused = match (one, other) {
            (Ok(_), Err(status)) | (Err(status), Ok(_)) => status,
            both => panic!("{both:?}"),
        };
        assert_eq!(
            (reason_of(&refused).as_str(), refused.code()),
            ("ETAG_MISMATCH", Code::Aborted)
        );
        let current = get(&house, &ada, Key::Id(ada.org.clone())).await.unwrap().etag;
        assert_eq!(metadata(&refused, "current_etag"), current);
    }
    assert_eq!(
        reason(rename(&house, &ada, "Late", "", &seen.etag).await),
        "ETAG_MISMATCH"
    );
    let etag = get(&house, &ada, Key::Id(ada.org.clone())).await.unwrap().etag;
    assert_eq!(
        reason(rename(&house, &ada, "Taken", "eve-inc", &etag).await),
        "RESOURCE_EXISTS"
    );
    let changed = rename(&house, &ada, "Lovelace", "lovelace", &etag).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.slug.as_str()), ("Lovelace", "lovelace"));
    assert_eq!(
        violations(&rename(&house, &ada, "", "X", "").await.unwrap_err()),
        ["etag", "organization.name", "organization.slug"]
    );
    let nothing = UpdateOrganizationRequest::default();
    let refused = house
        .organizations(ada.token())
        .update_organization(nothing)
        .await
        .unwrap_err();
    assert_eq!(violations(&refused), ["etag", "organization", "update_mask"]);
    assert_eq!(
        reason(rename(&house, &viewer, "Mine", "", &changed.etag).await),
        "PERMISSION_MISSING"
    );
}

#[tokio::test]
async fn a_repeated_creation_makes_one_organization() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let request = CreateOrganizationRequest {
        name: "Once".to_owned(),
        slug: String::new(),
        request_id: request_id(),
    };
    let mut client = house.organizations(ada.token());
    let first = client.create_organization(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        client.create_organization(request.clone()).await.unwrap().into_inner(),
        first
    );
    let other = CreateOrganizationRequest {
        name: "Twice".to_owned(),
        ..request
    };
    assert_eq!(reason(client.create_organization(other).await), "REQUEST_ID_REUSED");
    assert_eq!(slugs(&house, &ada, false).await, ["ada-inc", "once"]);
}

#[tokio::test]
async fn the_lists_of_organizations_are_planned_on_their_indexes() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.served.database.admin().await;
    let fill = format!(
        "set search_path = identity;
        insert into organizations (org_id, name, slug) select gen_random_uuid(), 'crowd', 'crowd-' || n from generate_series(1, 2000) n;
        insert into organization_domains (org_id, domain) select org_id, slug || '.example.com' from organizations where name = 'crowd';
        insert into users (id, email, username, first_name, last_name, password_hash)
        select gen_random_uuid(), 'u' || n || '@example.com', 'user-' || n, 'a', 'b', '' from generate_series(1, 2000) n;
        insert into organization_members (org_id, user_id, role_org_id, role_id)
        select '{org}', id, '00000000-0000-7000-8000-000000000000', '00000000-0000-7000-8000-000000000005' from users where username like 'user-%';
        insert into organization_members (org_id, user_id, role_org_id, role_id)
        select org_id, '{user}', '00000000-0000-7000-8000-000000000000', '00000000-0000-7000-8000-000000000005' from organizations where name = 'crowd';
        insert into invitations (org_id, id, email, role_org_id, role_id, token_hash, inviter_user_id, expires_at, accepted_at, created_at)
        select '{org}', gen_random_uuid(), 'a@b', '00000000-0000-7000-8000-000000000000', '00000000-0000-7000-8000-000000000005',
            sha256('x'), '{user}', now() + interval '7 days', case when n % 10 > 0 then now() end, now() - n * interval '1 minute'
        from generate_series(1, 5000) n;
        analyze",
        org = ada.org,
        user = ada.user,
    );
    admin.batch_execute(&fill).await.unwrap();
    let app = house.served.database.client(identity::SERVICE.slice, Role::App).await;
    let tenant = format!(
        "select set_config('app.org', '{}', false), set_config('app.user', '{}', false)",
        ada.org, ada.user
    );
    app.batch_execute(&tenant).await.unwrap();
    let cases = [
        (
            "organization_members_user_id_idx",
            format!(
                "select m.org_id from organization_members m join organizations o on o.org_id = m.org_id
                where m.user_id = '{}' and m.suspended_at is null and o.deleted_at is null
                order by m.joined_at, m.org_id limit 51",
                ada.user
            ),
        ),
        (
            "invitations_open_idx",
            format!(
                "select i.id from invitations i join roles r on r.org_id = i.role_org_id and r.id = i.role_id
                where i.org_id = '{}' and i.accepted_at is null and i.revoked_at is null
                and i.created_at > clock_timestamp() - interval '8 days' and i.expires_at > clock_timestamp()
                order by i.created_at desc, i.id desc limit 51",
                ada.org
            ),
        ),
        (
            "organization_domains_domain_key",
            "select org_id from organization_domains where domain = 'crowd-7.example.com'".to_owned(),
        ),
        (
            "organization_domains_pkey",
            format!("select domain from organization_domains where org_id = '{}'", ada.org),
        ),
    ];
    for (index, query) in cases {
        let plan = app.query(&format!("explain (costs off) {query}"), &[]).await.unwrap();
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
    }
}
