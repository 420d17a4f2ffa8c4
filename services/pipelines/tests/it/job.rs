//! Job credentials: good while the lease lasts, for one design and one state, and known to nobody afterwards.

use api::pipelines::v1::{
    CheckJobCredentialRequest, CheckJobCredentialResponse, GetJobsRequest, JobStanding, Lease, StageKind,
    job_service_client::JobServiceClient,
};
use testkit::Caller;
use tonic::Status;

use crate::runner_world::{Yard, done, only, reason, violated, wait};

async fn check(yard: &Yard, peer: &str, credential: &str) -> Result<CheckJobCredentialResponse, Status> {
    check_as(yard.served.peer(peer), credential).await
}

async fn check_as(caller: Caller, credential: &str) -> Result<CheckJobCredentialResponse, Status> {
    let request = CheckJobCredentialRequest {
        job_credential: credential.to_owned(),
    };
    let answer = JobServiceClient::new(caller).check_job_credential(request).await?;
    Ok(answer.into_inner())
}

fn may(kind: StageKind) -> Vec<&'static str> {
    let all = [
        "designs.design.export",
        "terraform_state.state.read",
        "terraform_state.state.download",
        "terraform_state.lock.write",
        "terraform_state.state.write",
    ];
    match kind {
        StageKind::Validate => all[..1].to_vec(),
        StageKind::Plan => all[..4].to_vec(),
        StageKind::Apply => all.to_vec(),
        StageKind::Drift | StageKind::Unspecified => Vec::new(),
    }
}

#[tokio::test]
async fn a_credential_opens_what_its_stage_needs_for_as_long_as_its_lease_lasts() {
    let yard = Yard::new().await;
    yard.run_on("team-a/prod").await;
    let runner = yard.runner("r1").await;
    let mut before: Option<Lease> = None;
    for kind in [StageKind::Validate, StageKind::Plan, StageKind::Apply] {
        let lease = runner.take().await;
        assert_eq!(lease.kind(), kind);
        assert!(lease.job_credential.starts_with("b3j_"));
        for begun in [false, true] {
            if begun {
                runner.start(&lease).await.unwrap();
            }
            for peer in ["designs", "terraform_state"] {
                let job = check(&yard, peer, &lease.job_credential).await.unwrap();
                assert_eq!(job.organization_id, yard.org.to_string());
                assert_eq!((&job.job_id, &job.design_id), (&lease.id, &lease.design_id));
                assert_eq!(job.state_name, "team-a/prod");
                assert_eq!(job.permissions, may(kind));
                assert!(
                    (43..=45).contains(&job.expires_in.unwrap().seconds),
                    "{:?}",
                    job.expires_in
                );
            }
        }
        if let Some(before) = before {
            assert_eq!(
                reason(check(&yard, "designs", &before.job_credential).await),
                "CREDENTIAL_INVALID"
            );
        }
        runner.complete(done(&lease)).await.unwrap();
        assert_eq!(
            reason(check(&yard, "designs", &lease.job_credential).await),
            "CREDENTIAL_INVALID"
        );
        before = Some(lease);
    }
}

#[tokio::test]
async fn a_credential_ends_with_its_lease() {
    let yard = Yard::hasty().await;
    yard.run(&yard.pipeline("prod", only(StageKind::Plan)).await).await;
    let runner = yard.runner("r1").await;
    let first = runner.take().await;
    check(&yard, "designs", &first.job_credential).await.unwrap();
    wait("the first lease to end", async || {
        check(&yard, "designs", &first.job_credential).await.is_err()
    })
    .await;
    assert_eq!(
        reason(check(&yard, "designs", &first.job_credential).await),
        "CREDENTIAL_INVALID"
    );
    let second = runner.take().await;
    assert_ne!(first.job_credential, second.job_credential);
    check(&yard, "designs", &second.job_credential).await.unwrap();
}

