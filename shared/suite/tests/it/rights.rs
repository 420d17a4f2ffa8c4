//! What identity takes from somebody is taken in every service: roles, memberships, sessions, passwords and keys.
//!
//! Each change is made for a few people, and after its answer each tries every service until it refuses.
//! How long that took is printed; machines differ, so what is asserted is that it does not take long.

use std::time::{Duration, Instant};

use api::identity::v1::{
    ChangePasswordRequest, CreateApiKeyRequest, DisableServiceAccountRequest, LogoutRequest, RemoveMemberRequest,
    RevokeAllSessionsRequest, RevokeApiKeyRequest, SuspendUserRequest, UpdateMemberRequest, UpdateRoleRequest,
};
use api::policy::METHODS;
use futures_util::future::{BoxFuture, join_all};
use kit::Reason;

use crate::{
    house::{House, SLICES},
    story::{Person, reason, request_id},
    sweep::call,
};

/// Whatever is slower than this is broken, not slow.
const BOUND: Duration = Duration::from_secs(20);

/// How many people each thing is taken from.
const PEOPLE: usize = 4;

/// A read of each service that any member may make.
const READS: [(&str, &str); 5] = [
    ("identity", "/board3.identity.v1.OrganizationService/ListMembers"),
    ("designs", "/board3.designs.v1.DesignService/ListDesigns"),
    ("terraform_state", "/board3.terraform_state.v1.StateService/ListStates"),
    ("pipelines", "/board3.pipelines.v1.PipelineService/ListPipelines"),
    ("audit", "/board3.audit.v1.AuditService/ListAuditLogs"),
];

/// One thing that can be taken, and what the credential is told afterwards.
struct Taking {
    what: &'static str,
    /// Takes it from a member of the owner's organization.
    take: for<'a> fn(&'a House, &'a Person, &'a Person) -> BoxFuture<'a, ()>,
    told: &'static [Reason],
}

const TAKINGS: &[Taking] = &[
    Taking {
        what: "a role that allowed it",
        take: |house, owner, member| {
            Box::pin(async {
                let request = UpdateMemberRequest {
                    user_id: member.user.clone(),
                    role: "nothing".to_owned(),
                    request_id: request_id(),
                };
                owner
                    .organizations(house)
                    .update_member(request)
                    .await
                    .expect("UpdateMember");
            })
        },
        told: &[Reason::PermissionMissing],
    },
    Taking {
        what: "a membership",
        take: |house, owner, member| {
            Box::pin(async {
                let request = RemoveMemberRequest {
                    user_id: member.user.clone(),
                    request_id: request_id(),
                };
                owner
                    .organizations(house)
                    .remove_member(request)
                    .await
                    .expect("RemoveMember");
            })
        },
        told: &[Reason::SessionRevoked, Reason::PermissionMissing],
    },
    Taking {
        what: "access, by suspension",
        take: |house, owner, member| {
            Box::pin(async {
                let request = SuspendUserRequest {
                    user_id: member.user.clone(),
                    request_id: request_id(),
                    ..Default::default()
                };
                owner.users(house).suspend_user(request).await.expect("SuspendUser");
            })
        },
        told: &[Reason::SessionRevoked, Reason::PermissionMissing],
    },
    Taking {
        what: "every session, by a new password",
        take: |house, _, member| {
            Box::pin(async {
                let request = ChangePasswordRequest {
                    current_password: member.password.clone(),
                    new_password: format!("another {}", member.password),
                    request_id: request_id(),
                };
                member
                    .auth(house)
                    .change_password(request)
                    .await
                    .expect("ChangePassword");
            })
        },
        told: &[Reason::SessionRevoked],
    },
    Taking {
        what: "a session, by leaving it",
        take: |house, _, member| {
            Box::pin(async {
                member.auth(house).logout(LogoutRequest {}).await.expect("Logout");
            })
        },
        told: &[Reason::SessionRevoked],
    },
    Taking {
        what: "all sessions",
        take: |house, _, member| {
            Box::pin(async {
                let request = RevokeAllSessionsRequest {
                    request_id: request_id(),
                    ..Default::default()
                };
                let other = house.login(&member.email, &member.password).await;
                let revoked = other.sessions(house).revoke_all_sessions(request).await;
                revoked.expect("RevokeAllSessions");
            })
        },
        told: &[Reason::SessionRevoked],
    },
];

/// What the RPC asks for.
fn permission(path: &str) -> String {
    let method = METHODS.iter().find(|method| method.path == path);
    method.expect("it is an RPC").permission.to_owned()
}

