//! Request ids and their end, and what becomes of calls and readiness while PostgreSQL is frozen or gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::identity::v1::{
    organization_service_client::OrganizationServiceClient,
    organization_service_server::{OrganizationService, OrganizationServiceServer},
    *,
};
use kit::{
    auth::scope::{OrgScope, admitted},
    config::Env,
    db::{About, Db, migrate, requests::prune},
    ids::OrgId,
    service::{Build, Parts, Service},
};
use testkit::{
    serve::{Caller, Served},
    servers::{Place, Postgres},
};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{events::SLICE, eventually};

/// Members whose user name is the number of times that they were written.
pub(crate) const COUNTED: Service = Service {
    slice: &SLICE,
    configure,
};

fn configure(_: &mut Env) -> Option<Build> {
    Some(Box::new(|kit| {
        let counted = Counted {
            db: kit.db,
            written: Arc::default(),
        };
        Box::pin(async { Ok(Parts::new().serve(OrganizationServiceServer::new(counted))) })
    }))
}

struct Counted {
    db: Db,
    written: Arc<AtomicU64>,
}

struct Written(String);

impl About for Written {
    const TYPE: &'static str = "member";
    fn id(&self) -> String {
        self.0.clone()
    }
}

#[tonic::async_trait]
impl OrganizationService for Counted {
    async fn update_member(
        &self,
        request: Request<UpdateMemberRequest>,
    ) -> Result<Response<UpdateMemberResponse>, Status> {
        let (scope, request): (OrgScope, UpdateMemberRequest) = admitted(request)?;
        Ok(self
            .db
            .write(&scope, async |tx| {
                tx.about(&Written(request.user_id.clone()));
                let member = Member {
                    username: self.written.fetch_add(1, Ordering::SeqCst).to_string(),
                    ..Member::default()
                };
                Ok(UpdateMemberResponse { member: Some(member) })
            })
            .await?)
    }

    async fn create_organization(
        &self,
        _: Request<CreateOrganizationRequest>,
    ) -> Result<Response<CreateOrganizationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn get_organization(
        &self,
        _: Request<GetOrganizationRequest>,
    ) -> Result<Response<GetOrganizationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn list_organizations(
        &self,
        _: Request<ListOrganizationsRequest>,
    ) -> Result<Response<ListOrganizationsResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn update_organization(
        &self,
        _: Request<UpdateOrganizationRequest>,
    ) -> Result<Response<UpdateOrganizationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn delete_organization(
        &self,
        _: Request<DeleteOrganizationRequest>,
    ) -> Result<Response<DeleteOrganizationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn undelete_organization(
        &self,
        _: Request<UndeleteOrganizationRequest>,
    ) -> Result<Response<UndeleteOrganizationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn request_domain_verification(
        &self,
        _: Request<RequestDomainVerificationRequest>,
    ) -> Result<Response<RequestDomainVerificationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn verify_domain(&self, _: Request<VerifyDomainRequest>) -> Result<Response<VerifyDomainResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn remove_domain(&self, _: Request<RemoveDomainRequest>) -> Result<Response<RemoveDomainResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn invite_member(&self, _: Request<InviteMemberRequest>) -> Result<Response<InviteMemberResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn list_invitations(
        &self,
        _: Request<ListInvitationsRequest>,
    ) -> Result<Response<ListInvitationsResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn revoke_invitation(
        &self,
        _: Request<RevokeInvitationRequest>,
    ) -> Result<Response<RevokeInvitationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn accept_invitation(
        &self,
        _: Request<AcceptInvitationRequest>,
    ) -> Result<Response<AcceptInvitationResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Result<Response<ListMembersResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn remove_member(&self, _: Request<RemoveMemberRequest>) -> Result<Response<RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn transfer_ownership(
        &self,
        _: Request<TransferOwnershipRequest>,
    ) -> Result<Response<TransferOwnershipResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }
}

fn caller(served: &Served) -> OrganizationServiceClient<Caller> {
    OrganizationServiceClient::new(served.caller(OrgId::new(), &["identity.member.write"]))
}

