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
use crate::random_hex;

/// The administrator's address; nothing is ever sent to it.
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
}

/// Makes the administrator, the organization and the API key at `identity` unless they are there.
pub async fn seed(layout: &Layout, identity: &str) -> Result<Administrator> {
    let mut kept = Kept::open(&layout.dir().join("keys"), "administrator")?;
    // Letters of both cases and digits, whatever a password policy asks for.
    let password = kept.get_or_set("BOARD3_ADMIN_PASSWORD", || Ok(format!("B3-{}", random_hex(12)?)))?;
    let channel = Channel::from_shared(identity.to_owned())?
        .timeout(Duration::from_secs(20))
        .connect()
        .await?;
    let mut auth = AuthServiceClient::new(channel.clone());

    if let Some(api_key) = kept.get("BOARD3_API_KEY").map(str::to_owned) {
        match auth
            .exchange_api_key(ExchangeApiKeyRequest {
                api_key: api_key.clone(),
            })
            .await
        {
            Ok(_) => {
                return Ok(Administrator {
                    email: EMAIL.into(),
                    password,
                    api_key,
                });
            }
            // Of a database that is gone, or a key that is over.
            Err(status) if status.code() == Code::Unauthenticated => {}
            Err(status) => return Err(told("ExchangeApiKey", &status)),
        }
    }

    let login = LoginRequest {
        email: EMAIL.into(),
        password: password.clone(),
        device: "board3 seed".into(),
        ..Default::default()
    };
    let tokens = match auth.login(login.clone()).await {
        Ok(answer) => answer.into_inner().tokens,
        Err(status) if status.code() == Code::Unauthenticated => {
            let sign_up = SignUpRequest {
                email: EMAIL.into(),
                username: "admin".into(),
                password: password.clone(),
                first_name: "Board3".into(),
                last_name: "Administrator".into(),
                organization_name: "Board3".into(),
                ..Default::default()
            };
            auth.sign_up(sign_up).await.map_err(|status| match status.code() {
                Code::AlreadyExists => anyhow!(
                    "{EMAIL} is there with another password than the one kept in {}; use a new database, or restore the file",
                    layout.dir().join("keys").display()
                ),
                _ => told("SignUp", &status),
            })?;
            auth.login(login)
                .await
                .map_err(|status| told("Login", &status))?
                .into_inner()
                .tokens
        }
        Err(status) => return Err(told("Login", &status)),
    };
    let tokens = tokens.context("Login answered no tokens")?;

    let mut request = Request::new(CreateApiKeyRequest {
        name: "administrator".into(),
        scopes: vec!["*.*.*".into()],
        expires_at: Some((SystemTime::now() + KEY_LIFETIME).into()),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", tokens.access_token).parse()?);
    let made = ApiKeyServiceClient::new(channel).create_api_key(request).await;
    let api_key = made
        .map_err(|status| told("CreateApiKey", &status))?
        .into_inner()
        .secret;
    kept.set("BOARD3_ADMIN_EMAIL", EMAIL)?;
    kept.set("BOARD3_API_KEY", &api_key)?;
    Ok(Administrator {
        email: EMAIL.into(),
        password,
        api_key,
    })
}

fn told(rpc: &str, status: &Status) -> anyhow::Error {
    anyhow!("{rpc} answered {:?}: {}", status.code(), status.message())
}
