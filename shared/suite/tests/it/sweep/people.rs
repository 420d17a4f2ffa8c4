//! What a tenant of the sweep has at identity, and people of their own for calls that change or end an account.

use api::identity::v1::{
    ApiKey, CreateApiKeyRequest, CreateOrganizationRequest, CreateServiceAccountRequest, DeleteOrganizationRequest,
    EnrollTotpRequest, GetMeRequest, GetOrganizationRequest, GetRoleRequest, InviteMemberRequest, InviteMemberResponse,
    Organization, RequestDomainVerificationRequest, RequestPasswordResetRequest, Role, RotateSigningKeyRequest,
    SignUpRequest, SuspendUserRequest, User, VerifyDomainRequest, get_organization_request::Key,
};
use tokio_postgres::Client;
use uuid::Uuid;

use super::world::{Tenant, World};
use suite::totp;

use crate::{
    house::House,
    story::{Person, request_id},
};

/// The organization of the platform.
pub(crate) const PLATFORM: &str = "00000000-0000-7000-8000-000000000000";

/// One of each of what only identity has.
pub(crate) struct Rights {
    /// The role that no other organization has.
    pub(crate) role_id: String,
    pub(crate) api_key: String,
    pub(crate) service_account: String,
    /// An open invitation for somebody's address, by its id and by its token.
    pub(crate) invitation_id: String,
    pub(crate) invitation: String,
    /// A domain that is verified, and a token for another.
    pub(crate) domain: String,
    pub(crate) domain_token: String,
}

impl Rights {
    pub(super) async fn new(house: &House, admin: &Client, owner: &Person, role: &str) -> Rights {
        let sql = "select id::text from identity.roles where org_id = $1::text::uuid and name = $2";
        let found = admin.query_one(sql, &[&owner.org, &role]).await;
        let invited = invite(house, owner).await;
        let (domain, token) = domain(house, owner).await;
        verify(house, owner, &token).await;
        Rights {
            role_id: found.expect("an administrator sees everything").get(0),
            api_key: key(house, owner).await.0.id,
            service_account: service_account(house, owner).await,
            invitation_id: invited.invitation_id,
            invitation: invited.token,
            domain,
            domain_token: self::domain(house, owner).await.1,
        }
    }
}

impl World {
    /// An owner with a session and an organization of their own, which has the tenants' roles too.
    pub(crate) async fn person(&self) -> Person {
        let person = self.house.sign_up("own").await;
        for role in ["bare", "idle"] {
            add_role(&self.admin, &person.org, role).await;
        }
        person
    }

    /// Somebody who owns no organization alone.
    pub(crate) async fn one_of_two_owners(&self) -> Person {
        let person = self.person().await;
        let other = super::world::add_member(&self.admin, &person.org).await;
        let sql = "update identity.organization_members m set role_org_id = o.role_org_id, role_id = o.role_id
            from identity.organization_members o
            where m.org_id = o.org_id and m.user_id = $1::text::uuid and o.user_id = $2::text::uuid";
        let made = self.admin.execute(sql, &[&other, &person.user]).await;
        assert_eq!(made.expect("an administrator makes an owner"), 1);
        person
    }

    /// A new role of an organization, with an etag.
    pub(crate) async fn add_role(&self, owner: &Person) -> Role {
        let request = GetRoleRequest {
            role_id: add_role(&self.admin, &owner.org, &format!("a role {}", unique())).await,
        };
        let found = owner.roles(&self.house).get_role(request).await.expect("GetRole");
        found.into_inner().role.expect("GetRole answers the role")
    }

    /// A new key of the tenant's owner.
    pub(crate) async fn add_key(&self, tenant: &Tenant) -> ApiKey {
        key(&self.house, &tenant.owner).await.0
    }

    /// A new service account of the tenant.
    pub(crate) async fn add_service_account(&self, tenant: &Tenant) -> String {
        service_account(&self.house, &tenant.owner).await
    }

    /// A new invitation by the tenant's owner.
    pub(crate) async fn add_invitation(&self, tenant: &Tenant) -> InviteMemberResponse {
        invite(&self.house, &tenant.owner).await
    }

    /// A token for a domain.
    pub(crate) async fn domain_token(&self, tenant: &Tenant) -> String {
        domain(&self.house, &tenant.owner).await.1
    }

