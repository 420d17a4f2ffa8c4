//! What the tables hold, and from whom.

use super::*;

#[tokio::test]
async fn no_value_of_a_plan_stands_in_any_table() {
    let world = World::new().await;
    let state = world.state("state").await;
    let id = Uuid::now_v7().to_string();
    world
        .detect_in(&state, &id, REFRESH_ONLY.as_bytes(), 1 << 20)
        .await
        .unwrap();
    let tables = "select c.relname::text from pg_class c where c.relnamespace = 'terraform_state'::regnamespace and c.relkind = 'r'";
    let tables = world.admin.query(tables, &[]).await.unwrap();
    let mut all = String::new();
    for table in tables {
        let rows = format!(
            "select coalesce(string_agg(t::text, ' '), '') from {} t",
            table.get::<_, String>(0)
        );
        all.push_str(&world.admin.query_one(&rows, &[]).await.unwrap().get::<_, String>(0));
    }
    // Bytes are shown in hex.
    let stands = |text: &str| {
        all.contains(text) || all.contains(&text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    for told in ["fake_server.web", "tags"] {
        assert!(stands(told), "{told} is what the tables are for");
    }
    for value in [
        "hunter2",
        "changed-outside",
        "modpw",
        "nested-secret",
        "mallory",
        "srv-2567a5ec",
        "10.0.0.37",
    ] {
        assert!(REFRESH_ONLY.contains(value) && !stands(value), "{value}");
    }
}

#[tokio::test]
async fn a_value_in_anothers_place_is_not_shown() {
    let world = World::new().await;
    let state = world.state("state").await;
    world.detect(&state, REFRESH_ONLY).await.unwrap();
    let swap = "update drift_logs set before = after, after = before where path like '%env%'";
    assert_eq!(world.admin.execute(swap, &[]).await.unwrap(), 1);
    assert_eq!(
        reason(world.page(ListDriftLogsRequest::default()).await).0,
        "CONTENT_CORRUPT"
    );
}

#[tokio::test]
async fn logs_are_changed_and_deleted_by_nobody() {
    let world = World::new().await;
    let state = world.state("state").await;
    world.detect(&state, REFRESH_ONLY).await.unwrap();
    let app = world
        .served
        .database
        .client(terraform_state::SERVICE.slice, Role::App)
        .await;
    app.batch_execute(&format!("set app.org = '{}'", world.org))
        .await
        .unwrap();
    for statement in ["update drift_logs set masked = true", "delete from drift_logs"] {
        let refused = app.batch_execute(statement).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{statement}");
    }
}
