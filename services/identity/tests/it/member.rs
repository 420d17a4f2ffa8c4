//! Invitations, members and roles.

use api::{
    events::v1::{PermissionsChanged, event::Payload},
    identity::v1::*,
};
use futures_util::future::join;
use tonic::Code;
use uuid::Uuid;

use crate::house::{House, Person, eventually, metadata, reason, reason_of, request_id, violations};

#[tokio::test]
async fn an_invitation_makes_its_addressee_a_member_once() {
    let house = House::open().await;
    let (ada, grace, eve) = (
        house.person("ada").await,
        house.person("grace").await,
        house.person("eve").await,
    );
    let invitation = house.invite(&ada, "Grace@Example.com", "editor").await.unwrap();
    assert_eq!(
        reason(house.accept(&eve, &invitation.token).await),
        "INVITATION_INVALID"
    );
    let joined = house.accept(&grace, &invitation.token).await.unwrap();
    assert_eq!(
        (joined.organization_id, joined.role.as_str()),
        (ada.org.clone(), "editor")
    );
    assert_eq!(
        reason(house.accept(&grace, &invitation.token).await),
        "INVITATION_INVALID"
    );

    let told: Vec<_> = house
        .told()
        .await
        .into_iter()
        .filter(|(org, _)| *org == ada.org)
        .collect();
    let changed = Payload::PermissionsChanged(PermissionsChanged { permission_version: 2 });
    assert!(told.contains(&(ada.org.clone(), changed)), "{told:?}");
    assert!(
        told.iter()
            .any(|(_, payload)| matches!(payload, Payload::UserChanged(user) if user.user_id == grace.user))
    );
    let [event] = &house.audited("identity.AcceptInvitation").await[..] else {
        panic!("one event")
    };
    assert_eq!(
        (&event.organization_id, event.resource.clone().unwrap().id),
        (&ada.org, invitation.invitation_id)
    );

    // Already a member: a second invitation gives nothing.
    let again = house.invite(&ada, &grace.email, "owner").await.unwrap();
    assert_eq!(reason(house.accept(&grace, &again.token).await), "INVITATION_INVALID");
}

#[tokio::test]
async fn an_invitation_that_is_over_forged_or_made_up_is_refused_alike() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    let invitation = house.invite(&ada, &grace.email, "viewer").await.unwrap();
    let mut forged = invitation.token.clone().into_bytes();
    forged[50] = if forged[50] == b'A' { b'B' } else { b'A' };
    for token in ["b3i_", "nonsense", std::str::from_utf8(&forged).unwrap()] {
        assert_eq!(reason(house.accept(&grace, token).await), "INVITATION_INVALID");
    }
    house.sql("update invitations set expires_at = now()").await;
    let over = house.accept(&grace, &invitation.token).await.unwrap_err();
    assert_eq!(
        (reason_of(&over).as_str(), over.code()),
        ("INVITATION_INVALID", Code::FailedPrecondition)
    );
    assert_eq!(violations(&house.accept(&grace, "").await.unwrap_err()), ["token"]);
    assert_eq!(house.count("organization_members").await, 2);
}

#[tokio::test]
async fn an_inviter_must_still_be_able_to_give_the_role() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "admin").await;
    let eve = house.person("eve").await;
    let invitation = house.invite(&grace, &eve.email, "admin").await.unwrap();
    house.update_member(&ada, &grace.user, "viewer").await.unwrap();
    assert_eq!(
        reason(house.accept(&eve, &invitation.token).await),
        "INVITATION_INVALID"
    );
}

#[tokio::test]
async fn an_inviter_must_still_be_able_to_invite() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "admin").await;
    let eve = house.person("eve").await;
    // A viewer holds all that a viewer gets, but lets nobody in.
    let invitation = house.invite(&grace, &eve.email, "viewer").await.unwrap();
    house.update_member(&ada, &grace.user, "viewer").await.unwrap();
    assert_eq!(
        reason(house.accept(&eve, &invitation.token).await),
        "INVITATION_INVALID"
    );
    house.update_member(&ada, &grace.user, "admin").await.unwrap();
    assert_eq!(house.accept(&eve, &invitation.token).await.unwrap().role, "viewer");
}

