//! Whether the time of a refused login tells what there is to an address.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use api::identity::v1::auth_service_client::AuthServiceClient;
use api::identity::v1::{LoginRequest, SignUpRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::Channel;
use uuid::Uuid;

use super::load::percentile;
use crate::mail::{self, Mailbox};

/// What there can be to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    SecondFactor,
    WithoutPassword,
    Suspended,
    Deleted,
    Unverified,
    Unknown,
}

const STATES: [State; 7] = [
    State::Good,
    State::SecondFactor,
    State::WithoutPassword,
    State::Suspended,
    State::Deleted,
    State::Unverified,
    State::Unknown,
];

/// The median time of each state's refusal.
pub(super) struct Medians(Vec<(State, Duration)>);

impl Medians {
    /// How far the quickest and the slowest state are apart.
    pub(super) fn apart(&self) -> Duration {
        let medians = || self.0.iter().map(|(_, median)| *median);
        medians().max().unwrap_or_default() - medians().min().unwrap_or_default()
    }

    /// All of them.
    pub(super) fn text(&self) -> String {
        let each: Vec<_> = self
            .0
            .iter()
            .map(|(state, median)| format!("{state:?} {median:.1?}"))
            .collect();
        each.join(", ")
    }
}

/// What a measurement needs of a running suite of its own.
pub(super) struct Place<'a> {
    pub(super) identity: Channel,
    pub(super) mailbox: &'a Mailbox,
    pub(super) admin_url: &'a str,
    pub(super) redis_url: &'a str,
}

/// Logs in with a wrong password to an address of each state in turn, so many times.
pub(super) async fn measure(place: &Place<'_>, samples: usize) -> Result<Medians> {
    ensure!(samples > 0, "at least one sample is needed");
    let mark = Uuid::now_v7().simple().to_string();
    let address = |state: State| format!("{}-{mark}@example.test", format!("{state:?}").to_lowercase());
    for state in STATES {
        prepare(place, state, &address(state))
            .await
            .with_context(|| format!("{state:?}"))?;
    }
    let mut auth = AuthServiceClient::new(place.identity.clone());
    let mut took = STATES.map(|_| Vec::with_capacity(samples));
    for round in 0..=samples {
        // What was counted against an address or a network is forgotten: refusals for that reason tell nothing.
        forget(place.redis_url).await?;
        for n in 0..STATES.len() {
            // Each round begins with another one.
            let n = (n + round) % STATES.len();
            let request = LoginRequest {
                email: address(STATES[n]),
                password: "wrong, and long enough".into(),
                device: "bench".into(),
                ..Default::default()
            };
            let began = Instant::now();
            let answer = auth.login(request).await;
            let elapsed = began.elapsed();
            match answer {
                Err(status) if status.code() == Code::Unauthenticated => {}
                other => bail!("{:?} was answered {other:?}", STATES[n]),
            }
            // The first round warms up.
            if round > 0 {
                took[n].push(elapsed);
            }
        }
    }
    let medians = STATES
        .into_iter()
        .zip(&mut took)
        .map(|(state, took)| (state, percentile(took, 50)));
    Ok(Medians(medians.collect()))
}

async fn prepare(place: &Place<'_>, state: State, email: &str) -> Result<()> {
    let request = SignUpRequest {
        email: email.to_owned(),
        username: format!("b-{}", &Uuid::new_v4().simple().to_string()[..20]),
        password: format!("right {}", Uuid::new_v4()),
        first_name: "Ada".into(),
        last_name: "Bench".into(),
        organization_name: "Bench".into(),
        ..Default::default()
    };
    let sql = match state {
        State::Unknown => return Ok(()),
        State::Unverified => {
            AuthServiceClient::new(place.identity.clone()).sign_up(request).await?;
            return Ok(());
        }
        State::Good | State::SecondFactor => None,
        State::WithoutPassword => Some("update identity.users set password_hash = '' where email = $1"),
        State::Suspended => Some("update identity.users set suspended_at = clock_timestamp() where email = $1"),
        State::Deleted => Some("update identity.users set deleted_at = clock_timestamp() where email = $1"),
    };
    let password = request.password.clone();
    mail::join(place.identity.clone(), place.mailbox, request).await?;
    if state == State::SecondFactor {
        super::identity::second_factor(&place.identity, email, &password).await?;
    }
    if let Some(sql) = sql {
        let (client, connection) = tokio_postgres::connect(place.admin_url, tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        ensure!(
            client.execute(sql, &[&email]).await? == 1,
            "there is no account {email}"
        );
        drop(client);
        connection.await??;
    }
    Ok(())
}

/// Empties the private Redis; sessions and counts in it are made again from what PostgreSQL holds.
async fn forget(redis_url: &str) -> Result<()> {
    let socket = redis_url
        .strip_prefix("redis+unix://")
        .context("the bench's own Redis has a socket")?;
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"FLUSHALL\r\n").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    ensure!(
        &answer == b"+OK\r\n",
        "Redis answered {:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}
