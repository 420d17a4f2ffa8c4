//! Signing up and in, and what peers ask of identity.

use api::{
    events::v1::{Outcome, UserChanged, event::Payload},
    identity::v1::{
        CheckSessionRequest, CheckSessionResponse, ExchangeApiKeyRequest, ExchangeApiKeyResponse,
        GetPermissionSetRequest, GetPermissionSetResponse, GetSigningKeysRequest, GetSigningKeysResponse, LoginRequest,
        LoginResponse, LogoutRequest, LogoutResponse, RefreshTokenRequest, RefreshTokenResponse, SignUpRequest,
        SignUpResponse, SwitchOrganizationRequest, SwitchOrganizationResponse, auth_service_server::AuthService,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kit::{
    Error, Reason, Result, Violations,
    auth::{PeerScope, PublicScope, UserScope, admitted},
    db::{Refusal, Tx},
    ids::{self, OrgId, Principal},
    rate::Limit,
};
use tonic::{Request, Response, Status};

use super::{
    Identity,
    session::{Refreshed, revoke},
};
use crate::{
    model::{Email, NewAccount, RefreshToken, RoleId, SESSION_LIFETIME, Session, SessionId, Slug, now},
    store,
    wire::{self, Credentials, Question, SessionQuestion},
};

/// How often another slug is tried for an organization that named none.
const SLUG_TRIES: usize = 8;

#[tonic::async_trait]
impl AuthService for Identity {
    async fn sign_up(&self, request: Request<SignUpRequest>) -> Result<Response<SignUpResponse>, Status> {
        let (scope, request): (PublicScope, _) = admitted(request)?;
        let new = NewAccount::try_from(request)?;
        let password_hash = self.passwords.hash(&new.password).await?;
        let answer = self.db.write(&scope, async |tx| {
            tx.enter(new.org, Principal::User(new.user)).await?;
            let slug = insert_organization(tx, &new).await?;
            store::user::insert(tx, &new, &password_hash).await?;
            store::member::insert(tx, new.user, OrgId::PLATFORM, RoleId::OWNER).await?;
            tx.about(&new);
            tx.tell(Payload::UserChanged(UserChanged {
                user_id: new.user.to_string(),
                first_name: new.first_name.as_str().to_owned(),
                last_name: new.last_name.as_str().to_owned(),
                version: 1,
            }));
            Ok(SignUpResponse {
                user_id: new.user.to_string(),
                organization_id: new.org.to_string(),
                organization_slug: slug.as_str().to_owned(),
            })
        });
        Ok(answer.await?)
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let (scope, request): (PublicScope, _) = admitted(request)?;
        let login = Credentials::try_from(request)?;
        // Counted before anything is looked up, alike for addresses with and without an account.
        let guess = self.guess(&login.email);
        self.limiter.check(&guess).await.into_result()?;
        let find = self.db.look(&scope, async |tx| {
            store::lookup::login_account(tx, &login.email, login.org).await
        });
        let account = find.await?;
        let hash = account.as_ref().map(|account| &account.password_hash);
        let genuine = self.passwords.verify(&login.password, hash).await?;
        let entered = account
            .as_ref()
            .filter(|account| genuine && (login.org.is_none() || account.org_id.is_some()));
        let Some(entered) = entered else {
            let error = Error::new(
                Reason::LoginFailed,
                "e-mail and password do not match an account that can sign in",
            );
            let refusal = Refusal {
                org: account
                    .as_ref()
                    .and_then(|account| account.home_org_id)
                    .unwrap_or(OrgId::PLATFORM),
                actor: Principal::Anonymous,
                outcome: Outcome::Failure,
                about: account.as_ref().map(|account| ("user", account.user_id.to_string())),
            };
            self.db.refuse(&scope, refusal, &error).await?;
            return Err(error.into());
        };
        // Who knows the password guesses nothing.
        self.limiter.refund(&guess).await;
        let session = Session {
            org_id: entered.org_id.unwrap_or(OrgId::PLATFORM),
            id: SessionId::new(),
            user_id: entered.user_id,
            device: login.device,
            expires_at: now() + SESSION_LIFETIME,
        };
        let answer = self.db.write(&scope, async |tx| {
            let tokens = self.open(tx, &session).await?;
            Ok(LoginResponse { tokens: Some(tokens) })
        });
        let answer = answer.await?;
        self.show(&session).await;
        Ok(answer)
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
        let (scope, request): (PublicScope, _) = admitted(request)?;
        let text = wire::refresh_token_text(request.refresh_token)?;
        let invalid = || {
            Error::new(
                Reason::RefreshTokenInvalid,
                "the refresh token is unknown, expired or used",
            )
        };
        let token = RefreshToken::parse(&self.ring, &text).ok_or_else(invalid)?;
        let _turn = self.refreshing.enter(token.session()).await;
        // What ends a session is committed with its audit event, although the call fails.
        let refreshed = self.db.read(&scope, async |tx| {
            let refreshed = self.refresh(tx, &token).await?;
            if let Refreshed::Ended(session) = &refreshed {
                let refusal = Refusal {
                    org: session.org_id,
                    actor: Principal::User(session.user_id),
                    outcome: Outcome::Failure,
                    about: Some(("session", session.id.to_string())),
                };
                tx.record_refusal(&scope, refusal, &invalid()).await?;
            }
            Ok(refreshed)
        });
        match refreshed.await? {
            Refreshed::Tokens(session, tokens) => {
                self.show(&session).await;
                Ok(Response::new(RefreshTokenResponse { tokens: Some(tokens) }))
            }
            Refreshed::Ended(session) => {
                self.hide(session.id).await;
                Err(invalid().into())
            }
            Refreshed::Void => Err(invalid().into()),
        }
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        let (scope, LogoutRequest {}): (UserScope, _) = admitted(request)?;
        let session = SessionId(scope.session());
        let answer = self.db.write(&scope, async |tx| {
            tx.enter(scope.org().unwrap_or(OrgId::PLATFORM), Principal::User(scope.user()))
                .await?;
            revoke(tx, session).await?;
            tx.about(&session);
            Ok(LogoutResponse {})
        });
        let answer = answer.await?;
        self.hide(session).await;
        Ok(answer)
    }

    async fn switch_organization(
        &self,
        request: Request<SwitchOrganizationRequest>,
    ) -> Result<Response<SwitchOrganizationResponse>, Status> {
        let (scope, request): (UserScope, _) = admitted(request)?;
        let mut violations = Violations::new();
        let org: Option<OrgId> = ids::required("organization_id", &request.organization_id, &mut violations);
        let org = violations.finish(org)?;
        let mut opened = None;
        let answer = self.db.write(&scope, async |tx| {
            let user = scope.user();
            let present = store::session::find_active(tx, SessionId(scope.session()), user).await?;
            let present = present.ok_or_else(|| Error::new(Reason::SessionRevoked, "the session has ended"))?;
            if !store::member::exists(tx, org, user).await? {
                return Err(Error::not_found("organization", org));
            }
            // It ends with the one it comes from at the latest: switching prolongs nothing.
            let session = opened.insert(Session {
                org_id: org,
                id: SessionId::new(),
                ..present
            });
            let tokens = self.open(tx, session).await?;
            Ok(SwitchOrganizationResponse { tokens: Some(tokens) })
        });
        let answer = answer.await?;
        if let Some(session) = &opened {
            self.show(session).await;
        }
        Ok(answer)
    }

    async fn exchange_api_key(
        &self,
        request: Request<ExchangeApiKeyRequest>,
    ) -> Result<Response<ExchangeApiKeyResponse>, Status> {
        let (scope, request): (PublicScope, _) = admitted(request)?;
        let key = wire::api_key_text(request.api_key)?;
        let exchanged = self.keeper.exchange(&scope, &key).await?;
        Ok(Response::new(ExchangeApiKeyResponse {
            access_token: exchanged.token.text,
            access_token_expires_at: Some(wire::timestamp(exchanged.token.expires_at)),
            organization_id: exchanged.org.to_string(),
            api_key_id: exchanged.key.to_string(),
        }))
    }

    async fn get_signing_keys(
        &self,
        request: Request<GetSigningKeysRequest>,
    ) -> Result<Response<GetSigningKeysResponse>, Status> {
        let (_, GetSigningKeysRequest {}): (PeerScope, _) = admitted(request)?;
        let keys = self.keeper.issuer.public_keys().map(wire::signing_key).collect();
        Ok(Response::new(GetSigningKeysResponse { keys }))
    }

    async fn get_permission_set(
        &self,
        request: Request<GetPermissionSetRequest>,
    ) -> Result<Response<GetPermissionSetResponse>, Status> {
        let (scope, request): (PeerScope, _) = admitted(request)?;
        let asked = Question::try_from(request)?;
        let (set, permission_version) = self.keeper.permission_set(&scope, asked.org, asked.principal).await?;
        let permissions = set.names().map(str::to_owned).collect();
        Ok(Response::new(GetPermissionSetResponse {
            permissions,
            permission_version,
        }))
    }

    async fn check_session(
        &self,
        request: Request<CheckSessionRequest>,
    ) -> Result<Response<CheckSessionResponse>, Status> {
        let (scope, request): (PeerScope, _) = admitted(request)?;
        let asked = SessionQuestion::try_from(request)?;
        let active = self
            .keeper
            .session_active(&scope, asked.session, asked.principal, asked.epoch)
            .await?;
        Ok(Response::new(CheckSessionResponse { active }))
    }
}

impl Identity {
    /// What a login is counted as: a guess at the account of this address, whoever makes it. It is a rate, not a lock.
    fn guess(&self, email: &Email) -> [(String, Limit); 1] {
        let address = self.ring.keyed_hash("identity login", email.as_str().as_bytes());
        [(format!("login:{}", URL_SAFE_NO_PAD.encode(address)), self.guesses)]
    }
}

/// Makes the organization under the slug that it names, or else under the first free one that its name suggests.
async fn insert_organization(tx: &mut Tx, new: &NewAccount) -> Result<Slug> {
    let name = &new.organization_name;
    let taken = || store::exists("organization_slug");
    if let Some(slug) = &new.organization_slug {
        return if store::organization::insert(tx, name, slug).await? {
            Ok(slug.clone())
        } else {
            Err(taken())
        };
    }
    let stem = Slug::of_name(name);
    let mut slug = stem.clone();
    for _ in 0..SLUG_TRIES {
        if store::organization::insert(tx, name, &slug).await? {
            return Ok(slug);
        }
        slug = stem.with_suffix();
    }
    Err(taken())
}
