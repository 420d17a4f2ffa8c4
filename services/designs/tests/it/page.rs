//! Lists, page by page.

use std::collections::BTreeSet;

use api::designs::v1::{DesignStatus, ListDesignsRequest, ListTemplatesRequest};
use kit::ids::{OrgId, UserId};

use crate::world::{Designer, World, canvas, new, reason};

/// The names on each page.
async fn pages(designer: &mut Designer, mut request: ListDesignsRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = designer.list(request.clone()).await.unwrap();
        assert!(page.designs.iter().all(|design| design.canvas.is_none()));
        pages.push(page.designs.into_iter().map(|design| design.name).collect());
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test]
async fn designs_come_last_updated_first_by_status_and_by_creator() {
    let world = World::new().await;
    let (mut ada, mut bob) = (world.designer(), world.designer());
    let mut foreign = world.designer_of(OrgId::new(), UserId::new());
    let mut made = Vec::new();
    for index in 0..7 {
        let designer = if index % 2 == 0 { &mut ada } else { &mut bob };
        made.push(designer.make(new(&format!("d{index}"), canvas(["a"]))).await.unwrap());
        foreign.make(new("foreign", canvas(["a"]))).await.unwrap();
    }
    ada.rename(&made[1], "d1 again").await.unwrap();
    bob.publish(&made[4].id, "").await.unwrap();
    ada.delete(&made[2].id, "").await.unwrap();
    let of_size = |page_size| ListDesignsRequest {
        page_size,
        ..Default::default()
    };
    let everything = ["d4", "d1 again", "d6", "d5", "d3", "d0"];
    assert_eq!(pages(&mut ada, of_size(0)).await, [everything]);
    assert_eq!(pages(&mut bob, of_size(6)).await, [everything]);
    assert_eq!(pages(&mut ada, of_size(4)).await, [&everything[..4], &everything[4..]]);
    assert_eq!(pages(&mut ada, of_size(1)).await.concat(), everything);
    let by_bob = ListDesignsRequest {
        creator_id: bob.id.to_string(),
        ..of_size(2)
    };
    assert_eq!(
        pages(&mut ada, by_bob.clone()).await,
        [vec!["d1 again", "d5"], vec!["d3"]]
    );
    let drafts = ListDesignsRequest {
        status: DesignStatus::Draft.into(),
        ..by_bob.clone()
    };
    assert_eq!(pages(&mut ada, drafts).await.concat(), ["d1 again", "d5", "d3"]);
    for (status, expected) in [(DesignStatus::Published, vec!["d4"]), (DesignStatus::Archived, vec![])] {
        let only = ListDesignsRequest {
            status: status.into(),
            ..of_size(0)
        };
        assert_eq!(pages(&mut ada, only).await, [expected]);
    }

    let token = ada.list(by_bob.clone()).await.unwrap().next_page_token;
    let elsewhere = ListDesignsRequest {
        page_token: token.clone(),
        ..of_size(2)
    };
    assert_eq!(reason(ada.list(elsewhere).await).0, "PAGE_TOKEN_INVALID");
    let theirs = ListDesignsRequest {
        page_token: token.clone(),
        ..by_bob
    };
    assert_eq!(reason(foreign.list(theirs).await).0, "PAGE_TOKEN_INVALID");
    let templates = ListTemplatesRequest {
        page_token: token,
        ..Default::default()
    };
    assert_eq!(
        reason(ada.templates.list_templates(templates).await).0,
        "PAGE_TOKEN_INVALID"
    );
    let nonsense = ListDesignsRequest {
        page_token: "nonsense".to_owned(),
        ..of_size(0)
    };
    assert_eq!(reason(ada.list(nonsense).await).0, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn designs_written_in_the_same_moment_are_each_listed_once() {
    let world = World::new().await;
    let mut ada = world.designer();
    for index in 0..9 {
        ada.make(new(&format!("d{index}"), canvas(["a"]))).await.unwrap();
    }
    world
        .admin
        .batch_execute("update designs set updated_at = '2026-01-01'")
        .await
        .unwrap();
    let pages = pages(
        &mut ada,
        ListDesignsRequest {
            page_size: 2,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(pages.len(), 5);
    assert_eq!(pages.concat().into_iter().collect::<BTreeSet<_>>().len(), 9);
}

#[tokio::test]
async fn a_page_of_long_descriptions_fits_in_a_message() {
    let world = World::new().await;
    let mut ada = world.designer();
    let fill = "insert into designs (org_id, id, name, description, cloud_provider, canvas, canvas_hash, creator_kind, creator_id)
        select $1::text::uuid, gen_random_uuid(), 'long', repeat('€', 4000), 'aws', '{}', sha256('{}'), 'user', gen_random_uuid()
        from generate_series(1, 1000)";
    world.admin.execute(fill, &[&world.org.to_string()]).await.unwrap();
    // The client refuses messages above 4 MiB.
    let pages = pages(
        &mut ada,
        ListDesignsRequest {
            page_size: 1_000,
            ..Default::default()
        },
    )
    .await;
    assert!(pages.len() >= 3, "{} pages", pages.len());
    assert_eq!(pages.concat().len(), 1_000);
}
