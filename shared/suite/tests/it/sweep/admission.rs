//! Who may call what: no credential, a bad one, all permissions but the needed one, only that one.

use api::policy::Scope;
use kit::{Reason, ids::OrgId};
use tonic_types::StatusExt;

use crate::house::SLICES;

use super::{
    Prepared, prepared,
    wire::call,
    world::{TRAIL, World, places},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_in_without_a_valid_credential() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    let bad = world.refused_credentials(&world.a);
    world.quiet().await;
    let before = world.tables(&[]).await;
    for Prepared { method, valid, .. } in calls.iter().filter(|call| call.method.scope != Scope::Public) {
        for slice in places(method) {
            let channel = world.channel(slice);
            call(channel, method.path, "", &valid.message)
                .await
                .refused(Reason::CredentialInvalid);
            for (what, credential) in &bad {
                let mut answer = call(channel, method.path, credential, &valid.message).await;
                answer.what = format!("{} at {slice} with {what}", method.action);
                answer.refused(Reason::CredentialInvalid);
            }
        }
    }
    world.quiet().await;
    assert_eq!(
        world.tables(&[]).await,
        before,
        "a call without a credential leaves nothing"
    );
    all_succeed(&world, &calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_permission_that_an_rpc_names_opens_it() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    let (owner, all) = (&world.a.owner, world.key(&world.a, &["*.*.*"]).await);
    let mut claims = world.claims(owner, 300);
    claims.org = None;
    let without_org = world.signing_key().sign_access("test", &claims);
    let nobody = world.signing_key().sign_access(
        "test",
        &kit::auth::token::AccessClaims {
            org: Some(OrgId::new()),
            ..world.claims(owner, 300)
        },
    );
    let mut others = Vec::new();
    for Prepared { method, .. } in &calls {
        others.push(if method.permission.is_empty() {
            String::new()
        } else {
            world.key_without(&world.a, method.permission).await
        });
    }
    // The keys are exchanged once, so that what follows moves nothing.
    for key in others.iter().chain([&all]).filter(|key| !key.is_empty()) {
        let _ = call(
            world.channel("designs"),
            "/board3.designs.v1.DesignService/ListDesigns",
            key,
            &[],
        )
        .await;
    }
    world.quiet().await;
    let before = world.tables(TRAIL).await;
    for (Prepared { method, valid, .. }, other) in calls.iter().zip(&others) {
        for slice in places(method) {
            let at = async |credential: &str| call(world.channel(slice), method.path, credential, &valid.message).await;
            match method.scope {
                Scope::Public => {}
                Scope::User => {
                    at(&all).await.refused(Reason::CallerNotAllowed);
                    at(&world.peer("audit")).await.refused(Reason::CallerNotAllowed);
                }
                Scope::Organization => {
                    let answer = at(other).await;
                    let told = answer.refused(Reason::PermissionMissing).get_error_details();
                    let told = told.error_info().and_then(|info| info.metadata.get("permission"));
                    assert_eq!(told.map(String::as_str), Some(method.permission), "{}", method.action);
                    at(&nobody).await.refused(Reason::PermissionMissing);
                    at(&without_org).await.refused(Reason::OrganizationRequired);
                    at(&world.peer("audit")).await.refused(Reason::CallerNotAllowed);
                }
                Scope::Peer => {
                    at(&owner.access).await.refused(Reason::CallerNotAllowed);
                    at(&all).await.refused(Reason::CallerNotAllowed);
                }
            }
        }
    }
    world.quiet().await;
    assert_eq!(
        world.tables(TRAIL).await,
        before,
        "a denial changes nothing but the trail"
    );
    all_succeed(&world, &calls).await;
    for Prepared { method, valid, .. } in &calls {
        // Peers of every name that the policy holds, at every service that has the RPC.
        for (slice, peer) in places(method).iter().flat_map(|slice| SLICES.map(|peer| (slice, peer))) {
            if method.scope == Scope::Peer {
                let answer = call(world.channel(slice), method.path, &world.peer(peer), &valid.message).await;
                if method.peers.contains(&"*") || method.peers.contains(&peer) {
                    answer.ok();
                } else {
                    answer.refused(Reason::CallerNotAllowed);
                }
            }
        }
    }
}

/// The positive control: the very messages that were refused succeed with what each RPC needs and nothing more.
async fn all_succeed(world: &World, calls: &[Prepared]) {
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in calls
    {
        // Where none is needed, a bad one plays no part.
        let credential = if method.scope == Scope::Public {
            "garbage"
        } else {
            credential
        };
        world.call(method, credential, &valid.now()).await.ok();
    }
}