/// Tries every service until it refuses for one of these reasons; answers how long each took since `began`.
async fn until_refused(house: &House, credential: &str, told: &[Reason], began: Instant) -> Vec<Duration> {
    let tries = READS.map(async |(slice, path)| {
        let channel = house.door(slice).channel();
        loop {
            match call(&channel, path, credential, &[]).await.result {
                Err(status) => {
                    let named: Vec<_> = told.iter().map(|reason| kit::error::name(*reason)).collect();
                    assert!(
                        named.contains(&reason(&status).as_str()),
                        "{slice}: {status:?}, not {named:?}"
                    );
                    return began.elapsed();
                }
                Ok(_) => assert!(began.elapsed() < BOUND, "{slice} still lets {path} pass"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    join_all(tries).await
}

/// Waits until every service lets the credential read.
async fn until_welcome(house: &House, credential: &str) {
    for (slice, path) in READS {
        let began = Instant::now();
        while let Err(status) = call(&house.door(slice).channel(), path, credential, &[]).await.result {
            assert!(began.elapsed() < BOUND, "{slice} does not let {path} pass: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Prints how long it took, and answers the longest.
fn told(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!(
        "{what}: gone everywhere after {:?} (median), {:?} (p99), {} tries",
        at(50),
        at(99),
        took.len()
    );
    at(100)
}

/// An organization whose role `nothing` allows nothing.
async fn organization(house: &House) -> Person {
    let owner = house.sign_up("ada").await;
    let admin = house.database().admin().await;
    crate::sweep::add_role(&admin, &owner.org, "nothing").await;
    owner
}

async fn taken_from_a_few(house: &House, owner: &Person, taking: &Taking) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..PEOPLE {
        let member = house.member(owner, "bob", "admin").await;
        until_welcome(house, &member.access).await;
        (taking.take)(house, owner, &member).await;
        took.extend(until_refused(house, &member.access, taking.told, Instant::now()).await);
    }
    took
}

#[test]
fn every_service_is_tried() {
    assert_eq!(READS.map(|(slice, _)| slice), SLICES);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_gone_in_every_service() {
    let house = House::shared().await;
    let owner = organization(house).await;
    for taking in TAKINGS {
        let took = taken_from_a_few(house, &owner, taking).await;
        told(taking.what, took);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_gone_in_every_service_also_with_the_feed_cut() {
    let house = House::open().await;
    let owner = organization(&house).await;
    let mut members = Vec::new();
    for _ in TAKINGS {
        let member = house.member(&owner, "bob", "admin").await;
        until_welcome(&house, &member.access).await;
        members.push(member);
    }
    house.redis().process().stop().await.unwrap();
    for (taking, member) in TAKINGS.iter().zip(&members) {
        (taking.take)(&house, &owner, member).await;
        let took = until_refused(&house, &member.access, taking.told, Instant::now()).await;
        told(&format!("without Redis, {}", taking.what), took);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_is_gone_in_every_service() {
    let house = House::shared().await;
    let owner = organization(house).await;
    let mut keys = owner.api_keys(house);
    let mut took = (Vec::new(), Vec::new());
    for _ in 0..PEOPLE {
        let request = |service_account_id: String| CreateApiKeyRequest {
            name: "for a test".to_owned(),
            scopes: READS.map(|(_, path)| permission(path)).to_vec(),
            request_id: request_id(),
            service_account_id,
            ..Default::default()
        };
        let made = keys
            .create_api_key(request(String::new()))
            .await
            .expect("CreateApiKey")
            .into_inner();
        until_welcome(house, &made.secret).await;
        let revoke = RevokeApiKeyRequest {
            api_key_id: made.api_key.unwrap().id,
            request_id: request_id(),
        };
        keys.revoke_api_key(revoke).await.expect("RevokeApiKey");
        let told = [Reason::SessionRevoked, Reason::CredentialInvalid];
        took.0
            .extend(until_refused(house, &made.secret, &told, Instant::now()).await);

        let account = api::identity::v1::CreateServiceAccountRequest {
            name: format!("a robot {}", request_id()),
            role: "admin".to_owned(),
            request_id: request_id(),
            ..Default::default()
        };
        let account = keys
            .create_service_account(account)
            .await
            .expect("CreateServiceAccount");
        let account = account.into_inner().service_account.unwrap().id;
        let made = keys
            .create_api_key(request(account.clone()))
            .await
            .expect("CreateApiKey")
            .into_inner();
        until_welcome(house, &made.secret).await;
        let disable = DisableServiceAccountRequest {
            service_account_id: account,
            request_id: request_id(),
        };
        keys.disable_service_account(disable)
            .await
            .expect("DisableServiceAccount");
        let told = [
            Reason::SessionRevoked,
            Reason::CredentialInvalid,
            Reason::PermissionMissing,
        ];
        took.1
            .extend(until_refused(house, &made.secret, &told, Instant::now()).await);
    }
    told("an API key", took.0);
    told("a service account", took.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_taken_from_a_role_is_taken_from_whoever_has_it() {
    let house = House::shared().await;
    let owner = organization(house).await;
    let role = api::identity::v1::CreateRoleRequest {
        name: "readers".to_owned(),
        permissions: vec!["*.*.read".to_owned()],
        request_id: request_id(),
        ..Default::default()
    };
    let role = owner.roles(house).create_role(role).await.expect("CreateRole");
    let role = role.into_inner().role.unwrap();
    let mut members = Vec::new();
    for _ in 0..PEOPLE {
        let member = house.member(&owner, "bob", "readers").await;
        until_welcome(house, &member.access).await;
        members.push(member);
    }
    let update = UpdateRoleRequest {
        role_id: role.id,
        name: role.name,
        permissions: Vec::new(),
        etag: role.etag,
        request_id: request_id(),
        ..Default::default()
    };
    owner.roles(house).update_role(update).await.expect("UpdateRole");
    let (began, lost) = (Instant::now(), [Reason::PermissionMissing]);
    let tries = members
        .iter()
        .map(|member| until_refused(house, &member.access, &lost, began));
    told("a role's permissions", join_all(tries).await.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_feed_a_left_session_goes_on() {
    let each = [
        ("identity", "BOARD3_WITHOUT", "publish"),
        ("designs", "BOARD3_WITHOUT", "replay"),
    ];
    let house = House::open_each(&[], &each).await;
    let ada = house.sign_up("ada").await;
    let (_, path) = READS[1];
    let designs = house.designs().channel();
    call(&designs, path, &ada.access, &[])
        .await
        .result
        .expect("a session reads");
    ada.auth(&house).logout(LogoutRequest {}).await.expect("Logout");
    // What takes moments otherwise has not happened after seconds.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        call(&designs, path, &ada.access, &[])
            .await
            .result
            .expect("designs hears of nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
