//! The SQL examples for operators run on the schema as it is.

use suite::SERVICES;

const EXAMPLES: &str = include_str!("../../../../docs/database-examples.sql");

#[tokio::test]
async fn every_sql_example_runs_and_changes_nothing() {
    let slices = SERVICES.map(|service| service.slice);
    let database = testkit::database(&slices).await;
    let admin = database.admin().await;
    admin
        .batch_execute(EXAMPLES)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let open = EXAMPLES.lines().filter(|line| *line == "begin;").count();
    let undone = EXAMPLES.lines().filter(|line| *line == "rollback;").count();
    assert!(open == undone && !EXAMPLES.lines().any(|line| line == "commit;"));
    for service in SERVICES {
        let section = format!("./dev psql {}\n", service.slice.name.replace('_', "-"));
        assert!(EXAMPLES.contains(&section), "{section}");
    }
}
