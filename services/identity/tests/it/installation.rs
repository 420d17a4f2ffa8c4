//! Identity with a caller who owns the platform's organization, and services that believe it.

use std::time::Duration;

use api::{
    designs::v1::{ListDesignsRequest, design_service_client::DesignServiceClient},
    events::v1::Event,
    identity::v1::{
        auth_service_client::AuthServiceClient, role_service_client::RoleServiceClient,
        signing_key_service_client::SigningKeyServiceClient, *,
    },
};
use kit::{
    auth::token,
    config::Env,
    crypto::{ApiKey, Pepper},
    ids::OrgId,
};
use prost::Message;
use testkit::{Caller, Served};
use tonic::Status;
use uuid::Uuid;

use crate::house::request_id;

/// What a run may take on a machine that is busy with others, and far below the minute after which keys are fetched anyway.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Identity, and a caller who owns the platform's organization.
pub(crate) struct Installation {
    pub(crate) identity: Served,
    pub(crate) admin: tokio_postgres::Client,
    pub(crate) environment: &'static str,
    pub(crate) platform: String,
}

impl Installation {
    pub(crate) async fn open() -> Self {
        Installation::open_with("test", &[]).await
    }

    pub(crate) async fn open_with(environment: &'static str, more: &[(&str, &str)]) -> Self {
        let more = [more, &[("BOARD3_ENVIRONMENT", environment)]].concat();
        let identity = testkit::serve::serve_with(identity::SERVICE, &more).await;
        Installation::of(identity, environment).await
    }

    /// Around an identity that serves already.
    pub(crate) async fn of(identity: Served, environment: &'static str) -> Self {
        let admin = identity.database.admin().await;
        admin.batch_execute("set search_path = identity").await.unwrap();
        let mut installation = Installation {
            identity,
            admin,
            environment,
            platform: String::new(),
        };
        installation.platform = installation.api_key(OrgId::PLATFORM).await;
        installation
    }

    /// Designs, which asks this identity.
    pub(crate) async fn designs(&self) -> Served {
        let address = format!("http://{}", self.identity.running.grpc);
        let instance = self.env("BOARD3_INSTANCE");
        testkit::serve::serve_with(
            designs::SERVICE,
            &[
                ("BOARD3_ENVIRONMENT", self.environment),
                ("BOARD3_IDENTITY", &address),
                ("BOARD3_INSTANCE", &instance),
            ],
        )
        .await
    }

    pub(crate) fn env(&self, name: &str) -> String {
        let env = &self.identity.env;
        env.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    /// The API key of a service account that owns an organization, which is made if it is not there.
    pub(crate) async fn api_key(&self, org: OrgId) -> String {
        let key = ApiKey::generate(self.environment);
        let (user, id) = (Uuid::now_v7(), Uuid::now_v7());
        let name = user.simple();
        let digest = key.digest(&Pepper::parse(&self.env("API_KEY_PEPPER")).unwrap());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let platform = OrgId::PLATFORM;
        self.sql(&format!(
            "insert into organizations (org_id, name, slug) values ('{org}', 'inc', '{name}') on conflict do nothing;
             insert into users (id, email, username, first_name, last_name, password_hash)
             values ('{user}', '{name}@example.com', '{name}', 'First', 'Last', 'none');
             insert into service_accounts (org_id, id, name, description, role_org_id, role_id)
             select '{org}', '{id}', '{name}', '', '{platform}', id from roles where org_id = '{platform}' and name = 'owner';
             insert into api_keys (org_id, id, public_id, digest, name, scopes, creator_id, service_account_id, expires_at)
             values ('{org}', '{id}', '{public_id}', '\\x{digest}', 'ci', '{{*.*.*}}', '{user}', '{id}',
               now() + interval '1 day')",
            public_id = key.public_id()
        ))
        .await;
        key.expose().to_owned()
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn count(&self, what: &str) -> i64 {
        let sql = format!("select count(*) from {what}");
        self.admin.query_one(&sql, &[]).await.unwrap().get(0)
    }

    pub(crate) fn keys(&self) -> SigningKeyServiceClient<Caller> {
        SigningKeyServiceClient::new(self.identity.with(&self.platform))
    }

    pub(crate) async fn list(&self) -> Vec<SigningKey> {
        let answer = self.keys().list_signing_keys(ListSigningKeysRequest::default()).await;
        answer.unwrap().into_inner().keys
    }

    pub(crate) async fn rotate(&self) -> SigningKey {
        let answer = self.keys().rotate_signing_key(RotateSigningKeyRequest::default()).await;
        answer.unwrap().into_inner().key.unwrap()
    }

    pub(crate) async fn revoke(&self, key_id: &str) -> SigningKey {
        let request = RevokeSigningKeyRequest {
            key_id: key_id.to_owned(),
            request_id: request_id(),
        };
        let answer = self.keys().revoke_signing_key(request).await;
        answer.unwrap().into_inner().key.unwrap()
    }

    /// The set as verifiers get it: its version and the ids of its keys.
    pub(crate) async fn set(&self) -> (i64, Vec<String>) {
        let mut peer = AuthServiceClient::new(self.identity.peer("designs"));
        let answer = peer.get_signing_keys(GetSigningKeysRequest {}).await.unwrap();
        let root = &self.identity.running.kit.config.root_key;
        let set = root.verify_keys("test", &answer.into_inner().key_set).unwrap();
        (set.version, set.keys.iter().map(|key| key.id().to_owned()).collect())
    }

    /// A token for an API key.
    pub(crate) async fn token(&self, api_key: &str) -> String {
        exchange(&self.identity, api_key).await.unwrap()
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let rows = self.admin.query("select envelope from outbox order by id", &[]).await;
        rows.unwrap()
            .iter()
            .map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap())
            .collect()
    }
}

pub(crate) async fn exchange(at: &Served, api_key: &str) -> Result<String, Status> {
    let request = ExchangeApiKeyRequest {
        api_key: api_key.to_owned(),
    };
    let answer = AuthServiceClient::new(at.channel()).exchange_api_key(request).await?;
    Ok(answer.into_inner().access_token)
}

pub(crate) async fn at_designs(designs: &Served, credential: &str) -> Result<(), Status> {
    let mut client = DesignServiceClient::new(designs.with(credential));
    client.list_designs(ListDesignsRequest::default()).await.map(|_| ())
}

pub(crate) async fn at_identity(identity: &Served, credential: &str) -> Result<(), Status> {
    let mut client = RoleServiceClient::new(identity.with(credential));
    client.list_roles(ListRolesRequest::default()).await.map(|_| ())
}

pub(crate) fn kid(token: &str) -> String {
    token::key_id(token).unwrap()
}

/// How many sets a service's gate fetched because of an id that it did not know.
pub(crate) fn fetched_for_the_unknown(served: &Served) -> f64 {
    let page = served.running.kit.metrics.render();
    let mut lines = page.lines();
    let line = lines.find(|line| line.contains("key_sets{") && line.contains("why=\"unknown\""));
    let (_, value) = line.unwrap().rsplit_once(' ').unwrap();
    value.parse().unwrap()
}

pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(held.is_ok(), "not within {PATIENCE:?}: {what}");
}

pub(crate) async fn replica(identity: &Served) -> kit::service::Running {
    let env = Env::of(identity.env.clone());
    match kit::service::start(identity::SERVICE, env).await {
        Ok(running) => running,
        Err(problems) => panic!("a replica does not start: {problems}"),
    }
}
