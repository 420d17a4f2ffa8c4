//! A running identity service, and people who sign up to it.

use std::time::Duration;

use api::{
    events::v1::{Event, event::Payload},
    identity::v1::{
        api_key_service_client::ApiKeyServiceClient, auth_service_client::AuthServiceClient,
        organization_service_client::OrganizationServiceClient, user_service_client::UserServiceClient, *,
    },
};
use prost::Message;
use testkit::{Caller, Served};
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct House {
    pub(crate) served: Served,
}

/// Somebody with a session.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) user: String,
    pub(crate) org: String,
    pub(crate) email: String,
    pub(crate) tokens: SessionTokens,
}

impl Person {
    pub(crate) fn token(&self) -> &str {
        &self.tokens.access_token
    }
}

pub(crate) fn sign_up(name: &str) -> SignUpRequest {
    SignUpRequest {
        email: format!("{name}@example.com"),
        username: name.to_owned(),
        password: PASSWORD.to_owned(),
        first_name: "First".to_owned(),
        last_name: "Last".to_owned(),
        organization_name: format!("{name} inc"),
        organization_slug: String::new(),
        request_id: String::new(),
    }
}

pub(crate) fn login(email: &str, password: &str) -> LoginRequest {
    LoginRequest {
        email: email.to_owned(),
        password: password.to_owned(),
        organization_id: String::new(),
        device: "test".to_owned(),
        ..Default::default()
    }
}

impl House {
    pub(crate) async fn open() -> Self {
        House {
            served: testkit::serve(identity::SERVICE).await,
        }
    }

    /// With all rate limits at this many times their size.
    pub(crate) async fn open_at_scale(scale: u32) -> Self {
        let scale = scale.to_string();
        House {
            served: testkit::serve_with(identity::SERVICE, &[("BOARD3_RATE_SCALE", scale.as_str())]).await,
        }
    }

    pub(crate) fn auth(&self, credential: &str) -> AuthServiceClient<Caller> {
        AuthServiceClient::new(self.served.with(credential))
    }

    pub(crate) fn organizations(&self, credential: &str) -> OrganizationServiceClient<Caller> {
        OrganizationServiceClient::new(self.served.with(credential))
    }

    pub(crate) fn users(&self, credential: &str) -> UserServiceClient<Caller> {
        UserServiceClient::new(self.served.with(credential))
    }

    pub(crate) fn keys(&self, credential: &str) -> ApiKeyServiceClient<Caller> {
        ApiKeyServiceClient::new(self.served.with(credential))
    }

    pub(crate) fn peer(&self) -> AuthServiceClient<Caller> {
        AuthServiceClient::new(self.served.peer("designs"))
    }

    pub(crate) async fn login(&self, email: &str) -> SessionTokens {
        let answer = self.auth("").login(login(email, PASSWORD)).await.unwrap();
        answer.into_inner().tokens.unwrap()
    }

    /// Signs up, and gives the token from the message back.
    pub(crate) async fn sign_up(&self, request: SignUpRequest) -> Result<VerifyEmailResponse, Status> {
        let email = request.email.to_lowercase();
        self.auth("").sign_up(request).await?;
        let letter = self.served.mail().wait(&email, "Confirm").await;
        let request = VerifyEmailRequest {
            token: letter.token().to_owned(),
            ..Default::default()
        };
        Ok(self.auth("").verify_email(request).await?.into_inner())
    }

    /// A new user in an organization of their own.
    pub(crate) async fn person(&self, name: &str) -> Person {
        let made = self.sign_up(sign_up(name)).await.unwrap();
        let email = format!("{name}@example.com");
        let tokens = self.login(&email).await;
        assert_eq!(tokens.organization_id, made.organization_id);
        Person {
            user: made.user_id,
            org: made.organization_id,
            email,
            tokens,
        }
    }

    pub(crate) async fn invite(&self, by: &Person, email: &str, role: &str) -> Result<InviteMemberResponse, Status> {
        let request = InviteMemberRequest {
            email: email.to_owned(),
            role: role.to_owned(),
            request_id: String::new(),
        };
        Ok(self
            .organizations(by.token())
            .invite_member(request)
            .await?
            .into_inner())
    }

