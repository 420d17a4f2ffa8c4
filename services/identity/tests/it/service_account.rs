//! Service accounts: callers that are no persons, and outlive those who made them.

use api::{events::v1::event::Payload, identity::v1::*};
use kit::failpoint::{Action, arm};
use tonic::{Code, Status};

use crate::house::{House, eventually, metadata, reason, reason_of, violations};
use crate::without::fails_without;

impl House {
    pub(crate) async fn service_account(
        &self,
        credential: &str,
        name: &str,
        role: &str,
    ) -> Result<ServiceAccount, Status> {
        let request = CreateServiceAccountRequest {
            name: name.to_owned(),
            description: format!("calls for {name}"),
            role: role.to_owned(),
            request_id: String::new(),
        };
        let answer = self.keys(credential).create_service_account(request).await?;
        Ok(answer.into_inner().service_account.unwrap())
    }

    pub(crate) async fn service_accounts(&self, credential: &str) -> Vec<ServiceAccount> {
        let request = ListServiceAccountsRequest::default();
        let answer = self.keys(credential).list_service_accounts(request).await.unwrap();
        answer.into_inner().service_accounts
    }

    pub(crate) async fn disable(&self, credential: &str, id: &str) -> Result<ServiceAccount, Status> {
        let request = DisableServiceAccountRequest {
            service_account_id: id.to_owned(),
            request_id: String::new(),
        };
        let answer = self.keys(credential).disable_service_account(request).await?;
        Ok(answer.into_inner().service_account.unwrap())
    }

    pub(crate) async fn key_of(
        &self,
        credential: &str,
        account: &str,
        scopes: &[&str],
    ) -> Result<CreateApiKeyResponse, Status> {
        let request = CreateApiKeyRequest {
            name: "ci".to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            service_account_id: account.to_owned(),
            ..Default::default()
        };
        Ok(self.keys(credential).create_api_key(request).await?.into_inner())
    }

    /// The sessions and keys that everybody was told are over.
    pub(crate) async fn ended(&self) -> Vec<String> {
        let told = self.told().await.into_iter();
        told.filter_map(|(_, payload)| match payload {
            Payload::SessionRevoked(revoked) => Some(revoked.session_id),
            _ => None,
        })
        .collect()
    }

    /// Whether a credential may list members.
    pub(crate) async fn lists_members(&self, credential: &str) -> Result<(), Status> {
        let request = ListMembersRequest::default();
        self.organizations(credential).list_members(request).await.map(|_| ())
    }
}

#[tokio::test]
async fn a_service_accounts_keys_outlive_their_creator_and_follow_its_role() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "admin").await;
    let role = house
        .create_role(grace.token(), "robot", &["identity.member.read", "designs.*.*"])
        .await
        .unwrap();
    let account = house.service_account(grace.token(), "ci", "robot").await.unwrap();
    assert_eq!(
        (
            account.name.as_str(),
            account.description.as_str(),
            account.role.as_str(),
            account.disabled
        ),
        ("ci", "calls for ci", "robot", false)
    );
    let made = house
        .key_of(grace.token(), &account.id, &["identity.member.read", "designs.*.read"])
        .await
        .unwrap();
    let key = made.api_key.unwrap();
    assert_eq!((&key.service_account_id, &key.creator_id), (&account.id, &grace.user));
    house.lists_members(&made.secret).await.unwrap();
    // Its creator goes.
    house
        .sql(&format!(
            "delete from organization_members where user_id = '{}';
             update organizations set permission_version = permission_version + 1",
            grace.user
        ))
        .await;
    house.lists_members(&made.secret).await.unwrap();
    let told = house
        .effective(ada.token(), PrincipalKind::ApiKey, &key.id)
        .await
        .unwrap();
    assert!(told.permissions.contains(&"designs.design.read".to_owned()));
    assert!(!told.permissions.contains(&"designs.design.write".to_owned()));
    // Its role loses what the scopes still name.
    house.update_role(ada.token(), &role, &["designs.*.*"]).await.unwrap();
    eventually("the key has lost what its service account lost", async || {
        house
            .lists_members(&made.secret)
            .await
            .is_err_and(|status| reason_of(&status) == "PERMISSION_MISSING")
    })
    .await;
    let [event] = &house.audited("identity.CreateServiceAccount").await[..] else {
        panic!("one event")
    };
    let about = event.resource.clone().unwrap();
    assert_eq!((about.r#type.as_str(), about.id), ("service_account", account.id));
}

#[tokio::test]
async fn nobody_gives_a_service_account_or_its_keys_what_they_do_not_hold() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.colleague(&ada, "admin", "admin").await;
    let refused = house.service_account(admin.token(), "ci", "owner").await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), refused.code()),
        ("ESCALATION", Code::PermissionDenied)
    );
    let strong = house.service_account(ada.token(), "strong", "owner").await.unwrap();
    let modest = house.service_account(ada.token(), "modest", "viewer").await.unwrap();
    // Beyond the caller, and beyond the service account's role.
    for (credential, account, scope) in [
        (admin.token(), &strong, "*.*.*"),
        (admin.token(), &strong, "audit.*.*"),
        (ada.token(), &modest, "designs.*.write"),
        (ada.token(), &modest, "*.*.read"),
    ] {
        let refused = house.key_of(credential, &account.id, &["designs.*.read", scope]).await;
        assert_eq!(reason(refused), "ESCALATION", "{scope}");
    }
    house.key_of(admin.token(), &strong.id, &["designs.*.*"]).await.unwrap();
    house
        .key_of(ada.token(), &modest.id, &["designs.*.read"])
        .await
        .unwrap();
}