    /// A domain that is verified.
    pub(crate) async fn add_domain(&self, tenant: &Tenant) -> String {
        let (domain, token) = domain(&self.house, &tenant.owner).await;
        verify(&self.house, &tenant.owner, &token).await;
        domain
    }

    /// A member who is kept out.
    pub(crate) async fn add_suspended(&self, tenant: &Tenant) -> String {
        let user_id = self.add_member(tenant).await;
        let request = SuspendUserRequest {
            user_id: user_id.clone(),
            request_id: request_id(),
            ..Default::default()
        };
        tenant
            .owner
            .users(&self.house)
            .suspend_user(request)
            .await
            .expect("SuspendUser");
        user_id
    }

    /// Another organization of somebody's.
    pub(crate) async fn add_organization(&self, owner: &Person) -> Organization {
        let request = CreateOrganizationRequest {
            name: "Another".to_owned(),
            slug: format!("another-{}", &unique()[..16]),
            request_id: request_id(),
        };
        let made = owner.organizations(&self.house).create_organization(request).await;
        let made = made.expect("CreateOrganization").into_inner().organization;
        made.expect("CreateOrganization answers the organization")
    }

    /// The organization that somebody's token is of.
    pub(crate) async fn organization(&self, owner: &Person) -> Organization {
        let request = GetOrganizationRequest {
            key: Some(Key::Id(owner.org.clone())),
        };
        let found = owner.organizations(&self.house).get_organization(request).await;
        let found = found.expect("GetOrganization").into_inner().organization;
        found.expect("GetOrganization answers the organization")
    }

    /// An organization of somebody's that was deleted.
    pub(crate) async fn deleted_organization(&self, owner: &Person) -> String {
        let made = self.add_organization(owner).await;
        let inside = self.house.switch(owner, &made.id).await;
        let request = DeleteOrganizationRequest {
            etag: self.organization(&inside).await.etag,
            request_id: request_id(),
        };
        let deleted = inside.organizations(&self.house).delete_organization(request).await;
        deleted.expect("DeleteOrganization");
        made.id
    }

    /// What somebody's account is like.
    pub(crate) async fn account(&self, person: &Person) -> User {
        let me = person.users(&self.house).get_me(GetMeRequest {}).await;
        me.expect("GetMe").into_inner().user.expect("GetMe answers the user")
    }

    /// A token by which somebody's password can be reset.
    pub(crate) async fn reset_token(&self, person: &Person) -> String {
        let mut watch = self.house.mail().watch().expect("the mail can be read");
        let request = RequestPasswordResetRequest {
            email: person.email.clone(),
        };
        let asked = person.auth(&self.house).request_password_reset(request).await;
        asked.expect("RequestPasswordReset");
        watch.token(&person.email).await.expect("a token was sent")
    }

    /// A token by which a new account can be made.
    pub(crate) async fn sign_up_token(&self) -> String {
        let mut watch = self.house.mail().watch().expect("the mail can be read");
        let request = sign_up();
        let email = request.email.clone();
        let mut public =
            api::identity::v1::auth_service_client::AuthServiceClient::new(self.house.identity().channel());
        public.sign_up(request).await.expect("SignUp");
        watch.token(&email).await.expect("a token was sent")
    }

    /// Somebody whose second factor awaits its first code, and its secret.
    pub(crate) async fn enrolled(&self) -> (Person, String) {
        let person = self.person().await;
        let request = EnrollTotpRequest {
            password: person.password.clone(),
        };
        let enrolled = person.auth(&self.house).enroll_totp(request).await.expect("EnrollTotp");
        (person, enrolled.into_inner().secret)
    }

    /// Somebody with a second factor, its secret, and a recovery code.
    pub(crate) async fn protected(&self) -> (Person, String, String) {
        let (person, secret) = self.enrolled().await;
        let codes = confirm(&self.house, &person, &secret).await;
        (person, secret, codes[0].clone())
    }

    /// Somebody who administers the platform, in its organization.
    pub(crate) async fn administrator(&self) -> Person {
        let person = self.house.sign_up("platform").await;
        let sql = "insert into identity.organization_members (org_id, user_id, role_org_id, role_id)
            select org_id, $1::text::uuid, org_id, id from identity.roles where org_id = $2::text::uuid and name = 'owner'";
        let made = self.admin.execute(sql, &[&person.user, &PLATFORM]).await;
        assert_eq!(made.expect("an administrator makes an administrator"), 1);
        self.house.switch(&person, PLATFORM).await
    }

