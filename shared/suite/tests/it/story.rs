//! What people do in a suite, in single calls: sign up, log in, invite each other, draw.

use api::{
    audit::v1::audit_service_client::AuditServiceClient,
    designs::v1::{
        CloudProvider, CreateDesignRequest, Design, GetDesignRequest, design_service_client::DesignServiceClient,
    },
    identity::v1::{
        AcceptInvitationRequest, CreateApiKeyRequest, InviteMemberRequest, LoginRequest, SessionTokens, SignUpRequest,
        SwitchOrganizationRequest, api_key_service_client::ApiKeyServiceClient, auth_service_client::AuthServiceClient,
        organization_service_client::OrganizationServiceClient, role_service_client::RoleServiceClient,
        session_service_client::SessionServiceClient, signing_key_service_client::SigningKeyServiceClient,
        user_service_client::UserServiceClient,
    },
};
use suite::mail;
use testkit::Caller;
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::house::House;

/// Somebody signed in, and the organization that the token is of.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) user: String,
    pub(crate) org: String,
    pub(crate) email: String,
    pub(crate) password: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) session: String,
}

/// An API key, as it is shown once.
#[derive(Clone, Debug)]
pub(crate) struct ApiKey {
    pub(crate) secret: String,
}

impl House {
    /// A new user, owner of a new organization, signed in. Names are made unique.
    pub(crate) async fn sign_up(&self, name: &str) -> Person {
        let password = format!("correct {} staple", Uuid::new_v4().simple());
        self.sign_up_as(name, &password).await
    }

    /// As [`House::sign_up`], with this password.
    pub(crate) async fn sign_up_as(&self, name: &str, password: &str) -> Person {
        let unique = format!("{name}-{}", &Uuid::new_v4().simple().to_string()[..12]);
        let request = SignUpRequest {
            email: format!("{unique}@example.test"),
            username: unique.clone(),
            password: password.to_owned(),
            first_name: name.to_owned(),
            last_name: "Testson".to_owned(),
            organization_name: format!("House of {name}"),
            organization_slug: unique,
            request_id: request_id(),
        };
        let email = request.email.clone();
        mail::join(self.identity().channel(), self.mail(), request)
            .await
            .expect("SignUp and VerifyEmail");
        self.login(&email, password).await
    }

    /// Signs in.
    pub(crate) async fn login(&self, email: &str, password: &str) -> Person {
        self.try_login(email, password).await.expect("Login")
    }

    /// Signs in, or not.
    pub(crate) async fn try_login(&self, email: &str, password: &str) -> Result<Person, Status> {
        let request = LoginRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            device: "a test".to_owned(),
            ..LoginRequest::default()
        };
        let answer = AuthServiceClient::new(self.identity().channel()).login(request).await?;
        let tokens = answer.into_inner().tokens.expect("Login answers tokens");
        let person = Person {
            user: String::new(),
            org: String::new(),
            email: email.to_owned(),
            password: password.to_owned(),
            access: String::new(),
            refresh: String::new(),
            session: String::new(),
        };
        let mut person = person.holding(tokens);
        let me = person.users(self).get_me(api::identity::v1::GetMeRequest {}).await?;
        person.user = me.into_inner().user.expect("GetMe answers the user").id;
        Ok(person)
    }

    /// Makes an API key.
    pub(crate) async fn api_key(&self, owner: &Person, scopes: &[&str]) -> ApiKey {
        let request = CreateApiKeyRequest {
            name: "for a test".to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            request_id: request_id(),
            ..CreateApiKeyRequest::default()
        };
        let made = owner
            .api_keys(self)
            .create_api_key(request)
            .await
            .expect("CreateApiKey")
            .into_inner();
        ApiKey { secret: made.secret }
    }

    /// A new user who has accepted `owner`'s invitation to this role and is signed in to `owner`'s organization.
    pub(crate) async fn member(&self, owner: &Person, name: &str, role: &str) -> Person {
        let person = self.sign_up(name).await;
        let invitation = InviteMemberRequest {
            email: person.email.clone(),
            role: role.to_owned(),
            request_id: request_id(),
        };
        let invited = owner
            .organizations(self)
            .invite_member(invitation)
            .await
            .expect("InviteMember")
            .into_inner();
        let acceptance = AcceptInvitationRequest {
            token: invited.token,
            request_id: request_id(),
        };
        person
            .organizations(self)
            .accept_invitation(acceptance)
            .await
            .expect("AcceptInvitation");
        self.switch(&person, &owner.org).await
    }

    /// The same user, signed in to another organization.
    pub(crate) async fn switch(&self, person: &Person, org: &str) -> Person {
        let request = SwitchOrganizationRequest {
            organization_id: org.to_owned(),
        };
        let answer = person
            .auth(self)
            .switch_organization(request)
            .await
            .expect("SwitchOrganization");
        person
            .clone()
            .holding(answer.into_inner().tokens.expect("SwitchOrganization answers tokens"))
    }

    /// A blank design.
    pub(crate) async fn design(&self, person: &Person, name: &str) -> Design {
        let answer = person
            .designs(self)
            .create_design(blank(name))
            .await
            .expect("CreateDesign");
        answer.into_inner().design.expect("CreateDesign answers the design")
    }

    /// Reads a design.
    pub(crate) async fn read_design(&self, person: &Person, id: &str) -> Result<Design, Status> {
        let answer = person
            .designs(self)
            .get_design(GetDesignRequest {
                design_id: id.to_owned(),
            })
            .await?;
        Ok(answer.into_inner().design.expect("GetDesign answers the design"))
    }
}

