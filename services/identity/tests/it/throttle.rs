//! Who is kept from signing in, and who never is.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use api::identity::v1::{LoginRequest, LoginResponse, auth_service_client::AuthServiceClient};
use futures_util::future::join_all;
use kit::{
    config::Env,
    failpoint::{Action, arm},
    redis::Script,
    service::Running,
};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::{
    house::{House, PASSWORD, login, reason, reason_of},
    without::fails_without,
};

/// One attempt comes back to an account from one network in this time.
const ATTEMPT_EVERY: Duration = Duration::from_secs(6);

/// Sets all buckets of a kind to what they are after a flood that has not ended for ten minutes.
static EMPTY: Script = Script::new(
    r"
local time = redis.call('TIME')
local later = string.format('%.0f', (tonumber(time[1]) + 600) * 1000000)
local found = redis.call('KEYS', ARGV[1])
for _, key in ipairs(found) do redis.call('SET', key, later, 'PX', 600000) end
return #found
",
);

/// Calls from an address of its own: all of 127.0.0.0/8 is here.
pub(crate) fn from(server: &Running, network: u8, host: u8) -> AuthServiceClient<Channel> {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, network, host));
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc))
        .unwrap()
        .local_address(Some(address));
    AuthServiceClient::new(endpoint.connect_lazy())
}

/// A login that may take as long as a call can.
pub(crate) async fn try_login(
    mut client: AuthServiceClient<Channel>,
    login: LoginRequest,
) -> Result<LoginResponse, Status> {
    let mut request = Request::new(login);
    request.set_timeout(Duration::from_secs(60));
    Ok(client.login(request).await?.into_inner())
}

/// A hundred logins at once, from ten addresses of one network.
async fn a_hundred(server: &Running, login: &LoginRequest) -> Vec<Result<LoginResponse, Status>> {
    let clients: Vec<_> = (10..20).map(|host| from(server, 0, host)).collect();
    join_all((0..100).map(|nth| try_login(clients[nth % 10].clone(), login.clone()))).await
}

/// How many hashes a server has made of passwords.
pub(crate) fn hashes(server: &Running) -> u64 {
    let metrics = server.kit.metrics.render();
    let figure = metrics
        .lines()
        .find_map(|line| line.strip_prefix("board3_password_hashes "));
    figure.unwrap().parse().unwrap()
}

pub(crate) fn refused_as<'a>(
    answers: impl IntoIterator<Item = &'a Result<LoginResponse, Status>>,
    reason: &str,
) -> u64 {
    let refused = answers.into_iter().filter_map(|answer| answer.as_ref().err());
    refused.filter(|status| reason_of(status) == reason).count() as u64
}

/// No more than ten, and what has come back since.
pub(crate) fn most_since(begun: Instant) -> u64 {
    10 + (begun.elapsed().as_millis() / ATTEMPT_EVERY.as_millis()) as u64
}

