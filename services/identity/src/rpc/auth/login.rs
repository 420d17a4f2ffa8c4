//! Signing in, going on and signing out.

use api::identity::v1::{
    LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, RefreshTokenRequest, RefreshTokenResponse,
    SwitchOrganizationRequest, SwitchOrganizationResponse,
};
use tonic::{Request, Response, Status};

use crate::rpc::Identity;
use crate::{
    model::{DeviceId, DeviceToken, Email, RefreshToken, SESSION_LIFETIME, Session, SessionId, now},
    rpc::{
        second_factor::{SecondFactor, verify_at_login},
        session::{Refreshed, revoke},
    },
    store::{self, lookup::LoginAccount},
    throttle::{Attempt, Guess},
    wire::{self, Credentials},
};
use api::events::v1::Outcome;
use kit::{
    Error, Reason, Violations,
    auth::{PublicScope, UserScope, admitted, scope::Admitted},
    db::{Refusal, Tx},
    failpoint,
    ids::{self, OrgId, Principal},
};
use secrecy::ExposeSecret;

pub(super) async fn login(
    identity: &Identity,
    request: Request<LoginRequest>,
) -> Result<Response<LoginResponse>, Status> {
    let (scope, request): (PublicScope, _) = admitted(request)?;
    let login = Credentials::try_from(request)?;
    let Judged {
        account,
        known,
        attempt,
        genuine,
    } = identity.judge(&scope, &login).await?;
    let entered = account
        .as_ref()
        .filter(|account| genuine && !account.suspended && !account.deleted)
        .filter(|account| login.org.is_none() || account.org_id.is_some());
    let Some(entered) = entered else {
        let error = identity.fail(&scope, account.as_ref(), attempt, failed()).await;
        return Err(error.into());
    };
    let session = Session {
        org_id: entered.org_id.unwrap_or(OrgId::PLATFORM),
        id: SessionId::new(),
        user_id: entered.user_id,
        device: login.device,
        expires_at: now() + SESSION_LIFETIME,
    };
    let device = known.unwrap_or_else(DeviceId::new);
    failpoint::hit_in("identity.login_verified", login.email.as_str()).await?;
    let code = login.code.as_ref().map(ExposeSecret::expose_secret);
    let answer = identity.db.write(&scope, async |tx| {
        match verify_at_login(identity, tx, entered.user_id, code).await? {
            SecondFactor::NotEnrolled | SecondFactor::Right => {}
            SecondFactor::Missing => {
                return Err(Error::new(
                    Reason::SecondFactorRequired,
                    "the account asks for a code of its second factor",
                ));
            }
            SecondFactor::Wrong => return Err(failed()),
        }
        let tokens = identity.open(tx, &session).await?;
        still_there(tx, &login.email, entered).await?;
        let device_token = DeviceToken::issue(&identity.ring, entered.user_id, device, &entered.password_hash, now());
        Ok(LoginResponse {
            tokens: Some(tokens),
            device_token,
        })
    });
    match answer.await {
        Ok(answer) => {
            give_back(attempt).await;
            identity.show(&session).await;
            Ok(answer)
        }
        Err(error) => Err(identity.fail(&scope, account.as_ref(), attempt, error).await.into()),
    }
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
    let _turn = identity.refreshing(token.session()).await;
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

/// What is known of a login once its password was looked at.
struct Judged {
    account: Option<LoginAccount>,
    /// The device, if it has signed in to the account before.
    known: Option<DeviceId>,
    /// What it is counted by.
    attempt: Option<Attempt>,
    /// Whether there is such an account and the password is its own.
    genuine: bool,
}

/// One error for every way in which an account cannot be signed in to.
fn failed() -> Error {
    Error::new(
        Reason::LoginFailed,
        "e-mail and password do not match an account that can sign in",
    )
}

/// Whether an account is still what the password was verified for: it may have got another one meanwhile, or have been
/// suspended. Its row is locked by now, so who changes it from here on finds the new session and ends it.
///
/// The switch `identity.login_recheck` takes this away, for tests.
async fn still_there(tx: &mut Tx, email: &Email, verified: &LoginAccount) -> kit::Result<()> {
    let now = store::lookup::login_account(tx, email, None).await?;
    let same = now.is_some_and(|now| {
        now.user_id == verified.user_id
            && now.password_hash.0 == verified.password_hash.0
            && !now.suspended
            && !now.deleted
    });
    if same || failpoint::without("identity.login_recheck") {
        Ok(())
    } else {
        Err(failed())
    }
}

async fn give_back(attempt: Option<Attempt>) {
    if let Some(attempt) = attempt {
        attempt.give_back().await;
    }
}

impl Identity {
    /// Counts a login, then looks at its password: the same statements and the same work whatever account there is.
    ///
    /// The switch `identity.count_before_hash` counts what failed afterwards, and `identity.hash_for_nobody` makes no
    /// hash where there is no account, for tests.
    async fn judge(&self, scope: &PublicScope, login: &Credentials) -> kit::Result<Judged> {
        let find = async || {
            let (email, org) = (&login.email, login.org);
            self.db
                .look(scope, async |tx| store::lookup::login_account(tx, email, org).await)
                .await
        };
        let stranger = Guess::Stranger {
            email: &login.email,
            org: login.org,
        };
        let count_after = failpoint::without("identity.count_before_hash");
        let count = async |guess| {
            if count_after {
                return Ok(None);
            }
            self.throttle.admit(scope.call(), guess).await.map(Some)
        };
        // Only who has signed in to some account has a token that reads, so strangers are counted before anything is looked up.
        let (account, known, mut attempt) = match self.device_token(login) {
            None => {
                let attempt = count(stranger).await?;
                (find().await?, None, attempt)
            }
            Some(token) => {
                let account = find().await?;
                let known = account.as_ref().and_then(|account| {
                    let device = token.device_of(&self.ring, account.user_id, &account.password_hash)?;
                    Some((account.user_id, device))
                });
                let guess = known.map_or(stranger, |(user, device)| Guess::Device { user, device });
                let attempt = count(guess).await?;
                (account, known.map(|(_, device)| device), attempt)
            }
        };
        let hash = account.as_ref().map(|account| &account.password_hash);
        let verified = if hash.is_none() && failpoint::without("identity.hash_for_nobody") {
            Ok(false)
        } else {
            self.passwords.verify(&login.password, hash).await
        };
        let genuine = match verified {
            Ok(genuine) => genuine,
            Err(error) => {
                // Nothing was looked at.
                give_back(attempt).await;
                return Err(error);
            }
        };
        if count_after && !genuine {
            attempt = Some(self.throttle.admit(scope.call(), stranger).await?);
        }
        Ok(Judged {
            account,
            known,
            attempt,
            genuine,
        })
    }

    /// The token of a device that may be known to the account.
    ///
    /// The switch `identity.known_device` makes all devices strangers, for tests.
    fn device_token(&self, login: &Credentials) -> Option<DeviceToken> {
        let token = DeviceToken::parse(&self.ring, login.device_token.expose_secret(), now())?;
        (!failpoint::without("identity.known_device")).then_some(token)
    }

    /// Writes a failed login to the audit trail, and gives it back where it was no wrong guess; answers its error.
    async fn fail(
        &self,
        scope: &PublicScope,
        account: Option<&LoginAccount>,
        attempt: Option<Attempt>,
        error: Error,
    ) -> Error {
        let told = match error.reason() {
            Reason::LoginFailed => true,
            Reason::SecondFactorRequired => {
                give_back(attempt).await;
                true
            }
            _ => {
                give_back(attempt).await;
                false
            }
        };
        if !told {
            return error;
        }
        let refusal = Refusal {
            org: account
                .and_then(|account| account.home_org_id)
                .unwrap_or(OrgId::PLATFORM),
            actor: Principal::Anonymous,
            outcome: Outcome::Failure,
            about: account.map(|account| ("user", account.user_id.to_string())),
        };
        match self.db.refuse(scope, refusal, &error).await {
            Ok(()) => error,
            Err(broken) => broken,
        }
    }
}
