//! identity's promised figures.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use api::designs::v1::ListDesignsRequest;
use api::designs::v1::design_service_client::DesignServiceClient;
use api::identity::v1::auth_service_client::AuthServiceClient;
use api::identity::v1::user_service_client::UserServiceClient;
use api::identity::v1::{ConfirmTotpRequest, EnrollTotpRequest, ExchangeApiKeyRequest, GetMeRequest, LoginRequest};
use tokio::time::sleep;
use tonic::transport::Channel;

use super::load::{channel, flood, millis, paced, percentile, throughput, with};
use super::process::mib;
use super::states::{self, Place};
use super::table::Table;
use super::{bare, verification};
use crate::layout::Layout;
use crate::mail::Mailbox;
use crate::totp;
use crate::up::Suite;
use crate::variables::Variables;

/// How many connections and callers make the load.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 32;

/// Measures everything and prints the table.
pub(super) async fn measure(samples: usize) -> Result<()> {
    let mut table = Table::default();
    let verified = tokio::task::spawn_blocking(verification::measure).await??;
    table.at_least("tokens verified by a core, cold", 10_000.0, verified.cold, "/s");
    table.at_least(
        "tokens verified by a core, remembered",
        200_000.0,
        verified.remembered,
        "/s",
    );

    let dir = tempfile::Builder::new().prefix("b3-bench-").tempdir()?;
    // Nothing is limited here but by the machine.
    let unlimited = Variables::from([("BOARD3_RATE_SCALE".to_owned(), "1000000".to_owned())]);
    let suite = start(dir.path(), "unlimited", &unlimited).await?;
    sleep(Duration::from_secs(5)).await;
    let idle = mib(suite.processes.of("identity").pid(), "VmRSS:")?;
    table.at_most("memory of identity, idle", 40.0, idle, "MiB");
    let token = login(&suite).await?;
    table.at_most("ExchangeApiKey, warm, p99", 5.0, exchange(&suite).await?, "ms");
    table.at_least(
        "GetMe against a bare call of tonic",
        0.5,
        get_me(&suite, &token, dir.path()).await?,
        "times",
    );
    let place = Place {
        identity: channel(&suite.layout.grpc(identity::SERVICE.slice))?,
        mailbox: &Mailbox::in_dir(&suite.layout.mail())?,
        admin_url: suite.backing.admin_url(),
        redis_url: suite.backing.redis_url(),
    };
    println!("wrong passwords for 7 states of an account, {samples} times each …");
    let medians = states::measure(&place, samples).await?;
    println!("medians: {}\n", medians.text());
    let what = format!("medians of 7 states' refused logins apart ({samples} samples)");
    table.at_most(&what, 2.0, millis(medians.apart()), "ms");
    end(suite).await?;

    // The limits are what a flood meets.
    let suite = start(dir.path(), "limited", &Variables::new()).await?;
    let token = login(&suite).await?;
    for (what, ratio) in flooded(&suite, &token).await? {
        table.at_most(
            &format!("{what}, p99 under 200 wrong logins a second"),
            2.0,
            ratio,
            "times",
        );
    }
    end(suite).await?;
    print!("\n{table}");
    Ok(())
}

async fn start(dir: &std::path::Path, name: &str, more: &Variables) -> Result<Suite> {
    Suite::start(Layout::on_unused_ports(&dir.join(name))?, more).await
}

async fn end(suite: Suite) -> Result<()> {
    let layout = suite.layout.clone();
    suite.stop().await;
    layout.remove()
}

fn identity_of(suite: &Suite) -> String {
    suite.layout.grpc(identity::SERVICE.slice)
}

/// The administrator's access token.
async fn login(suite: &Suite) -> Result<String> {
    let administrator = &suite.administrator;
    signed_in(
        &channel(&identity_of(suite))?,
        &administrator.email,
        &administrator.password,
    )
    .await
}

async fn signed_in(identity: &Channel, email: &str, password: &str) -> Result<String> {
    let request = LoginRequest {
        email: email.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    };
    let answer = AuthServiceClient::new(identity.clone()).login(request).await?;
    Ok(answer.into_inner().tokens.context("Login answers tokens")?.access_token)
}