#[tokio::test]
async fn two_who_accept_at_once_with_one_invitation_are_one_member() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    let invitation = house.invite(&ada, &grace.email, "viewer").await.unwrap();
    let (one, other) = join(
        house.accept(&grace, &invitation.token),
        house.accept(&grace, &invitation.token),
    )
    .await;
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1);
}

#[tokio::test]
async fn an_invitation_is_shown_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let request = InviteMemberRequest {
        email: "grace@example.com".to_owned(),
        role: "viewer".to_owned(),
        request_id: request_id(),
    };
    let mut client = house.organizations(ada.token());
    let made = client.invite_member(request.clone()).await.unwrap().into_inner();
    let refused = client.invite_member(request).await.unwrap_err();
    assert_eq!(reason_of(&refused), "SECRET_ALREADY_SHOWN");
    assert_eq!(metadata(&refused, "resource_id"), made.invitation_id);
    assert_eq!(house.count("invitations").await, 1);
}

#[tokio::test]
async fn nobody_gives_or_takes_what_they_do_not_hold() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.colleague(&ada, "admin", "admin").await;
    let viewer = house.colleague(&ada, "viewer", "viewer").await;
    let refused = house.invite(&admin, "new@example.com", "owner").await.unwrap_err();
    assert_eq!(
        (reason_of(&refused).as_str(), refused.code()),
        ("ESCALATION", Code::PermissionDenied)
    );
    assert!(!metadata(&refused, "permissions").is_empty());
    for (user, role) in [(&viewer.user, "owner"), (&admin.user, "owner"), (&ada.user, "viewer")] {
        assert_eq!(
            reason(house.update_member(&admin, user, role).await),
            "ESCALATION",
            "{role}"
        );
    }
    assert_eq!(
        reason(house.invite(&viewer, "new@example.com", "viewer").await),
        "PERMISSION_MISSING"
    );
    assert_eq!(
        house.update_member(&admin, &viewer.user, "editor").await.unwrap().role,
        "editor"
    );

    // A role of the organization's own, with one permission that an admin has not.
    house
        .sql(&format!(
            "insert into roles (org_id, id, name) values ('{org}', '{id}', 'archivist');
             insert into permissions values ('{org}', '{id}', 'audit.audit_log.read')",
            org = ada.org,
            id = Uuid::now_v7(),
        ))
        .await;
    assert_eq!(
        house.update_member(&ada, &viewer.user, "archivist").await.unwrap().role,
        "archivist"
    );
    let members = ListMembersRequest::default();
    eventually("the viewer is an archivist", async || {
        let listed = house.organizations(viewer.token()).list_members(members.clone()).await;
        listed.is_err_and(|status| reason_of(&status) == "PERMISSION_MISSING")
    })
    .await;
}

#[tokio::test]
async fn a_members_new_role_is_felt_within_a_second() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "admin").await;
    house.invite(&grace, "one@example.com", "viewer").await.unwrap();
    let member = house.update_member(&ada, &grace.user, "viewer").await.unwrap();
    assert_eq!(
        (member.user_id.as_str(), member.role.as_str()),
        (grace.user.as_str(), "viewer")
    );
    let started = std::time::Instant::now();
    eventually("the old role is gone", async || {
        house.invite(&grace, "two@example.com", "viewer").await.is_err()
    })
    .await;
    assert!(
        started.elapsed() < std::time::Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    // A change that changes nothing makes no new version.
    let before = house.told().await.len();
    house.update_member(&ada, &grace.user, "viewer").await.unwrap();
    assert_eq!(house.told().await.len(), before);
}

#[tokio::test]
async fn unknown_members_and_roles_are_not_found() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    for (user, role, resource) in [(&eve.user, "viewer", "member"), (&ada.user, "king", "role")] {
        let refused = house.update_member(&ada, user, role).await.unwrap_err();
        assert_eq!(
            (reason_of(&refused).as_str(), metadata(&refused, "resource").as_str()),
            ("RESOURCE_NOT_FOUND", resource)
        );
    }
    assert_eq!(
        reason(house.invite(&ada, "x@example.com", "king").await),
        "RESOURCE_NOT_FOUND"
    );
    assert_eq!(
        violations(&house.update_member(&ada, "x", "").await.unwrap_err()),
        ["role", "user_id"]
    );
    assert_eq!(
        violations(&house.invite(&ada, "", "").await.unwrap_err()),
        ["email", "role"]
    );
}