async fn write(caller: &mut OrganizationServiceClient<Caller>, request_id: Uuid, role: &str) -> Result<String, String> {
    let request = UpdateMemberRequest {
        user_id: Uuid::nil().to_string(),
        role: role.to_owned(),
        request_id: request_id.to_string(),
    };
    match caller.update_member(request).await {
        Ok(answer) => Ok(answer.into_inner().member.unwrap().username),
        Err(status) => Err(status.get_details_error_info().unwrap().reason),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_answered_the_same_for_a_day_and_then_is_new() {
    let served = testkit::serve::serve(COUNTED).await;
    drop(std::panic::take_hook());
    let admin = served.database.admin().await;
    let mut caller = caller(&served);
    let id = Uuid::new_v4();
    assert_eq!(write(&mut caller, id, "viewer").await.unwrap(), "0");

    let age = async |hours: &str| {
        let age = format!("update audit.requests set created_at = now() - interval '{hours} hours'");
        assert_eq!(admin.execute(&age, &[]).await.unwrap(), 1);
    };
    age("23.99").await;
    assert_eq!(write(&mut caller, id, "viewer").await.unwrap(), "0");
    assert_eq!(write(&mut caller, id, "owner").await.unwrap_err(), "REQUEST_ID_REUSED");

    // Nobody has pruned it: it is new all the same, with whatever arguments, and begins a day of its own.
    age("24.01").await;
    assert_eq!(write(&mut caller, id, "owner").await.unwrap(), "1");
    assert_eq!(write(&mut caller, id, "owner").await.unwrap(), "1");
    assert_eq!(write(&mut caller, id, "viewer").await.unwrap_err(), "REQUEST_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_forgets_what_is_older_than_a_day_and_nothing_else() {
    let served = testkit::serve::serve(COUNTED).await;
    drop(std::panic::take_hook());
    let admin = served.database.admin().await;
    let fill = "insert into audit.requests (org_id, principal, method, request_id, arguments_hash, created_at) \
                select gen_random_uuid(), 'user', 'm', gen_random_uuid(), decode(repeat('00', 32), 'hex'), \
                       now() - make_interval(hours => case when n <= 2500 then 25 else 23 end) \
                from generate_series(1, 2510) n";
    admin.batch_execute(fill).await.unwrap();
    assert_eq!(prune(&served.running.kit.worker).await.unwrap(), 2500);
    assert_eq!(prune(&served.running.kit.worker).await.unwrap(), 0);
    let left = "select count(*) from audit.requests";
    assert_eq!(admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_makes_the_service_unready_and_a_stopped_one_is_named() {
    let server = Postgres::start(Place::Scratch).await.unwrap();
    migrate::prepare(&server.admin_url()).await.unwrap();
    migrate::up(&server.url("board3_migrate", "postgres"), &SLICE)
        .await
        .unwrap();
    let served = testkit::serve::serve_with(
        COUNTED,
        &[
            ("DATABASE_URL", &server.url(&SLICE.app(), "postgres")),
            ("DATABASE_WORKER_URL", &server.url(&SLICE.worker(), "postgres")),
        ],
    )
    .await;
    drop(std::panic::take_hook());
    let caller = caller(&served);
    // Until the feed of revocations has been heard once, a sensitive call is sent away.
    eventually(async || write(&mut caller.clone(), Uuid::new_v4(), "viewer").await.is_ok()).await;
    let ready = async || {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(served.running.http).await.unwrap();
        let ask = b"GET /health/ready HTTP/1.0\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap().contains(" 200 ")
    };

    // The postmaster takes no new connections then, and the sessions say nothing.
    let (admin, connection) = tokio_postgres::connect(&server.admin_url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    server.process().pause().await.unwrap();
    let sessions = "select pid::text from pg_stat_activity where usename like 'board3%'";
    let sessions = admin.query(sessions, &[]).await.unwrap();
    let pids: Vec<String> = sessions.iter().map(|row| row.get(0)).collect();
    let signal = |signal: &str| std::process::Command::new("kill").arg(signal).args(&pids).status();
    assert!(signal("-STOP").unwrap().success());
    let unready = tokio::time::timeout(Duration::from_secs(20), async {
        while ready().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let _ = signal("-CONT");
    server.process().resume().await.unwrap();
    assert!(unready.is_ok(), "it is ready while the database is frozen");
    eventually(ready).await;

    server.process().kill().await.unwrap();
    let cause = async || write(&mut caller.clone(), Uuid::new_v4(), "viewer").await.unwrap_err();
    eventually(async || cause().await == "DEPENDENCY_UNAVAILABLE").await;
    assert_eq!(cause().await, "DEPENDENCY_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_hear_the_servers_words_in_english() {
    let served = testkit::serve::serve(COUNTED).await;
    drop(std::panic::take_hook());
    let admin = served.database.admin().await;
    let english = "select count(*) from pg_db_role_setting s join pg_roles r on r.oid = s.setrole \
                   where r.rolname in ('board3_audit_app', 'board3_audit_worker') and 'lc_messages=C' = any (s.setconfig)";
    assert_eq!(admin.query_one(english, &[]).await.unwrap().get::<_, i64>(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_prepared_once_and_one_that_is_too_long_each_time() {
    use diesel::{QueryableByName, sql_query, sql_types::BigInt};
    use diesel_async::RunQueryDsl;

    #[derive(QueryableByName)]
    struct Answer {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let served = testkit::serve::serve(COUNTED).await;
    drop(std::panic::take_hook());
    let kit = &served.running.kit;
    let written = "select $1::bigint + 1 as n";
    let long = format!("{written} -- {}", "-".repeat(2048));
    let scope = kit.scope();
    let seen = kit.worker.read(&scope, async |tx| {
        for n in 0..3 {
            for text in [written, &long] {
                let answer: Answer = sql_query(text).bind::<BigInt, _>(n).get_result(tx).await?;
                assert_eq!(answer.n, n + 1);
            }
        }
        let prepared =
            "select count(*) as n from pg_prepared_statements where statement like 'select $1::bigint + 1 as n%'";
        let answer: Answer = sql_query(prepared).get_result(tx).await?;
        Ok(answer.n)
    });
    assert_eq!(seen.await.unwrap(), 1);
}
