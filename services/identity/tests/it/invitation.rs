//! Invitations: mailed, listed and taken back.

use api::identity::v1::*;
use futures_util::future::join;
use tonic::Status;

use crate::house::{House, Person, reason, violations};

async fn list(
    house: &House,
    who: &Person,
    page_size: i32,
    page_token: &str,
) -> Result<ListInvitationsResponse, Status> {
    let request = ListInvitationsRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    Ok(house
        .organizations(who.token())
        .list_invitations(request)
        .await?
        .into_inner())
}

async fn revoke(house: &House, who: &Person, id: &str) -> Result<(), Status> {
    let request = RevokeInvitationRequest {
        invitation_id: id.to_owned(),
        request_id: String::new(),
    };
    house.organizations(who.token()).revoke_invitation(request).await?;
    Ok(())
}

#[tokio::test]
async fn an_invitation_is_mailed_with_its_token() {
    let house = House::open().await;
    let (ada, grace) = (house.person("ada").await, house.person("grace").await);
    let shown = house.invite(&ada, &grace.email, "viewer").await.unwrap();
    let letter = house.served.mail().wait(&grace.email, "You are invited").await;
    assert_eq!(letter.token(), shown.token);
    house.accept(&grace, letter.token()).await.unwrap();
}

#[tokio::test]
async fn open_invitations_are_listed_newest_first_and_page_by_page() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let grace = house.person("grace").await;
    let mut expected = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let made = house
            .invite(&ada, &format!("{name}@example.com"), "viewer")
            .await
            .unwrap();
        expected.insert(0, made.invitation_id);
    }
    let accepted = house.invite(&ada, &grace.email, "editor").await.unwrap();
    house.accept(&grace, &accepted.token).await.unwrap();
    let lapsed = house
        .invite(&ada, "f@example.com", "viewer")
        .await
        .unwrap()
        .invitation_id;
    house
        .sql(&format!(
            "update invitations set expires_at = now() where id = '{lapsed}'"
        ))
        .await;
    // Of one moment: their ids say which is newer.
    house
        .sql("update invitations set created_at = (select min(created_at) from invitations)")
        .await;
    let (mut seen, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = list(&house, &ada, 2, &page_token).await.unwrap();
        for invitation in &page.invitations {
            assert_eq!(
                (invitation.role.as_str(), &invitation.inviter_id),
                ("viewer", &ada.user)
            );
        }
        seen.extend(page.invitations.into_iter().map(|invitation| invitation.id));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
        assert_eq!(reason(list(&house, &eve, 2, &page_token).await), "PAGE_TOKEN_INVALID");
    }
    assert_eq!((seen, pages), (expected, 3));
    assert_eq!(list(&house, &ada, i32::MAX, "").await.unwrap().invitations.len(), 5);
    assert_eq!(
        violations(&list(&house, &ada, -1, "").await.unwrap_err()),
        ["page_size"]
    );
    assert_eq!(list(&house, &eve, 0, "").await.unwrap().invitations.len(), 0);
}

#[tokio::test]
async fn an_invitation_that_was_taken_back_is_accepted_by_nobody() {
    let house = House::open().await;
    let (ada, eve, grace) = (
        house.person("ada").await,
        house.person("eve").await,
        house.person("grace").await,
    );
    let made = house.invite(&ada, &grace.email, "viewer").await.unwrap();
    assert_eq!(
        reason(revoke(&house, &eve, &made.invitation_id).await),
        "RESOURCE_NOT_FOUND"
    );
    revoke(&house, &ada, &made.invitation_id).await.unwrap();
    assert_eq!(
        reason(revoke(&house, &ada, &made.invitation_id).await),
        "RESOURCE_NOT_FOUND"
    );
    assert_eq!(reason(house.accept(&grace, &made.token).await), "INVITATION_INVALID");
    assert_eq!(list(&house, &ada, 0, "").await.unwrap().invitations.len(), 0);
    assert_eq!(
        violations(&revoke(&house, &ada, "x").await.unwrap_err()),
        ["invitation_id"]
    );
    assert_eq!(house.audited("identity.RevokeInvitation").await.len(), 1);
}

#[tokio::test]
async fn an_invitation_that_is_taken_back_and_accepted_at_once_is_one_of_both() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    for round in 0..5 {
        let person = house.person(&format!("person-{round}")).await;
        let made = house.invite(&ada, &person.email, "viewer").await.unwrap();
        let (revoked, accepted) = join(
            revoke(&house, &ada, &made.invitation_id),
            house.accept(&person, &made.token),
        )
        .await;
        assert_ne!(revoked.is_ok(), accepted.is_ok(), "{revoked:?} {accepted:?}");
    }
}
