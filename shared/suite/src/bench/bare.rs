//! A tonic server that does nothing but answer GetMe with what it was given: what a call costs at least.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::identity::v1::user_service_server::{UserService, UserServiceServer};
use api::identity::v1::{
    DeleteUserRequest, DeleteUserResponse, GetMeRequest, GetMeResponse, GetUserRequest, GetUserResponse,
    ListUsersRequest, ListUsersResponse, Membership, ReactivateUserRequest, ReactivateUserResponse, SuspendUserRequest,
    SuspendUserResponse, UpdateUserRequest, UpdateUserResponse, User,
};
use testkit::guard::Guard;
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

/// How this program is asked to be that server.
pub(super) const VERB: &str = "bare-server";

/// Where it says on which address it listens.
const ADDRESS: &str = "BOARD3_BENCH_ADDRESS_FILE";

struct Bare(GetMeResponse);

#[tonic::async_trait]
impl UserService for Bare {
    async fn get_me(&self, _: Request<GetMeRequest>) -> Result<Response<GetMeResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn get_user(&self, _: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        Err(nothing())
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Err(nothing())
    }

    async fn update_user(&self, _: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        Err(nothing())
    }

    async fn suspend_user(&self, _: Request<SuspendUserRequest>) -> Result<Response<SuspendUserResponse>, Status> {
        Err(nothing())
    }

    async fn reactivate_user(
        &self,
        _: Request<ReactivateUserRequest>,
    ) -> Result<Response<ReactivateUserResponse>, Status> {
        Err(nothing())
    }

    async fn delete_user(&self, _: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        Err(nothing())
    }
}

fn nothing() -> Status {
    Status::unimplemented("a bare server answers GetMe alone")
}

/// Serves until it is ended.
pub(super) async fn serve() -> Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let file = std::env::var(ADDRESS).with_context(|| format!("{ADDRESS} is not set"))?;
    let mut written = std::fs::File::create(&file)?;
    writeln!(written, "{}", listener.local_addr()?)?;
    drop(written);
    let permissions = api::policy::PERMISSIONS.iter().map(|name| (*name).to_owned());
    let answer = GetMeResponse {
        user: Some(User {
            id: uuid::Uuid::now_v7().to_string(),
            email: "bench@example.test".into(),
            username: "bench".into(),
            first_name: "Ada".into(),
            last_name: "Bench".into(),
            ..Default::default()
        }),
        memberships: vec![Membership {
            organization_name: "Bench".into(),
            permissions: permissions.collect(),
            ..Default::default()
        }],
    };
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .add_service(UserServiceServer::new(Bare(answer)))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

/// Starts the server as a process of its own.
pub(super) async fn start(dir: &Path) -> Result<(Guard, SocketAddr)> {
    let file = dir.join("bare-address");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", VERB]).env(ADDRESS, &file);
    let guard = Guard::spawn(&command, "KILL", None, &dir.join("bare.log"))?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Some(address) = text.strip_suffix('\n') {
            return Ok((guard, address.parse()?));
        }
        if Instant::now() > deadline {
            bail!("the bare server does not start: {}", guard.log_tail());
        }
        sleep(Duration::from_millis(10)).await;
    }
}
