//! Users' names, as identity tells them.

use api::{
    designs::v1::{Creator, ListDesignsRequest},
    events::v1::{UserChanged, event::Payload},
};
use kit::ids::{OrgId, UserId};

use crate::world::{World, canvas};

fn called(user: UserId, first_name: &str, version: i64) -> Payload {
    Payload::UserChanged(UserChanged {
        user_id: user.to_string(),
        first_name: first_name.to_owned(),
        last_name: "Lovelace".to_owned(),
        version,
    })
}

#[tokio::test]
async fn a_name_is_shown_once_known_and_an_older_version_is_ignored() {
    let world = World::new().await;
    let ada = world.designer();
    let mut told = 0;
    let mut tell = async |org: OrgId, first_name: &str, version: i64| {
        world.served.office.tell(org, called(ada.id, first_name, version));
        told += 1;
        world.applied("designs.user_names", told).await;
    };
    let mut client = world.designer_of(world.org, ada.id);
    let made = client.draw(canvas(["a"])).await;
    let creator = |first_name: &str, last_name: &str| {
        Some(Creator {
            id: ada.id.to_string(),
            first_name: first_name.to_owned(),
            last_name: last_name.to_owned(),
        })
    };
    assert_eq!(client.get(&made.id).await.unwrap().creator, creator("", ""));
    for (first_name, version, shown) in [
        ("Ada", 2, "Ada"),
        ("Adda", 1, "Ada"),
        ("Augusta", 3, "Augusta"),
        ("Gus", 3, "Augusta"),
    ] {
        tell(world.org, first_name, version).await;
        // Twice: what the first read cached, the second one shows.
        for _ in 0..2 {
            assert_eq!(client.get(&made.id).await.unwrap().creator, creator(shown, "Lovelace"));
        }
        let listed = client.list(ListDesignsRequest::default()).await.unwrap().designs;
        assert_eq!(listed[0].creator, creator(shown, "Lovelace"));
    }
    // The same user is told of in each of their organizations.
    tell(OrgId::new(), "Elsewhere", 9).await;
    assert_eq!(
        client.get(&made.id).await.unwrap().creator,
        creator("Augusta", "Lovelace")
    );
    assert_eq!(
        client.rename(&made, "renamed").await.unwrap().creator,
        creator("Augusta", "Lovelace")
    );
    assert_eq!(world.number("select count(*) from user_names").await, 2);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}