#[tokio::test]
async fn the_last_owner_stays_one_also_when_two_demote_each_other_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    assert_eq!(
        reason(house.update_member(&ada, &ada.user, "viewer").await),
        "LAST_OWNER"
    );
    let grace = house.colleague(&ada, "grace", "owner").await;
    for _ in 0..10 {
        let (one, other) = join(
            house.update_member(&ada, &grace.user, "viewer"),
            house.update_member(&grace, &ada.user, "viewer"),
        )
        .await;
        let refused = match (one, other) {
            (Ok(_), Err(status)) | (Err(status), Ok(_)) => reason_of(&status),
            both => panic!("{both:?}"),
        };
        assert!(
            ["PERMISSION_MISSING", "LAST_OWNER"].contains(&refused.as_str()),
            "{refused}"
        );
        // Both are owners again, and every token's permissions are seen anew.
        house.sql("update organization_members set role_id = '00000000-0000-7000-8000-000000000001'; update organizations set permission_version = permission_version + 1").await;
        let again = |person: &Person, tokens| Person {
            tokens,
            ..person.clone()
        };
        let (ada_now, grace_now) = (
            house.switch(&ada, &ada.org).await.unwrap(),
            house.switch(&grace, &ada.org).await.unwrap(),
        );
        let (ada_now, grace_now) = (again(&ada, ada_now), again(&grace, grace_now));
        eventually("both are owners", async || {
            house.update_member(&ada_now, &ada.user, "owner").await.is_ok()
                && house.update_member(&grace_now, &grace.user, "owner").await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn an_owner_who_was_just_demoted_demotes_nobody() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "owner").await;
    house.colleague(&ada, "third", "owner").await;
    let (one, other) = join(
        house.update_member(&ada, &grace.user, "viewer"),
        house.update_member(&grace, &ada.user, "viewer"),
    )
    .await;
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} {other:?}");
}

#[tokio::test]
async fn a_repeated_change_of_a_role_is_answered_the_same() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let grace = house.colleague(&ada, "grace", "viewer").await;
    let request = UpdateMemberRequest {
        user_id: grace.user,
        role: "editor".to_owned(),
        request_id: request_id(),
    };
    let mut client = house.organizations(ada.token());
    let first = client.update_member(request.clone()).await.unwrap().into_inner();
    house.sql("update organization_members set role_id = '00000000-0000-7000-8000-000000000005' where role_id = '00000000-0000-7000-8000-000000000003'").await;
    assert_eq!(client.update_member(request.clone()).await.unwrap().into_inner(), first);
    let other = UpdateMemberRequest {
        role: "viewer".to_owned(),
        ..request
    };
    assert_eq!(reason(client.update_member(other).await), "REQUEST_ID_REUSED");
    assert_eq!(house.audited("identity.UpdateMember").await.len(), 1);
}

#[tokio::test]
async fn members_are_listed_oldest_first_and_page_by_page() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let mut expected = vec![ada.email.clone()];
    for name in ["grace", "mary", "joan", "radia"] {
        expected.push(house.colleague(&ada, name, "viewer").await.email);
    }
    let (mut seen, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListMembersRequest {
            page_size: 2,
            page_token,
        };
        let page = house
            .organizations(ada.token())
            .list_members(request)
            .await
            .unwrap()
            .into_inner();
        seen.extend(page.members.into_iter().map(|member| member.email));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if pages == 1 {
            let foreign = ListMembersRequest {
                page_size: 2,
                page_token: page_token.clone(),
            };
            assert_eq!(
                reason(house.organizations(eve.token()).list_members(foreign).await),
                "PAGE_TOKEN_INVALID"
            );
        }
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (expected, 3));
    let negative = ListMembersRequest {
        page_size: -1,
        page_token: String::new(),
    };
    assert_eq!(
        violations(
            &house
                .organizations(ada.token())
                .list_members(negative)
                .await
                .unwrap_err()
        ),
        ["page_size"]
    );
}
