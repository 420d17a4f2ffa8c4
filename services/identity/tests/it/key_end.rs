//! API keys as they are looked at, and how they end.

use std::time::{Duration, Instant};

use api::identity::v1::{organization_service_client::OrganizationServiceClient, *};
use kit::config::Env;
use testkit::serve::Bearer;
use tonic::{Status, service::interceptor::InterceptedService, transport::Endpoint};

use crate::house::{House, eventually, metadata, reason, reason_of, violations};

impl House {
    /// A key of whoever makes it.
    pub(crate) async fn key(&self, credential: &str, scopes: &[&str]) -> Result<CreateApiKeyResponse, Status> {
        self.key_of(credential, "", scopes).await
    }

    pub(crate) async fn get_key(&self, credential: &str, id: &str) -> Result<ApiKey, Status> {
        let request = GetApiKeyRequest {
            api_key_id: id.to_owned(),
        };
        let answer = self.keys(credential).get_api_key(request).await?;
        Ok(answer.into_inner().api_key.unwrap())
    }

    pub(crate) async fn revoke_key(&self, credential: &str, id: &str) -> Result<ApiKey, Status> {
        let request = RevokeApiKeyRequest {
            api_key_id: id.to_owned(),
            request_id: String::new(),
        };
        let answer = self.keys(credential).revoke_api_key(request).await?;
        Ok(answer.into_inner().api_key.unwrap())
    }

    /// The ids of the keys that are listed, page by page.
    async fn listed(&self, credential: &str, account: &str, show_ended: bool) -> Vec<String> {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListApiKeysRequest {
                page_size: 2,
                page_token,
                service_account_id: account.to_owned(),
                show_ended,
            };
            let page = self.keys(credential).list_api_keys(request).await.unwrap().into_inner();
            seen.extend(page.api_keys.into_iter().map(|key| key.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return seen;
            }
        }
    }
}

#[tokio::test]
async fn a_key_is_shown_without_its_secret() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let made = house
        .key(ada.token(), &["identity.member.read", "designs.*.read"])
        .await
        .unwrap();
    let key = made.api_key.unwrap();
    assert_eq!(key.prefix, format!("b3_test_{}_", key.public_id));
    assert!(made.secret.starts_with(&key.prefix));
    assert_eq!((key.last_used_at, key.revoked_at), (None, None));
    assert_eq!(house.get_key(ada.token(), &key.id).await.unwrap(), key);
    let refused = house.get_key(eve.token(), &key.id).await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), metadata(&refused, "resource").as_str()),
        ("RESOURCE_NOT_FOUND", "api_key")
    );
    assert_eq!(
        violations(&house.get_key(ada.token(), "x").await.unwrap_err()),
        ["api_key_id"]
    );
}

#[tokio::test]
async fn the_last_use_of_a_key_is_written_twice_a_minute_at_most() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let made = house.key(ada.token(), &["identity.member.read"]).await.unwrap();
    let id = made.api_key.unwrap().id;
    let exchange = async || {
        let request = ExchangeApiKeyRequest {
            api_key: made.secret.clone(),
        };
        house.auth("").exchange_api_key(request).await.unwrap();
        let key = house.get_key(ada.token(), &id).await.unwrap();
        key.last_used_at.unwrap()
    };
    house
        .sql("update api_keys set last_used_at = now() - interval '1 second'")
        .await;
    let first = exchange().await;
    assert_eq!(exchange().await, first);
    house
        .sql("update api_keys set last_used_at = now() - interval '31 seconds'")
        .await;
    assert!(exchange().await.seconds > first.seconds);
}

