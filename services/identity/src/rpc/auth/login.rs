//! Signing in, going on and signing out.

use api::identity::v1::{
    LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, RefreshTokenRequest, RefreshTokenResponse,
    SwitchOrganizationRequest, SwitchOrganizationResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{Email, RefreshToken, SESSION_LIFETIME, Session, SessionId, now},
    rpc::session::{Refreshed, revoke},
    store,
    wire::{self, Credentials},
};
use api::events::v1::Outcome;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kit::{
    Error, Reason, Violations,
    auth::{PublicScope, UserScope, admitted},
    db::Refusal,
    ids::{self, OrgId, Principal},
    rate::Limit,
};

pub(super) async fn login(
    identity: &Identity,
    request: Request<LoginRequest>,
) -> Result<Response<LoginResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let login = Credentials::try_from(request)?;
    // Counted before anything is looked up, alike for addresses with and without an account.
    let guess = identity.guess(&login.email);
    identity.limiter.check(&guess).await.into_result()?;
    let find = identity.db.look(&scope, async |tx| {
        store::lookup::login_account(tx, &login.email, login.org).await
    });
    let account = find.await?;
    let hash = account.as_ref().map(|account| &account.password_hash);
    let genuine = identity.passwords.verify(&login.password, hash).await?;
    let entered = account
        .as_ref()
        .filter(|account| genuine && !account.suspended && !account.deleted)
        .filter(|account| login.org.is_none() || account.org_id.is_some());
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
        identity.db.refuse(&scope, refusal, &error).await?;
        return Err(error.into());
    };
    // Who knows the password guesses nothing.
    identity.limiter.refund(&guess).await;
    let session = Session {
        org_id: entered.org_id.unwrap_or(OrgId::PLATFORM),
        id: SessionId::new(),
        user_id: entered.user_id,
        device: login.device,
        expires_at: now() + SESSION_LIFETIME,
    };
    let answer = identity.db.write(&scope, async |tx| {
        let tokens = identity.open(tx, &session).await?;
        Ok(LoginResponse {
            tokens: Some(tokens),
            device_token: String::new(),
        })
    });
    let answer = answer.await?;
    identity.show(&session).await;
    Ok(answer)
}

pub(super) async fn refresh_token(
    identity: &Identity,
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
    let token = RefreshToken::parse(&identity.ring, &text).ok_or_else(invalid)?;
    // What ends a session is committed with its audit event, although the call fails.
    let refreshed = identity.db.read(&scope, async |tx| {
        let refreshed = identity.refresh(tx, &token).await?;
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
            identity.show(&session).await;
            Ok(Response::new(RefreshTokenResponse { tokens: Some(tokens) }))
        }
        Refreshed::Ended(session) => {
            identity.hide(session.id).await;
            Err(invalid().into())
        }
        Refreshed::Void => Err(invalid().into()),
    }
}

pub(super) async fn logout(
    identity: &Identity,
    request: Request<LogoutRequest>,
) -> Result<Response<LogoutResponse>, Status> {
    let (scope, LogoutRequest {}): (UserScope, _) = admitted(request)?;
    let session = SessionId(scope.session());
    let answer = identity.db.write(&scope, async |tx| {
        tx.enter(scope.org().unwrap_or(OrgId::PLATFORM), Principal::User(scope.user()))
            .await?;
        revoke(tx, session).await?;
        tx.about(&session);
        Ok(LogoutResponse {})
    });
    let answer = answer.await?;
    identity.hide(session).await;
    Ok(answer)
}

pub(super) async fn switch_organization(
    identity: &Identity,
    request: Request<SwitchOrganizationRequest>,
) -> Result<Response<SwitchOrganizationResponse>, Status> {
    let (scope, request): (UserScope, _) = admitted(request)?;
    let mut violations = Violations::new();
    let org: Option<OrgId> = ids::required("organization_id", &request.organization_id, &mut violations);
    let org = violations.finish(org)?;
    let mut opened = None;
    let answer = identity.db.write(&scope, async |tx| {
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
        let tokens = identity.open(tx, session).await?;
        Ok(SwitchOrganizationResponse { tokens: Some(tokens) })
    });
    let answer = answer.await?;
    if let Some(session) = &opened {
        identity.show(session).await;
    }
    Ok(answer)
}

impl Identity {
    /// What a login is counted as: a guess at the account of this address, whoever makes it. It is a rate, not a lock.
    fn guess(&self, email: &Email) -> [(String, Limit); 1] {
        let address = self.ring.keyed_hash("identity login", email.as_str().as_bytes());
        [(format!("login:{}", URL_SAFE_NO_PAD.encode(address)), self.guesses)]
    }
}