#[tokio::test]
async fn nobody_else_asks_and_nothing_else_is_known() {
    let yard = Yard::new().await;
    yard.run(&yard.pipeline("prod", only(StageKind::Plan)).await).await;
    let lease = yard.runner("r1").await.take().await;
    let person = yard.served.caller(yard.org, &["*.*.*"]);
    assert_eq!(
        reason(check_as(person, &lease.job_credential).await),
        "CALLER_NOT_ALLOWED"
    );
    let nobody = yard.served.with("");
    assert_eq!(
        reason(check_as(nobody, &lease.job_credential).await),
        "CREDENTIAL_INVALID"
    );
    let job = yard.served.with(&lease.job_credential);
    assert!(check_as(job, &lease.job_credential).await.is_err(), "a job is no peer");
    let last = if lease.job_credential.ends_with('x') { 'y' } else { 'x' };
    let other = format!("{}{last}", &lease.job_credential[..lease.job_credential.len() - 1]);
    for unknown in [
        "x",
        "b3j_",
        &other,
        &lease.job_credential.to_uppercase(),
        &"b".repeat(256),
    ] {
        assert_eq!(reason(check(&yard, "designs", unknown).await), "CREDENTIAL_INVALID");
    }
    for malformed in ["", &"b".repeat(257)] {
        assert_eq!(violated(check(&yard, "designs", malformed).await), ["job_credential"]);
    }
}

#[tokio::test]
async fn a_credential_and_a_plan_lie_in_no_table() {
    let yard = Yard::new().await;
    yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let mut secrets = vec!["the plan file".to_owned()];
    for _ in 0..2 {
        let lease = runner.take().await;
        runner.work(&lease).await;
        secrets.push(lease.job_credential);
    }
    let apply = runner.take().await;
    assert_eq!(runner.start(&apply).await.unwrap().plan, b"the plan file");
    secrets.push(apply.job_credential);
    let tables = "select quote_ident(relname) from pg_class
        where relnamespace = 'pipelines'::regnamespace and relkind in ('r', 'm')";
    let tables = yard.admin.query(tables, &[]).await.unwrap();
    assert!(tables.len() > 10);
    let mut searched = 0;
    for table in tables {
        let table: String = table.get(0);
        let rows = yard
            .admin
            .query(&format!("select t::text from {table} t"), &[])
            .await
            .unwrap();
        for row in rows {
            let row: String = row.get(0);
            searched += 1;
            for secret in &secrets {
                let secret = secret.trim_start_matches("b3j_");
                let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
                assert!(!row.contains(secret) && !row.contains(&hex), "{table} holds a secret");
            }
        }
    }
    assert!(searched > 20, "{searched}");
}

/// How a job stands, by what terraform-state is told; none where it is told nothing.
async fn standing(yard: &Yard, org: &str, lease: &Lease) -> Option<JobStanding> {
    let request = GetJobsRequest {
        organization_id: org.to_owned(),
        job_ids: vec![lease.id.clone()],
    };
    let mut peer = JobServiceClient::new(yard.served.peer("terraform_state"));
    let jobs = peer.get_jobs(request).await.unwrap().into_inner().jobs;
    let job = jobs.first()?;
    assert_eq!((&job.id, &job.execution_id), (&lease.id, &lease.execution_id));
    Some(job.standing())
}

#[tokio::test]
async fn how_a_job_stands_is_told_to_terraform_state() {
    let yard = Yard::new().await;
    yard.run(&yard.pipeline("prod", only(StageKind::Plan)).await).await;
    let runner = yard.runner("r1").await;
    let lease = runner.take().await;
    let org = yard.org.to_string();
    let known = check(&yard, "terraform_state", &lease.job_credential).await.unwrap();
    assert_eq!(known.execution_id, lease.execution_id);
    assert_eq!(standing(&yard, &org, &lease).await, Some(JobStanding::Live));
    let elsewhere = kit::ids::OrgId::new().to_string();
    assert_eq!(standing(&yard, &elsewhere, &lease).await, None);
    let overdue = "update pipelines.stage_attempts set expires_at = clock_timestamp() - interval '1 s'";
    yard.admin.batch_execute(overdue).await.unwrap();
    assert_eq!(standing(&yard, &org, &lease).await, Some(JobStanding::Expiring));
    runner.start(&lease).await.unwrap();
    runner.complete(done(&lease)).await.unwrap();
    assert_eq!(standing(&yard, &org, &lease).await, Some(JobStanding::Ended));
    let wrong = GetJobsRequest {
        organization_id: String::new(),
        job_ids: vec!["x".to_owned()],
    };
    let mut peer = JobServiceClient::new(yard.served.peer("terraform_state"));
    assert_eq!(violated(peer.get_jobs(wrong).await), ["organization_id", "job_ids[0]"]);
    let mut other = JobServiceClient::new(yard.served.peer("designs"));
    assert_eq!(
        reason(other.get_jobs(GetJobsRequest::default()).await),
        "CALLER_NOT_ALLOWED"
    );
}