#[tokio::test]
async fn without_the_rule_a_service_account_is_a_way_up() {
    let test = "service_account::nobody_gives_a_service_account_or_its_keys_what_they_do_not_hold";
    assert!(fails_without("identity.escalation", test).await);
}

#[tokio::test]
async fn a_disabled_service_accounts_keys_are_void_and_it_gets_no_others() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let account = house.service_account(ada.token(), "ci", "admin").await.unwrap();
    let scopes = ["identity.member.read", "identity.api_key.write"];
    let first = house.key_of(ada.token(), &account.id, &scopes).await.unwrap();
    let second = house.key_of(ada.token(), &account.id, &scopes).await.unwrap();
    // What its key makes is its own.
    let child = house.key(&first.secret, &scopes).await.unwrap();
    assert_eq!(child.api_key.as_ref().unwrap().service_account_id, account.id);
    let bystander = house.key(ada.token(), &scopes).await.unwrap();
    for made in [&first, &second, &child] {
        house.lists_members(&made.secret).await.unwrap();
    }
    let disabled = house.disable(ada.token(), &account.id).await.unwrap();
    assert!(disabled.disabled);
    let told = house.ended().await;
    for made in [&first, &second, &child] {
        assert!(told.contains(&made.api_key.as_ref().unwrap().id), "{told:?}");
        eventually("the key is void", async || {
            house.lists_members(&made.secret).await.is_err()
        })
        .await;
    }
    assert_eq!(told.len(), 3);
    house.lists_members(&bystander.secret).await.unwrap();
    // It stays so, and says it no second time.
    assert_eq!(house.disable(ada.token(), &account.id).await.unwrap(), disabled);
    assert_eq!(house.ended().await.len(), 3);
    let refused = house.key_of(ada.token(), &account.id, &scopes).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), metadata(&refused, "resource").as_str()),
        ("RESOURCE_NOT_FOUND", "service_account")
    );
    let refused = house.rotate(ada.token(), &first.api_key.unwrap().id, None).await;
    assert_eq!(reason(refused), "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn a_key_that_is_being_made_is_void_with_its_service_account() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let account = house.service_account(ada.token(), "ci", "viewer").await.unwrap();
    let point = arm(format!("identity.key_allowed/{}", ada.org), Action::Hold);
    let (mut making, mut disabling) = (house.keys(ada.token()), house.keys(ada.token()));
    let request = CreateApiKeyRequest {
        name: "ci".to_owned(),
        scopes: vec!["designs.*.read".to_owned()],
        service_account_id: account.id.clone(),
        ..Default::default()
    };
    let making = tokio::spawn(async move { making.create_api_key(request).await });
    point.held(1).await;
    let request = DisableServiceAccountRequest {
        service_account_id: account.id.clone(),
        request_id: String::new(),
    };
    let disabling = tokio::spawn(async move { disabling.disable_service_account(request).await });
    let admin = house.served.database.admin().await;
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the other to wait or to have an answer", async || {
        disabling.is_finished() || admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    point.release();
    let key = making.await.unwrap().unwrap().into_inner().api_key.unwrap();
    disabling.await.unwrap().unwrap();
    let key = house.get_key(ada.token(), &key.id).await.unwrap();
    assert!(key.revoked_at.is_some());
}

#[tokio::test]
async fn without_the_organizations_lock_a_key_slips_past_its_service_accounts_end() {
    let test = "service_account::a_key_that_is_being_made_is_void_with_its_service_account";
    assert!(fails_without("identity.organization_lock", test).await);
}

#[tokio::test]
async fn names_of_service_accounts_are_unique_in_their_organization_and_others_are_not_there() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let account = house.service_account(ada.token(), "ci", "viewer").await.unwrap();
    let refused = house.service_account(ada.token(), "ci", "viewer").await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), metadata(&refused, "field").as_str()),
        ("RESOURCE_EXISTS", "name")
    );
    house.service_account(eve.token(), "ci", "viewer").await.unwrap();
    let refused = house.service_account(ada.token(), "cd", "king").await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), metadata(&refused, "resource").as_str()),
        ("RESOURCE_NOT_FOUND", "role")
    );
    assert_eq!(
        reason(house.disable(eve.token(), &account.id).await),
        "RESOURCE_NOT_FOUND"
    );
    assert_eq!(
        reason(house.key_of(eve.token(), &account.id, &["designs.*.read"]).await),
        "RESOURCE_NOT_FOUND"
    );
    let request = CreateServiceAccountRequest {
        description: "x".repeat(501),
        ..Default::default()
    };
    let refused = house
        .keys(ada.token())
        .create_service_account(request)
        .await
        .unwrap_err();
    assert_eq!(violations(&refused), ["description", "name", "role"]);
    assert_eq!(
        violations(&house.disable(ada.token(), "x").await.unwrap_err()),
        ["service_account_id"]
    );
}

#[tokio::test]
async fn service_accounts_are_listed_by_name_and_page_by_page() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    for name in ["deploy", "audit", "build", "chat"] {
        house.service_account(ada.token(), name, "viewer").await.unwrap();
    }
    house.service_account(eve.token(), "other", "viewer").await.unwrap();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListServiceAccountsRequest {
            page_size: 3,
            page_token,
        };
        let page = house.keys(ada.token()).list_service_accounts(request).await;
        let page = page.unwrap().into_inner();
        seen.extend(page.service_accounts.into_iter().map(|account| account.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let foreign = ListServiceAccountsRequest {
            page_size: 3,
            page_token: page_token.clone(),
        };
        let refused = house.keys(eve.token()).list_service_accounts(foreign).await;
        assert_eq!(reason(refused), "PAGE_TOKEN_INVALID");
    }
    assert_eq!(seen, ["audit", "build", "chat", "deploy"]);
}