#[tokio::test]
async fn keys_are_listed_newest_first_and_those_that_ended_only_when_asked() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let account = house.service_account(ada.token(), "ci", "viewer").await.unwrap();
    let mut ids = Vec::new();
    for number in 0..6 {
        let of = if number % 2 == 0 { "" } else { account.id.as_str() };
        let made = house.key_of(ada.token(), of, &["designs.*.read"]).await.unwrap();
        ids.insert(0, made.api_key.unwrap().id);
    }
    house.key(eve.token(), &["designs.*.read"]).await.unwrap();
    assert_eq!(house.listed(ada.token(), "", false).await, ids);
    house.revoke_key(ada.token(), &ids[0]).await.unwrap();
    house
        .sql(&format!(
            "update api_keys set expires_at = now() where id = '{}'",
            ids[3]
        ))
        .await;
    assert_eq!(house.listed(ada.token(), "", true).await, ids);
    let standing = [1, 2, 4, 5].map(|at: usize| ids[at].clone());
    assert_eq!(house.listed(ada.token(), "", false).await, standing);
    // Every second one is the service account's, the newest of all among them.
    let its = [0, 2, 4].map(|at: usize| ids[at].clone());
    assert_eq!(house.listed(ada.token(), &account.id, true).await, its);
    assert_eq!(house.listed(ada.token(), &account.id, false).await, its[1..]);
    assert_eq!(house.listed(eve.token(), &account.id, true).await, Vec::<String>::new());

    let request = ListApiKeysRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = house.keys(ada.token()).list_api_keys(request.clone()).await;
    let token = page.unwrap().into_inner().next_page_token;
    let other_filter = ListApiKeysRequest {
        page_token: token,
        show_ended: true,
        ..request
    };
    let refused = house.keys(ada.token()).list_api_keys(other_filter).await;
    assert_eq!(reason(refused), "PAGE_TOKEN_INVALID");
    let request = ListApiKeysRequest {
        page_size: -1,
        service_account_id: "x".to_owned(),
        ..Default::default()
    };
    let refused = house.keys(ada.token()).list_api_keys(request).await.unwrap_err();
    assert_eq!(violations(&refused), ["page_size", "service_account_id"]);
}

#[tokio::test]
async fn a_revoked_key_is_over_at_every_gate_that_has_just_let_it_in() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let made = house.key(ada.token(), &["identity.member.read"]).await.unwrap();
    let id = made.api_key.unwrap().id;
    // Another process, with a gate and a memory of its own.
    let env = Env::of(house.served.env.clone());
    let other = kit::service::start(identity::SERVICE, env).await.ok().unwrap();
    let channel = Endpoint::from_shared(format!("http://{}", other.grpc))
        .unwrap()
        .connect_lazy();
    let mut there = OrganizationServiceClient::new(InterceptedService::new(channel, Bearer::new(&made.secret)));
    let mut there = async || there.list_members(ListMembersRequest::default()).await;
    eventually("the other lets the key in", async || there().await.is_ok()).await;
    house.lists_members(&made.secret).await.unwrap();

    let revoked = house.revoke_key(ada.token(), &id).await.unwrap();
    let started = Instant::now();
    assert!(revoked.revoked_at.is_some());
    eventually("this gate refuses the key", async || {
        house.lists_members(&made.secret).await.is_err()
    })
    .await;
    eventually("the other gate refuses the key", async || there().await.is_err()).await;
    // A second on a machine that has it; what is slower than this is broken.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(house.ended().await, std::slice::from_ref(&id));
    let request = ExchangeApiKeyRequest { api_key: made.secret };
    assert_eq!(
        reason(house.auth("").exchange_api_key(request).await),
        "CREDENTIAL_INVALID"
    );
    let [event] = &house.audited("identity.RevokeApiKey").await[..] else {
        panic!("one event")
    };
    assert_eq!(event.resource.clone().unwrap().id, id);
}

#[tokio::test]
async fn a_key_that_has_ended_stays_as_it_ended() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let made = house.key(ada.token(), &["identity.api_key.write"]).await.unwrap();
    let id = made.api_key.unwrap().id;
    assert_eq!(reason(house.revoke_key(eve.token(), &id).await), "RESOURCE_NOT_FOUND");
    // It may end itself.
    let first = house.revoke_key(&made.secret, &id).await.unwrap();
    assert_eq!(house.revoke_key(ada.token(), &id).await.unwrap(), first);
    assert_eq!(house.ended().await, [id]);
    let expired = house.key(ada.token(), &["designs.*.read"]).await.unwrap();
    let expired = expired.api_key.unwrap().id;
    house
        .sql(&format!(
            "update api_keys set expires_at = now() where id = '{expired}'"
        ))
        .await;
    let answer = house.revoke_key(ada.token(), &expired).await.unwrap();
    assert_eq!(answer.revoked_at, None);
    assert_eq!(
        violations(&house.revoke_key(ada.token(), "x").await.unwrap_err()),
        ["api_key_id"]
    );
}