#[tokio::test]
async fn a_hundred_right_passwords_at_once_all_open_a_session() {
    let house = House::open_at_scale(1).await;
    let ada = house.person("ada").await;
    let before = hashes(&house.served.running);
    let answers = a_hundred(&house.served.running, &login(&ada.email, PASSWORD)).await;
    for answer in &answers {
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert_eq!(hashes(&house.served.running) - before, 100);
}

#[tokio::test]
async fn of_a_hundred_wrong_passwords_at_once_ten_are_looked_at() {
    let house = House::open_at_scale(1).await;
    let ada = house.person("ada").await;
    let (before, begun) = (hashes(&house.served.running), Instant::now());
    let answers = a_hundred(&house.served.running, &login(&ada.email, "a wrong guess")).await;
    let made = hashes(&house.served.running) - before;
    assert!((10..=most_since(begun)).contains(&made), "{made} were looked at");
    assert_eq!(refused_as(&answers, "LOGIN_FAILED"), made);
    assert_eq!(refused_as(&answers, "RATE_LIMITED"), 100 - made);
}

#[tokio::test]
async fn two_replicas_share_the_limits() {
    let house = House::open_at_scale(1).await;
    let ada = house.person("ada").await;
    let other = kit::service::start(identity::SERVICE, Env::of(house.served.env.clone()))
        .await
        .unwrap();
    let servers = [&house.served.running, &other];
    let made = || servers.iter().map(|server| hashes(server)).sum::<u64>();
    let (before, begun) = (made(), Instant::now());
    let wrong = login(&ada.email, "a wrong guess");
    let clients: Vec<_> = servers.iter().map(|server| from(server, 0, 10)).collect();
    let answers = join_all((0..30).map(|nth| try_login(clients[nth % 2].clone(), wrong.clone()))).await;
    let made = made() - before;
    assert!((10..=most_since(begun)).contains(&made), "{made} were looked at");
    assert_eq!(refused_as(&answers, "LOGIN_FAILED"), made);
    other.stop().await;
}

#[tokio::test]
async fn without_redis_guesses_run_out_all_the_same() {
    let redis = testkit::servers::Redis::start().await.unwrap();
    let url = redis.url();
    let variables = [("BOARD3_RATE_SCALE", "1"), ("REDIS_URL", url.as_str())];
    let house = House {
        served: testkit::serve_with(identity::SERVICE, &variables).await,
    };
    let ada = house.person("ada").await;
    let wrong = login(&ada.email, "a wrong guess");
    let (before, begun) = (hashes(&house.served.running), Instant::now());
    // Three while it is there still count when it is gone.
    let mut answers = Vec::new();
    for nth in 0..15 {
        if nth == 3 {
            redis.process().kill().await.unwrap();
        }
        answers.push(try_login(from(&house.served.running, 0, 10), wrong.clone()).await);
    }
    let made = hashes(&house.served.running) - before;
    assert!((10..=most_since(begun)).contains(&made), "{made} were looked at");
    assert_eq!(refused_as(&answers, "LOGIN_FAILED"), made);
    assert_eq!(refused_as(&answers, "RATE_LIMITED"), 15 - made);
}

#[tokio::test]
async fn a_flood_from_many_networks_keeps_strangers_out_and_lets_a_known_device_in() {
    let house = House::open_at_scale(1).await;
    let server = &house.served.running;
    let ada = house.person("ada").await;
    let right = login(&ada.email, PASSWORD);
    let known = try_login(from(server, 0, 1), right.clone()).await.unwrap().device_token;
    let wrong = login(&ada.email, "a wrong guess");
    let flood = (1..=12).flat_map(|network| {
        let client = from(server, network, 1);
        let wrong = &wrong;
        (0..10).map(move |_| try_login(client.clone(), wrong.clone()))
    });
    assert!(refused_as(&join_all(flood).await, "LOGIN_FAILED") >= 100);
    // It goes on, from more networks than there are.
    let redis = &server.kit.redis;
    let all = redis.key(["rate", "login:account:*"]);
    assert_eq!(redis.eval::<i64>(&EMPTY, &[], &[all]).await.unwrap(), 1);
    let stranger = try_login(from(server, 200, 1), right.clone()).await.unwrap_err();
    assert_eq!(reason_of(&stranger), "RATE_LIMITED");
    assert!(
        stranger
            .get_error_details()
            .retry_info()
            .is_some_and(|info| info.retry_delay.is_some())
    );
    // The owner is let in from wherever the device is, and the device stays known.
    let mut device_token = known;
    for network in [0, 5, 201] {
        let request = LoginRequest {
            device_token,
            ..right.clone()
        };
        device_token = try_login(from(server, network, 7), request).await.unwrap().device_token;
    }
    // A stolen device has its own ten guesses, and no more.
    let stolen = LoginRequest { device_token, ..wrong };
    let (before, begun) = (hashes(server), Instant::now());
    let answers = join_all((0..15).map(|_| try_login(from(server, 202, 1), stolen.clone()))).await;
    let made = hashes(server) - before;
    assert!((10..=most_since(begun)).contains(&made), "{made} were looked at");
    assert_eq!(refused_as(&answers, "LOGIN_FAILED"), made);
}

#[tokio::test]
async fn a_device_is_known_to_one_account_and_by_one_password() {
    let house = House::open_at_scale(1).await;
    let server = &house.served.running;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let opened = try_login(from(server, 1, 1), login(&ada.email, PASSWORD))
        .await
        .unwrap();
    let eves = try_login(from(server, 1, 1), login(&eve.email, PASSWORD))
        .await
        .unwrap();
    let redis = &server.kit.redis;
    for _ in 0..5 {
        let wrong = try_login(from(server, 3, 1), login(&ada.email, "a wrong guess")).await;
        assert!(wrong.is_err());
    }
    let all = redis.key(["rate", "login:account-network:*"]);
    assert!(redis.eval::<i64>(&EMPTY, &[], &[all]).await.unwrap() >= 1);
    let with = |device_token: &str| LoginRequest {
        device_token: device_token.to_owned(),
        ..login(&ada.email, PASSWORD)
    };
    assert!(try_login(from(server, 3, 1), with(&opened.device_token)).await.is_ok());
    for stranger in [eves.device_token.as_str(), "", "b3d_", "nonsense"] {
        let refused = try_login(from(server, 3, 1), with(stranger)).await.unwrap_err();
        assert_eq!(reason_of(&refused), "RATE_LIMITED", "{stranger}");
    }
    // Another hash of the same password stands for another password.
    let moved = "update users set password_hash = (select password_hash from users where username = 'eve') where username = 'ada'";
    house.sql(moved).await;
    let refused = try_login(from(server, 3, 1), with(&opened.device_token))
        .await
        .unwrap_err();
    assert_eq!(reason_of(&refused), "RATE_LIMITED");
}

#[tokio::test]
async fn one_network_does_not_keep_another_out() {
    let house = House::open_at_scale(1).await;
    let server = &house.served.running;
    let ada = house.person("ada").await;
    let wrong = login(&ada.email, "a wrong guess");
    let answers = join_all((0..15).map(|_| try_login(from(server, 1, 1), wrong.clone()))).await;
    assert!(refused_as(&answers, "RATE_LIMITED") > 0);
    let opened = try_login(from(server, 2, 1), login(&ada.email, PASSWORD)).await;
    assert!(opened.is_ok(), "{opened:?}");
}

/// What an answer tells, but for when and in which call.
fn told(answer: &Result<LoginResponse, Status>) -> (String, String, String, Vec<String>, bool) {
    let status = answer.as_ref().unwrap_err();
    let details = status.get_error_details();
    let mut metadata: Vec<_> = details
        .error_info()
        .map(|info| info.metadata.keys().cloned().collect())
        .unwrap_or_default();
    // Headers and trailers alike.
    metadata.extend(status.metadata().keys().map(|key| format!("{key:?}")));
    metadata.sort();
    (
        reason_of(status),
        status.message().to_owned(),
        format!("{:?}", status.code()),
        metadata,
        details.retry_info().is_some(),
    )
}

/// The states of an account that cannot be signed in to, and its address.
pub(crate) async fn closed_accounts(house: &House) -> Vec<(&'static str, LoginRequest)> {
    let states = [
        ("existing", ""),
        ("suspended", "suspended_at = now()"),
        ("deleted", "deleted_at = now()"),
        ("passwordless", "password_hash = ''"),
    ];
    let mut logins = vec![("missing", login("missing@example.com", PASSWORD))];
    for (state, change) in states {
        let person = house.person(state).await;
        if change.is_empty() {
            logins.push((state, login(&person.email, "a wrong guess")));
        } else {
            house
                .sql(&format!("update users set {change} where id = '{}'", person.user))
                .await;
            logins.push((state, login(&person.email, PASSWORD)));
        }
    }
    logins
}

#[tokio::test]
async fn a_refused_login_tells_nothing_about_the_account() {
    let house = House::open_at_scale(1).await;
    let server = &house.served.running;
    let mut first = None;
    let accounts = closed_accounts(&house).await;
    let failed = house.audited("identity.Login").await.len();
    for (network, (state, login)) in (1..).zip(&accounts) {
        let before = hashes(server);
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(try_login(from(server, network, 1), login.clone()).await);
        }
        assert_eq!(hashes(server) - before, 3, "{state}");
        let all = server.kit.redis.key(["rate", "login:account-network:*"]);
        assert!(server.kit.redis.eval::<i64>(&EMPTY, &[], &[all]).await.unwrap() >= 1);
        answers.push(try_login(from(server, network, 1), login.clone()).await);
        assert_eq!(hashes(server) - before, 3, "{state}");
        let answers: Vec<_> = answers.iter().map(told).collect();
        assert_eq!(answers[0].0, "LOGIN_FAILED", "{state}");
        assert_eq!(answers[3].0, "RATE_LIMITED", "{state}");
        assert!(answers[3].4, "{state}");
        assert_eq!(first.get_or_insert_with(|| answers.clone()), &answers, "{state}");
    }
    // Each failure is in the trail, of a known account under its organization.
    let audited = house.audited("identity.Login").await.split_off(failed);
    assert_eq!(audited.len(), 3 * accounts.len());
    assert!(audited.iter().all(|event| event.reason == "LOGIN_FAILED"));
    let of_accounts = audited.iter().filter(|event| event.resource.is_some()).count();
    assert_eq!(of_accounts, 3 * (accounts.len() - 1));
}

