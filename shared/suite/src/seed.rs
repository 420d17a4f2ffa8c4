//! The first user and API key of a suite, made through the same RPCs that anybody uses.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use api::identity::v1::api_key_service_client::ApiKeyServiceClient;
use api::identity::v1::auth_service_client::AuthServiceClient;
use api::identity::v1::{CreateApiKeyRequest, ExchangeApiKeyRequest, LoginRequest, SignUpRequest};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::keys::Kept;
use crate::layout::Layout;
use crate::mail::{self, Mailbox};
use crate::random_hex;

/// The administrator's address; what is sent to it lies in the suite's mail directory.
const EMAIL: &str = "admin@board3.local";
/// CreateApiKey takes at most 366 days.
const KEY_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a person needs to begin.
#[derive(Clone)]
pub struct Administrator {
    /// Signs in with it.
    pub email: String,
    /// Made at random once.
    pub password: String,
    /// May do everything in the administrator's organization.
    pub api_key: String,
    /// The suite's own runner works with it.
    pub runner_api_key: String,
}

/// The kept API keys: what each is called and may do.
const KEYS: [(&str, &str, &str); 2] = [
    ("BOARD3_API_KEY", "administrator", "*.*.*"),
    ("BOARD3_RUNNER_API_KEY", "runner", "pipelines.runner.work"),
];

/// Makes the administrator, the organization and the API keys at `identity` unless they are there.
pub async fn seed(layout: &Layout, identity: &str) -> Result<Administrator> {
    let mut kept = Kept::open(&layout.dir().join("keys"), "administrator")?;
    // Letters of both cases and digits, whatever a password policy asks for.
    let password = kept.get_or_set("BOARD3_ADMIN_PASSWORD", || Ok(format!("B3-{}", random_hex(12)?)))?;
    let channel = Channel::from_shared(identity.to_owned())?
        .timeout(Duration::from_secs(20))
        .connect()
        .await?;
    let mut access_token = None;
    let mut api_keys = Vec::new();
    for (variable, name, scope) in KEYS {
        let known = kept.get(variable).map(str::to_owned);
        let api_key = match known {
            Some(api_key) if is_good(&channel, &api_key).await? => api_key,
            _ => {
                let token = match &access_token {
                    Some(token) => token,
                    None => access_token.insert(sign_in(layout, &channel, &password).await?),
                };
                let api_key = made(&channel, token, name, scope).await?;
                kept.set(variable, &api_key)?;
                api_key
            }
        };
        api_keys.push(api_key);
    }
    kept.set("BOARD3_ADMIN_EMAIL", EMAIL)?;
    let [api_key, runner_api_key] = <[String; 2]>::try_from(api_keys).expect("one of each");
    Ok(Administrator {
        email: EMAIL.into(),
        password,
        api_key,
        runner_api_key,
    })
}

/// Whether a kept key is known here; it is not in another database, or when it is over.
async fn is_good(channel: &Channel, api_key: &str) -> Result<bool> {
    let request = ExchangeApiKeyRequest {
        api_key: api_key.to_owned(),
    };
    match AuthServiceClient::new(channel.clone()).exchange_api_key(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::Unauthenticated => Ok(false),
        Err(status) => Err(told("ExchangeApiKey", &status)),
    }
}

/// The administrator's access token; signs up first where there is no administrator.
async fn sign_in(layout: &Layout, channel: &Channel, password: &str) -> Result<String> {
    let mut auth = AuthServiceClient::new(channel.clone());
    let login = LoginRequest {
        email: EMAIL.into(),
        password: password.to_owned(),
        device: "board3 seed".into(),
        ..Default::default()
    };
    let tokens = match auth.login(login.clone()).await {
        Ok(answer) => answer.into_inner().tokens,
        Err(status) if status.code() == Code::Unauthenticated => {
            let sign_up = SignUpRequest {
                email: EMAIL.into(),
                username: "admin".into(),
                password: password.to_owned(),
                first_name: "Board3".into(),
                last_name: "Administrator".into(),
                organization_name: "Board3".into(),
                ..Default::default()
            };
            let mailbox = Mailbox::in_dir(&layout.mail())?;
            let joined = mail::join(channel.clone(), &mailbox, sign_up).await;
            joined.map_err(|status| match status.code() {
                Code::AlreadyExists => anyhow!(
                    "{EMAIL} is there with another password than the one kept in {}; use a new database, or restore the file",
                    layout.dir().join("keys").display()
                ),
                _ => told("SignUp or VerifyEmail", &status),
            })?;
            auth.login(login)
                .await
                .map_err(|status| told("Login", &status))?
                .into_inner()
                .tokens
        }
        Err(status) => return Err(told("Login", &status)),
    };
    Ok(tokens.context("Login answered no tokens")?.access_token)
}

async fn made(channel: &Channel, access_token: &str, name: &str, scope: &str) -> Result<String> {
    let mut request = Request::new(CreateApiKeyRequest {
        name: name.into(),
        scopes: vec![scope.into()],
        expires_at: Some((SystemTime::now() + KEY_LIFETIME).into()),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {access_token}").parse()?);
    let made = ApiKeyServiceClient::new(channel.clone()).create_api_key(request).await;
    Ok(made
        .map_err(|status| told("CreateApiKey", &status))?
        .into_inner()
        .secret)
}

fn told(rpc: &str, status: &Status) -> anyhow::Error {
    anyhow!("{rpc} answered {:?}: {}", status.code(), status.message())
}