    /// A key that signs nothing yet.
    pub(crate) async fn add_signing_key(&self, administrator: &Person) -> String {
        let request = RotateSigningKeyRequest {
            request_id: request_id(),
        };
        let made = administrator
            .signing_keys(&self.house)
            .rotate_signing_key(request)
            .await;
        let made = made.expect("RotateSigningKey").into_inner().key;
        made.expect("RotateSigningKey answers the key").key_id
    }
}

/// Confirms with the code before the present one, so that the present one is still good afterwards.
pub(crate) async fn confirm(house: &House, person: &Person, secret: &str) -> Vec<String> {
    // Where a step ends meanwhile, the code is too old.
    for _ in 0..5 {
        let request = api::identity::v1::ConfirmTotpRequest {
            code: totp::code(secret, -1),
        };
        if let Ok(confirmed) = person.auth(house).confirm_totp(request).await {
            return confirmed.into_inner().recovery_codes;
        }
    }
    panic!("no code is good")
}

/// Somebody who signs up.
pub(crate) fn sign_up() -> SignUpRequest {
    let name = format!("swept-{}", &unique()[..16]);
    SignUpRequest {
        email: format!("{name}@example.test"),
        username: name.clone(),
        password: format!("correct {name} staple"),
        first_name: "Swept".to_owned(),
        last_name: "Testson".to_owned(),
        organization_name: "The Swept".to_owned(),
        organization_slug: name,
        request_id: request_id(),
    }
}

/// A role without a permission, written by an administrator.
pub(crate) async fn add_role(admin: &Client, org: &str, name: &str) -> String {
    let sql = "insert into identity.roles (org_id, id, name) values ($1::text::uuid, gen_random_uuid(), $2) returning id::text";
    let made = admin.query_one(sql, &[&org, &name]).await;
    made.expect("an administrator makes a role").get(0)
}

/// A key that lives for a day, and its secret.
async fn key(house: &House, owner: &Person) -> (ApiKey, String) {
    let day = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    let request = CreateApiKeyRequest {
        name: "of the sweep".to_owned(),
        scopes: vec!["identity.api_key.write".to_owned()],
        expires_at: Some(day.into()),
        request_id: request_id(),
        ..Default::default()
    };
    let made = owner.api_keys(house).create_api_key(request).await;
    let made = made.expect("CreateApiKey").into_inner();
    (made.api_key.expect("CreateApiKey answers the key"), made.secret)
}

async fn service_account(house: &House, owner: &Person) -> String {
    let request = CreateServiceAccountRequest {
        name: format!("a robot {}", unique()),
        role: "bare".to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    let made = owner.api_keys(house).create_service_account(request).await;
    let made = made.expect("CreateServiceAccount").into_inner().service_account;
    made.expect("CreateServiceAccount answers it").id
}

async fn invite(house: &House, owner: &Person) -> InviteMemberResponse {
    let request = InviteMemberRequest {
        email: format!("{}@example.test", unique()),
        role: "bare".to_owned(),
        request_id: request_id(),
    };
    let invited = owner.organizations(house).invite_member(request).await;
    invited.expect("InviteMember").into_inner()
}

/// A new domain, and the token that verifies it.
async fn domain(house: &House, owner: &Person) -> (String, String) {
    let domain = format!("{}.example.test", unique());
    let mut watch = house.mail().watch().expect("the mail can be read");
    let request = RequestDomainVerificationRequest {
        domain: domain.clone(),
        request_id: request_id(),
        ..Default::default()
    };
    let asked = owner.organizations(house).request_domain_verification(request).await;
    asked.expect("RequestDomainVerification");
    let token = watch.token(&format!("postmaster@{domain}")).await;
    (domain, token.expect("a token was sent"))
}

async fn verify(house: &House, owner: &Person, token: &str) {
    let request = VerifyDomainRequest {
        token: token.to_owned(),
        request_id: request_id(),
    };
    let verified = owner.organizations(house).verify_domain(request).await;
    verified.expect("VerifyDomain");
}

fn unique() -> String {
    Uuid::new_v4().simple().to_string()
}
