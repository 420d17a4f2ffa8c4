//! Logs, page by page.

use super::*;

#[tokio::test]
async fn another_organizations_state_and_its_logs_are_not_there() {
    let world = World::new().await;
    let state = world.state("mine").await;
    let found = world.detect(&state, REFRESH_ONLY).await.unwrap();
    let unknown = Uuid::now_v7().to_string();
    assert_eq!(
        reason(world.detect(&unknown, REFRESH_ONLY).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let stranger = world.served.caller(OrgId::new(), &["terraform_state.*.*"]);
    let theirs = detect_as(&stranger, &state, "", REFRESH_ONLY.as_bytes(), 1 << 20).await;
    assert_eq!(reason(theirs).0, "RESOURCE_NOT_FOUND");
    let mut client = DriftServiceClient::new(stranger);
    for (state_id, check_id) in [("", found.check_id.as_str()), ("", "")] {
        let request = ListDriftLogsRequest {
            state_id: state_id.to_owned(),
            check_id: check_id.to_owned(),
            ..Default::default()
        };
        let listed = client.list_drift_logs(request).await.unwrap().into_inner();
        assert_eq!(listed, ListDriftLogsResponse::default());
    }
    for state_id in [state, unknown] {
        let request = ListDriftLogsRequest {
            state_id,
            ..Default::default()
        };
        assert_eq!(reason(client.list_drift_logs(request).await).0, "RESOURCE_NOT_FOUND");
    }
    assert_eq!(world.number("select count(*) from drift_logs").await, 5);
}

#[tokio::test]
async fn logs_are_listed_newest_first_by_state_and_by_check() {
    let world = World::new().await;
    let (one, two) = (world.state("one").await, world.state("two").await);
    let mut checks = Vec::new();
    for (index, state) in [&one, &two, &one].into_iter().enumerate() {
        let address = |n| format!("fake_server.s{index}[{n}]");
        let entries = (0..3)
            .map(|n| update(&address(n), json!({"size": 1}), json!({"size": 2})))
            .collect();
        checks.push(world.detect(state, plan(entries)).await.unwrap().check_id);
    }
    let everything: Vec<String> = [2, 1, 0]
        .iter()
        .flat_map(|index| (0..3).map(move |n| format!("fake_server.s{index}[{n}]")))
        .collect();
    let list = async |mut request: ListDriftLogsRequest| {
        let mut pages: Vec<Vec<String>> = Vec::new();
        loop {
            let page = world.page(request.clone()).await.unwrap();
            pages.push(page.drift_logs.into_iter().map(|log| log.address).collect());
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return pages;
            }
        }
    };
    let of = |state_id: &str, check_id: &str, page_size| ListDriftLogsRequest {
        state_id: state_id.to_owned(),
        check_id: check_id.to_owned(),
        page_size,
        ..Default::default()
    };
    assert_eq!(list(of("", "", 0)).await, [everything.as_slice()]);
    assert_eq!(list(of("", "", 9)).await, [everything.as_slice()]);
    assert_eq!(list(of("", "", 4)).await, everything.chunks(4).collect::<Vec<_>>());
    assert_eq!(
        list(of(&one, "", 1)).await.concat(),
        [&everything[..3], &everything[6..]].concat()
    );
    assert_eq!(list(of(&two, "", 2)).await.concat(), everything[3..6]);
    assert_eq!(list(of("", &checks[2], 2)).await.concat(), everything[..3]);
    assert_eq!(list(of(&one, &checks[0], 2)).await.concat(), everything[6..]);
    assert_eq!(list(of(&two, &checks[0], 2)).await.concat(), [""; 0]);

    let token = world.page(of(&one, "", 2)).await.unwrap().next_page_token;
    for request in [of("", "", 2), of(&two, "", 2), of(&one, &checks[0], 2)] {
        let elsewhere = ListDriftLogsRequest {
            page_token: token.clone(),
            ..request
        };
        assert_eq!(reason(world.page(elsewhere).await).0, "PAGE_TOKEN_INVALID");
    }
    let wrong = reason(world.page(of("x", "y", -1)).await);
    assert_eq!(
        wrong,
        (
            "INVALID_REQUEST".to_owned(),
            ["state_id", "check_id", "page_size"].map(str::to_owned).to_vec()
        )
    );
}

#[tokio::test]
async fn a_page_of_long_values_fits_in_a_message() {
    let world = World::new().await;
    let state = world.state("long").await;
    let long = |word: &str| word.repeat(16_000 / word.len());
    let entry = |n| {
        update(
            &format!("fake_server.n[{n}]"),
            json!({"text": long("old ")}),
            json!({"text": long("new ")}),
        )
    };
    let found = world.detect(&state, plan((0..160).map(entry).collect())).await.unwrap();
    assert_eq!(found.drift_logs, 160);
    // The client refuses messages above 4 MiB.
    let mut request = ListDriftLogsRequest {
        page_size: 1_000,
        ..Default::default()
    };
    let mut lengths = Vec::new();
    loop {
        let page = world.page(request.clone()).await.unwrap();
        assert!(page.drift_logs.iter().all(|log| !log.masked));
        lengths.push(page.drift_logs.len());
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert!(lengths.len() > 1 && lengths.iter().sum::<usize>() == 160, "{lengths:?}");
}

#[tokio::test]
async fn every_list_is_planned_on_its_index() {
    let world = World::new().await;
    let state = world.state("state").await;
    world.detect(&state, REFRESH_ONLY).await.unwrap();
    let fill = format!(
        "insert into drift_logs (org_id, id, state_id, check_id, last_check_id, address, resource_type, kind, path, masked,
            fingerprint, status, severity, resolved_at)
        select org_id, gen_random_uuid(), state_id, check_id, check_id, 'a', 't', 'changed', 'p', true,
            sha256(n::text::bytea), case when n % 500 = 0 then 'accepted' else 'resolved' end::drift_status,
            case when n % 500 = 0 then 'critical' else 'info' end::drift_severity, case when n % 500 = 0 then null else now() end
        from (select * from drift_logs limit 1) one, generate_series(1, 5000) n;
        insert into drift_changes (org_id, state_id, number, drift_log_id, after, reason, check_id)
        select org_id, state_id, 100 + row_number() over (), id, 'open', '', check_id from drift_logs;
        insert into drift_sightings select org_id, check_id, id from drift_logs on conflict do nothing;
        insert into drift_views (org_id, state_id, place, check_id, address, resource_type, path, cause, masked)
        select org_id, state_id, 100 + n, check_id, 'a' || n / 10, 't', '', case when n % 50 = 0 then 'drifted' else 'in_sync' end::drift_cause, false
        from (select * from drift_logs limit 1) one, generate_series(1, 5000) n;
        alter table drift_logs drop constraint drift_logs_state_fkey;
        alter table drift_checks drop constraint drift_checks_state_fkey;
        insert into drift_logs (org_id, id, state_id, check_id, last_check_id, address, resource_type, kind, path, masked, fingerprint)
        select case when n % 2 = 0 then '{}'::uuid else gen_random_uuid() end, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
            gen_random_uuid(), 'a', 't', 'changed', 'p', true, sha256(n::text::bytea)
        from generate_series(1, 20000) n;
        insert into drift_checks (org_id, id, state_id, number, errored, drifted_resources, normalised_resources, moved_resources,
            unapplied_resources, failed_checks, truncated, checked_at)
        select org_id, gen_random_uuid(), state_id, 1, false, 0, 0, 0, 0, 0, false, now() - interval '1 year' from drift_logs
        where state_id <> (select state_id from drift_changes limit 1);
        analyze",
        world.org
    );
    world.admin.batch_execute(&fill).await.unwrap();
    let app = world
        .served
        .database
        .client(terraform_state::SERVICE.slice, Role::App)
        .await;
    app.batch_execute(&format!("set app.org = '{}'", world.org))
        .await
        .unwrap();
    let org = world.org;
    let none = Uuid::now_v7();
    let logs = |condition: &str| {
        format!(
            "select * from drift_logs where org_id = '{org}' {condition} and id < '{}' order by id desc limit 51",
            Uuid::max()
        )
    };
    for (query, index) in [
        (logs(""), "drift_logs_pkey"),
        (logs(&format!("and state_id = '{none}'")), "drift_logs_state_idx"),
        (
            format!(
                "select * from drift_logs where org_id = '{org}' and state_id = '{state}' and fingerprint = '\\x00'"
            ),
            "drift_logs_fingerprint_key",
        ),
        (
            format!(
                "select count(*) from drift_logs where org_id = '{org}' and detected_at > now() + interval '1 day'"
            ),
            "drift_logs_detected_idx",
        ),
        (
            format!(
                "select count(*) from drift_logs where org_id = '{org}' and resolved_at > now() + interval '1 day'"
            ),
            "drift_logs_resolved_idx",
        ),
        (
            format!(
                "select * from drift_sightings where org_id = '{org}' and check_id = '{none}' and drift_log_id = '{none}'"
            ),
            "drift_sightings_pkey",
        ),
        (
            format!("select * from drift_checks where org_id = '{org}' and checked_at > now() - interval '1 day'"),
            "drift_checks_checked_idx",
        ),
        (
            format!(
                "select * from drift_checks where org_id = '{org}' and state_id = '{none}' order by number desc limit 1"
            ),
            "drift_checks_number_key",
        ),
        (
            format!(
                "select * from drift_changes where org_id = '{org}' and state_id = '{state}' and number > 9 order by number limit 51"
            ),
            "drift_changes_pkey",
        ),
        (
            format!(
                "select * from drift_changes where org_id = '{org}' and drift_log_id = '{none}' order by number desc limit 51"
            ),
            "drift_changes_log_idx",
        ),
        (
            format!(
                "select * from drift_views where org_id = '{org}' and state_id = '{state}' and place > 9 order by place limit 51"
            ),
            "drift_views_pkey",
        ),
        (
            format!(
                "select * from drift_views where org_id = '{org}' and state_id = '{state}' and address = 'a7' and place > 9 order by place limit 51"
            ),
            "drift_views_address_idx",
        ),
    ] {
        let rows = app.query(&format!("explain (costs off) {query}"), &[]).await.unwrap();
        let plan = rows
            .iter()
            .map(|row| row.get::<_, String>(0))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            plan.contains(index) && !plan.contains("Seq Scan") && !plan.contains("Sort"),
            "{query}:\n{plan}"
        );
    }
}

#[tokio::test]
async fn a_job_has_drift_of_its_own_state_alone() {
    let world = World::new().await;
    let (own, other) = (world.state("own").await, world.state("other").await);
    world.detect(&other, REFRESH_ONLY).await.unwrap();
    let credential = world.served.office.job(world.org, &["terraform_state.*.*"], "", "own");
    let job = world.served.with(&credential);
    detect_as(&job, &own, "", REFRESH_ONLY.as_bytes(), 1 << 20)
        .await
        .unwrap();
    let mut client = DriftServiceClient::new(job.clone());
    let mut list = async |state_id: &str| {
        let request = ListDriftLogsRequest {
            state_id: state_id.to_owned(),
            ..Default::default()
        };
        client.list_drift_logs(request).await
    };
    assert_eq!(list(&own).await.unwrap().into_inner().drift_logs.len(), 5);
    let refused = detect_as(&job, &other, "", REFRESH_ONLY.as_bytes(), 1 << 20).await;
    assert_eq!(reason(refused).0, "CALLER_NOT_ALLOWED");
    for state in [&other, ""] {
        assert_eq!(reason(list(state).await).0, "CALLER_NOT_ALLOWED");
    }
}