impl Person {
    /// With these tokens.
    pub(crate) fn holding(mut self, tokens: SessionTokens) -> Person {
        self.org = tokens.organization_id;
        self.access = tokens.access_token;
        self.refresh = tokens.refresh_token;
        self.session = tokens.session_id;
        self
    }

    /// identity's AuthService in this person's name.
    pub(crate) fn auth(&self, house: &House) -> AuthServiceClient<Caller> {
        AuthServiceClient::new(house.identity().with(&self.access))
    }

    /// identity's UserService in this person's name.
    pub(crate) fn users(&self, house: &House) -> UserServiceClient<Caller> {
        UserServiceClient::new(house.identity().with(&self.access))
    }

    /// identity's ApiKeyService in this person's name.
    pub(crate) fn api_keys(&self, house: &House) -> ApiKeyServiceClient<Caller> {
        ApiKeyServiceClient::new(house.identity().with(&self.access))
    }

    /// identity's OrganizationService in this person's name.
    pub(crate) fn organizations(&self, house: &House) -> OrganizationServiceClient<Caller> {
        OrganizationServiceClient::new(house.identity().with(&self.access))
    }

    /// identity's RoleService in this person's name.
    pub(crate) fn roles(&self, house: &House) -> RoleServiceClient<Caller> {
        RoleServiceClient::new(house.identity().with(&self.access))
    }

    /// identity's SessionService in this person's name.
    pub(crate) fn sessions(&self, house: &House) -> SessionServiceClient<Caller> {
        SessionServiceClient::new(house.identity().with(&self.access))
    }

    /// identity's SigningKeyService in this person's name.
    pub(crate) fn signing_keys(&self, house: &House) -> SigningKeyServiceClient<Caller> {
        SigningKeyServiceClient::new(house.identity().with(&self.access))
    }

    /// designs' DesignService in this person's name.
    pub(crate) fn designs(&self, house: &House) -> DesignServiceClient<Caller> {
        DesignServiceClient::new(house.designs().with(&self.access))
    }

    /// audit's AuditService in this person's name.
    pub(crate) fn audit(&self, house: &House) -> AuditServiceClient<Caller> {
        AuditServiceClient::new(house.audit().with(&self.access))
    }
}

/// A new request id.
pub(crate) fn request_id() -> String {
    Uuid::now_v7().to_string()
}

/// A design without anything drawn.
pub(crate) fn blank(name: &str) -> CreateDesignRequest {
    CreateDesignRequest {
        name: name.to_owned(),
        cloud_provider: CloudProvider::Builtin.into(),
        request_id: request_id(),
        ..CreateDesignRequest::default()
    }
}

/// The reason that a status carries; empty for none.
pub(crate) fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// The request id that a status carries; empty for none.
pub(crate) fn told_request_id(status: &Status) -> String {
    status
        .get_details_request_info()
        .map(|info| info.request_id)
        .unwrap_or_default()
}