#[tokio::test]
async fn a_password_that_changes_while_it_is_looked_at_opens_nothing() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada-changes").await, house.person("eve-changes").await);
    let held = arm(format!("identity.login_verified/{}", ada.email), Action::Hold);
    let client = from(&house.served.running, 0, 1);
    let trying = tokio::spawn(try_login(client, login(&ada.email, PASSWORD)));
    held.held(1).await;
    let changed = format!(
        "update users set password_hash = (select password_hash from users where id = '{}') where id = '{}'",
        eve.user, ada.user
    );
    house.sql(&changed).await;
    let sessions = house.count("sessions").await;
    held.release();
    assert_eq!(reason(trying.await.unwrap()), "LOGIN_FAILED");
    assert_eq!(house.count("sessions").await, sessions);
}

#[tokio::test]
async fn without_a_second_look_an_old_password_opens_a_session() {
    let test = "throttle::a_password_that_changes_while_it_is_looked_at_opens_nothing";
    assert!(fails_without("identity.login_recheck", test).await);
}

#[tokio::test]
async fn without_the_count_before_the_hash_all_guesses_at_once_are_looked_at() {
    let test = "throttle::of_a_hundred_wrong_passwords_at_once_ten_are_looked_at";
    assert!(fails_without("identity.count_before_hash", test).await);
}

#[tokio::test]
async fn without_the_line_some_of_a_hundred_right_passwords_are_refused() {
    let test = "throttle::a_hundred_right_passwords_at_once_all_open_a_session";
    assert!(fails_without("identity.login_line", test).await);
}

#[tokio::test]
async fn without_known_devices_a_flood_locks_the_owner_out() {
    let test = "throttle::a_flood_from_many_networks_keeps_strangers_out_and_lets_a_known_device_in";
    assert!(fails_without("identity.known_device", test).await);
}

#[tokio::test]
async fn without_shared_limits_each_replica_gives_ten_guesses() {
    let test = "throttle::two_replicas_share_the_limits";
    assert!(fails_without("identity.shared_limits", test).await);
}

#[tokio::test]
async fn without_the_own_count_nothing_limits_when_redis_is_away() {
    let test = "throttle::without_redis_guesses_run_out_all_the_same";
    assert!(fails_without("rate.local", test).await);
}

#[tokio::test]
async fn without_a_hash_for_nobody_an_account_that_is_not_there_is_told() {
    let test = "throttle::a_refused_login_tells_nothing_about_the_account";
    assert!(fails_without("identity.hash_for_nobody", test).await);
}
