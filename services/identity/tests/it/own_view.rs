//! What users see of themselves is kept, and yet as it is now.

use api::identity::v1::{get_organization_request::Key, *};

use crate::{
    house::{House, Person},
    organization::{create, get, rename},
    totp::{code, disable, protect},
    users,
};

/// Two readings of a user: the second one is a kept one.
async fn seen(house: &House, who: &Person) -> GetMeResponse {
    let me = async || {
        house
            .users(who.token())
            .get_me(GetMeRequest {})
            .await
            .unwrap()
            .into_inner()
    };
    let read = me().await;
    assert_eq!(me().await, read);
    read
}

/// Organizations, and the role in each.
fn roles(me: &GetMeResponse) -> Vec<(&str, &str)> {
    let memberships = me.memberships.iter();
    memberships
        .map(|one| (one.organization_name.as_str(), one.role.as_str()))
        .collect()
}

fn may(me: &GetMeResponse, permission: &str) -> bool {
    me.memberships
        .iter()
        .any(|one| one.permissions.iter().any(|held| held == permission))
}

#[tokio::test]
async fn every_change_of_what_users_see_of_themselves_is_seen_at_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let role = house
        .create_role(ada.token(), "drawer", &["designs.design.read"])
        .await
        .unwrap();
    let bob = house.person("bob").await;
    assert_eq!(roles(&seen(&house, &bob).await), [("bob inc", "owner")]);

    let invited = house.invite(&ada, &bob.email, "drawer").await.unwrap();
    house.accept(&bob, &invited.token).await.unwrap();
    let there = seen(&house, &bob).await;
    assert_eq!(roles(&there), [("bob inc", "owner"), ("ada inc", "drawer")]);
    let current: Vec<bool> = there.memberships.iter().map(|one| one.current).collect();
    assert_eq!(current, [true, false]);

    // Which organization is current is the session's.
    let switched = Person {
        tokens: house.switch(&bob, &ada.org).await.unwrap(),
        org: ada.org.clone(),
        ..bob.clone()
    };
    let current: Vec<bool> = seen(&house, &switched)
        .await
        .memberships
        .iter()
        .map(|one| one.current)
        .collect();
    assert_eq!(current, [false, true]);
    let bob = switched;

    // Only what the other organization gives: bob owns one.
    let given = async || {
        let me = seen(&house, &bob).await;
        let memberships = me
            .memberships
            .into_iter()
            .filter(|one| one.organization_id == ada.org)
            .collect();
        GetMeResponse { memberships, ..me }
    };
    assert!(!may(&given().await, "designs.design.write"));
    let wider = ["designs.design.read", "designs.design.write"];
    let role = house.update_role(ada.token(), &role, &wider).await.unwrap();
    assert!(may(&given().await, "designs.design.write"));
    let renamed = Role {
        name: "artist".to_owned(),
        ..role
    };
    house.update_role(ada.token(), &renamed, &wider).await.unwrap();
    assert_eq!(roles(&given().await), [("ada inc", "artist")]);
    house.update_member(&ada, &bob.user, "viewer").await.unwrap();
    assert_eq!(roles(&given().await), [("ada inc", "viewer")]);
    let before = get(&house, &ada, Key::Id(ada.org.clone())).await.unwrap();
    rename(&house, &ada, "Engines", "", &before.etag).await.unwrap();
    assert_eq!(roles(&given().await), [("Engines", "viewer")]);

    users::rename(&house, &bob, "Robert").await.unwrap();
    assert_eq!(seen(&house, &bob).await.user.unwrap().first_name, "Robert");
    let (secret, _) = protect(&house, &bob).await;
    assert!(seen(&house, &bob).await.user.unwrap().totp);
    disable(&house, &bob, crate::house::PASSWORD, &code(&secret, 0))
        .await
        .unwrap();
    assert!(!seen(&house, &bob).await.user.unwrap().totp);

    let made = create(&house, &bob, "third", "").await.unwrap();
    assert_eq!(seen(&house, &bob).await.memberships.len(), 3);
    let there = Person {
        tokens: house.switch(&bob, &made.id).await.unwrap(),
        org: made.id.clone(),
        ..bob.clone()
    };
    let request = DeleteOrganizationRequest {
        etag: made.etag,
        request_id: String::new(),
    };
    house
        .organizations(there.token())
        .delete_organization(request)
        .await
        .unwrap();
    let bob = Person {
        tokens: house.login(&bob.email).await,
        ..bob
    };
    assert_eq!(seen(&house, &bob).await.memberships.len(), 2);
    let request = UndeleteOrganizationRequest {
        organization_id: made.id,
        request_id: String::new(),
    };
    house
        .organizations(bob.token())
        .undelete_organization(request)
        .await
        .unwrap();
    assert_eq!(seen(&house, &bob).await.memberships.len(), 3);
}