/// Gives an account a second factor.
pub(super) async fn second_factor(identity: &Channel, email: &str, password: &str) -> Result<()> {
    let token = signed_in(identity, email, password).await?;
    let mut auth = AuthServiceClient::new(identity.clone());
    let request = EnrollTotpRequest {
        password: password.to_owned(),
    };
    let enrolled = auth.enroll_totp(with(request, &token)).await?.into_inner();
    // A step may end between the code and the call.
    for _ in 0..3 {
        let code = totp::code(&enrolled.secret, 0);
        if auth
            .confirm_totp(with(ConfirmTotpRequest { code }, &token))
            .await
            .is_ok()
        {
            return Ok(());
        }
    }
    Err(anyhow!("no code of the second factor is good"))
}

/// The p99 of exchanging a key that was exchanged before, 200 times a second.
async fn exchange(suite: &Suite) -> Result<f64> {
    let auth = AuthServiceClient::new(channel(&identity_of(suite))?);
    let call = async || {
        let api_key = suite.administrator.api_key.clone();
        auth.clone()
            .exchange_api_key(ExchangeApiKeyRequest { api_key })
            .await
            .map(drop)
    };
    paced(200, Duration::ZERO, &call).await?;
    let mut took = paced(2_000, Duration::from_millis(5), &call).await?;
    Ok(millis(percentile(&mut took, 99)))
}

/// GetMe's throughput in parts of a bare call's, by turns.
async fn get_me(suite: &Suite, token: &str, dir: &std::path::Path) -> Result<f64> {
    let (bare, address) = bare::start(dir).await?;
    let channels = |address: &str| (0..CONNECTIONS).map(|_| channel(address)).collect::<Result<Vec<_>>>();
    let (ours, bares) = (channels(&identity_of(suite))?, channels(&address.to_string())?);
    let call = async |channel: Channel| {
        UserServiceClient::new(channel)
            .get_me(with(GetMeRequest {}, token))
            .await
            .map(drop)
    };
    let long = Duration::from_secs(2);
    let (mut our, mut bare_calls) = (0.0, 0.0);
    for round in 0..4 {
        let (a, b) = (
            throughput(CALLERS, &bares, long, &call).await?,
            throughput(CALLERS, &ours, long, &call).await?,
        );
        // The first round warms up.
        if round > 0 {
            (bare_calls, our) = (bare_calls + a, our + b);
        }
    }
    bare.stop().await?;
    println!("GetMe {:.0} /s, a bare call {:.0} /s\n", our / 3.0, bare_calls / 3.0);
    Ok(our / bare_calls)
}

/// How many times longer other calls take (p99) while somebody tries passwords.
async fn flooded(suite: &Suite, token: &str) -> Result<Vec<(&'static str, f64)>> {
    let identity = channel(&identity_of(suite))?;
    let designs = channel(&suite.layout.grpc(designs::SERVICE.slice))?;
    let me = async || {
        let request = with(GetMeRequest {}, token);
        UserServiceClient::new(identity.clone()).get_me(request).await.map(drop)
    };
    let list = async || {
        let request = with(ListDesignsRequest::default(), token);
        DesignServiceClient::new(designs.clone())
            .list_designs(request)
            .await
            .map(drop)
    };
    // Within what one caller may call.
    let (calls, pace) = (300, Duration::from_millis(50));
    let both = async || tokio::try_join!(paced(calls, pace, &me), paced(calls, pace, &list));
    both().await?;
    let mut quiet = both().await?;

    let (answered, stranger) = (Arc::new(AtomicU64::new(0)), channel(&identity_of(suite))?);
    let email = suite.administrator.email.clone();
    let wrong = |n: u64| {
        let (answered, mut auth) = (answered.clone(), AuthServiceClient::new(stranger.clone()));
        let request = LoginRequest {
            email: if n.is_multiple_of(2) {
                email.clone()
            } else {
                format!("nobody-{n}@example.test")
            },
            password: format!("wrong password {n}"),
            ..Default::default()
        };
        async move {
            let _ = auth.login(request).await;
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut loud = tokio::select! {
        both = both() => both?,
        () = flood(Duration::from_millis(5), wrong) => unreachable!("a flood has no end"),
    };
    println!(
        "{} wrong logins were answered meanwhile\n",
        answered.load(Ordering::Relaxed)
    );
    let ratio = |loud: &mut [Duration], quiet: &mut [Duration]| {
        millis(percentile(loud, 99)) / millis(percentile(quiet, 99)).max(f64::EPSILON)
    };
    Ok(vec![
        ("GetMe", ratio(&mut loud.0, &mut quiet.0)),
        ("ListDesigns", ratio(&mut loud.1, &mut quiet.1)),
    ])
}