    pub(crate) async fn accept(&self, who: &Person, token: &str) -> Result<AcceptInvitationResponse, Status> {
        let request = AcceptInvitationRequest {
            token: token.to_owned(),
            request_id: String::new(),
        };
        Ok(self
            .organizations(who.token())
            .accept_invitation(request)
            .await?
            .into_inner())
    }

    pub(crate) async fn switch(&self, who: &Person, org: &str) -> Result<SessionTokens, Status> {
        let request = SwitchOrganizationRequest {
            organization_id: org.to_owned(),
        };
        let answer = self.auth(who.token()).switch_organization(request).await?;
        Ok(answer.into_inner().tokens.unwrap())
    }

    /// A new user with a role in another's organization, and a session there.
    pub(crate) async fn colleague(&self, of: &Person, name: &str, role: &str) -> Person {
        let person = self.person(name).await;
        let invitation = self.invite(of, &person.email, role).await.unwrap();
        self.accept(&person, &invitation.token).await.unwrap();
        let tokens = self.switch(&person, &of.org).await.unwrap();
        Person {
            org: of.org.clone(),
            tokens,
            ..person
        }
    }

    pub(crate) async fn update_member(&self, by: &Person, user: &str, role: &str) -> Result<Member, Status> {
        let request = UpdateMemberRequest {
            user_id: user.to_owned(),
            role: role.to_owned(),
            request_id: String::new(),
        };
        Ok(self
            .organizations(by.token())
            .update_member(request)
            .await?
            .into_inner()
            .member
            .unwrap())
    }

    pub(crate) async fn refresh(&self, token: &str) -> Result<SessionTokens, Status> {
        let request = RefreshTokenRequest {
            refresh_token: token.to_owned(),
        };
        Ok(self.auth("").refresh_token(request).await?.into_inner().tokens.unwrap())
    }

    pub(crate) async fn active(&self, person: &Person) -> bool {
        let request = CheckSessionRequest {
            session_id: person.tokens.session_id.clone(),
            principal_kind: PrincipalKind::User.into(),
            principal_id: person.user.clone(),
            epoch: 1,
        };
        self.peer().check_session(request).await.unwrap().into_inner().active
    }

    /// Runs SQL as the superuser.
    pub(crate) async fn sql(&self, sql: &str) {
        self.served
            .database
            .admin()
            .await
            .batch_execute(&format!("set search_path = identity; {sql}"))
            .await
            .unwrap();
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let admin = self.served.database.admin().await;
        admin
            .query_one(&format!("select count(*) from identity.{table}"), &[])
            .await
            .unwrap()
            .get(0)
    }

    /// Everything that was told, oldest first.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let admin = self.served.database.admin().await;
        let rows = admin
            .query("select envelope from identity.outbox order by id", &[])
            .await
            .unwrap();
        rows.iter()
            .map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap())
            .collect()
    }

    /// The audited events of an action.
    pub(crate) async fn audited(&self, action: &str) -> Vec<Event> {
        self.events()
            .await
            .into_iter()
            .filter(|event| event.audited && event.action == action)
            .collect()
    }

    /// What was told beyond the audit trail.
    pub(crate) async fn told(&self) -> Vec<(String, Payload)> {
        let events = self.events().await.into_iter();
        events
            .filter_map(|event| event.payload.map(|payload| (event.organization_id, payload)))
            .collect()
    }
}

/// The reason of a failure.
#[track_caller]
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    reason_of(&answer.unwrap_err())
}

pub(crate) fn reason_of(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

pub(crate) fn metadata(status: &Status, key: &str) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .and_then(|info| info.metadata.get(key).cloned())
        .unwrap_or_default()
}

/// The fields of the violations, sorted.
pub(crate) fn violations(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details
        .bad_request()
        .map(|request| request.field_violations.clone())
        .unwrap_or_default();
    let mut fields: Vec<_> = violations.into_iter().map(|violation| violation.field).collect();
    fields.sort();
    fields.dedup();
    fields
}

/// Asks until it holds, at most 20 s.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

pub(crate) fn request_id() -> String {
    Uuid::now_v7().to_string()
}
