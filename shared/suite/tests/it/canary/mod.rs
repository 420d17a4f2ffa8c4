//! Secrets are found nowhere: not in logs, metrics, errors, events, Redis or tables, in no usual encoding.
//!
//! The same search finds what is planted, so that finding nothing means something.

mod account;
mod search;
mod works;

use std::{collections::BTreeSet, io::Write as _, time::Duration};

use api::{
    events::v1::Event,
    identity::v1::{
        AcceptInvitationRequest, ExchangeApiKeyRequest, GetMeRequest, InviteMemberRequest, LogoutRequest,
        RefreshTokenRequest, SignUpRequest, auth_service_client::AuthServiceClient,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bb8_redis::redis::cmd;
use prost::Message;
use search::{Hay, Kind, Needle, Seen, gather, overhear, redis, search};
use tonic::Status;
use uuid::Uuid;

use crate::{
    house::{House, eventually},
    story::{Person, blank, request_id},
};

/// What is shown once in an answer, or never.
fn needles(house: &House, secrets: &[(&str, &str)]) -> Vec<Needle> {
    let mut needles: Vec<_> = house
        .secrets()
        .named()
        .iter()
        .map(|(name, key)| Needle::key(name, key))
        .collect();
    needles.extend(secrets.iter().map(|(name, secret)| Needle::text(name, secret)));
    needles
}

/// The part of an access token that nobody could make up: the end of its signature.
fn signature(token: &str) -> &str {
    let body = token.split('.').nth(2).expect("a PASETO has a third part");
    &body[body.len() - 60..]
}

/// The part of an API key that is secret.
fn secret_part(key: &str) -> &str {
    key.splitn(4, '_')
        .nth(3)
        .expect("b3_<environment>_<public id>_<secret>")
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_log_metric_error_event_key_or_table() {
    let house = House::open_with(&[("BOARD3_LOG", "debug"), ("BOARD3_LOG_SQL", "1")]).await;
    let heard = overhear(&house).await;
    let canary = |kind: &str| format!("canary {kind} {}", Uuid::new_v4().simple());
    let (password, mistyped, body) = (canary("password"), canary("mistyped"), canary("body"));
    let mut seen = Seen::default();
    let mut public = AuthServiceClient::new(house.identity().channel());

    // Accounts, sessions and their tokens.
    let ada = house.sign_up_as("ada", &password).await;
    seen.refused("a wrong password", house.try_login(&ada.email, &mistyped).await);
    seen.refused(
        "an unknown account",
        house.try_login("nobody@example.test", &mistyped).await,
    );
    let bad = SignUpRequest {
        email: ada.email.clone(),
        password: mistyped.clone(),
        ..SignUpRequest::default()
    };
    seen.refused("a sign-up with holes", public.sign_up(bad).await);
    let again = SignUpRequest {
        email: ada.email.clone(),
        username: "someone-else".to_owned(),
        password: mistyped.clone(),
        first_name: "Eve".to_owned(),
        last_name: "Else".to_owned(),
        organization_name: "Elsewhere".to_owned(),
        request_id: request_id(),
        ..SignUpRequest::default()
    };
    public.sign_up(again).await.expect("a taken address is answered alike");
    let old = RefreshTokenRequest {
        refresh_token: ada.refresh.clone(),
    };
    let renewed = public
        .refresh_token(old.clone())
        .await
        .expect("RefreshToken")
        .into_inner()
        .tokens
        .unwrap();
    let renewed = ada.clone().holding(renewed);
    // Within 10 s a repeat is answered the same successor, which therefore lies somewhere: sealed.
    let repeated = public
        .refresh_token(old.clone())
        .await
        .expect("RefreshToken")
        .into_inner()
        .tokens
        .unwrap();
    assert_eq!(repeated.refresh_token, renewed.refresh);
    let forged = RefreshTokenRequest {
        refresh_token: format!("{}x", renewed.refresh),
    };
    seen.refused("a forged refresh token", public.refresh_token(forged).await);
    let broken = Person {
        access: format!("{}x", renewed.access),
        ..ada.clone()
    };
    seen.refused(
        "a forged access token",
        broken.users(&house).get_me(GetMeRequest {}).await,
    );
    seen.refused(
        "a forged access token at designs",
        house.read_design(&broken, &request_id()).await,
    );

    // API keys, at identity and as a credential elsewhere.
    let key = house.api_key(&renewed, &["designs.*.*"]).await;
    let exchange = ExchangeApiKeyRequest {
        api_key: key.secret.clone(),
    };
    let exchanged = public
        .exchange_api_key(exchange)
        .await
        .expect("ExchangeApiKey")
        .into_inner();
    let by_key = Person {
        access: key.secret.clone(),
        ..ada.clone()
    };
    let design = house.design(&by_key, "by key").await;
    let cut = &key.secret[..key.secret.len() - 1];
    seen.refused(
        "a cut API key",
        public
            .exchange_api_key(ExchangeApiKeyRequest {
                api_key: cut.to_owned(),
            })
            .await,
    );
    seen.refused(
        "a cut API key at designs",
        house
            .read_design(
                &Person {
                    access: cut.to_owned(),
                    ..ada.clone()
                },
                &design.id,
            )
            .await,
    );
    seen.refused(
        "a key where a user is needed",
        by_key.users(&house).get_me(GetMeRequest {}).await,
    );

    // Invitations.
    let bob = house.sign_up_as("bob", &password).await;
    let invitation = InviteMemberRequest {
        email: bob.email.clone(),
        role: "viewer".to_owned(),
        request_id: request_id(),
    };
    let invited = renewed
        .organizations(&house)
        .invite_member(invitation.clone())
        .await
        .expect("InviteMember");
    let invited = invited.into_inner();
    seen.refused(
        "an invitation told twice",
        renewed.organizations(&house).invite_member(invitation).await,
    );
    let wrong = AcceptInvitationRequest {
        token: format!("{}x", invited.token),
        request_id: request_id(),
    };
    seen.refused(
        "a forged invitation",
        bob.organizations(&house).accept_invitation(wrong).await,
    );
    let acceptance = AcceptInvitationRequest {
        token: invited.token.clone(),
        request_id: request_id(),
    };
    bob.organizations(&house)
        .accept_invitation(acceptance)
        .await
        .expect("AcceptInvitation");
    let guest = house.switch(&bob, &ada.org).await;

    // What is written, refused and read of a body.
    let mut create = blank("with a body");
    create.description = body.clone();
    let drawn = renewed
        .designs(&house)
        .create_design(create.clone())
        .await
        .expect("CreateDesign")
        .into_inner();
    renewed
        .designs(&house)
        .create_design(create.clone())
        .await
        .expect("the same again");
    let drawn = drawn.design.unwrap();
    house.read_design(&renewed, &drawn.id).await.expect("GetDesign");
    seen.refused(
        "a denied write",
        guest.designs(&house).create_design(create.clone()).await,
    );
    create.name = String::new();
    seen.refused("a body with holes", renewed.designs(&house).create_design(create).await);
    renewed.auth(&house).logout(LogoutRequest {}).await.expect("Logout");
    let refused = async || house.read_design(&renewed, &drawn.id).await.err();
    let status = eventually("the session ends", Duration::from_secs(20), refused).await;
    seen.refused("an ended session", Err::<(), _>(status));

    let mut needles = needles(
        &house,
        &[
            ("the password", &password),
            ("a mistyped password", &mistyped),
            ("the API key", secret_part(&key.secret)),
            ("an access token", signature(&ada.access)),
            ("a renewed access token", signature(&renewed.access)),
            ("an API key's access token", signature(&exchanged.access_token)),
            ("a refresh token", &ada.refresh),
            ("a renewed refresh token", &renewed.refresh),
            ("an invitation", &invited.token),
        ],
    );
    needles.push(Needle::text("a body", &body).at_home(&[Kind::Table, Kind::Redis]));
    let mut hay = gather(&house).await;
    hay.push(Hay {
        kind: Kind::Redis,
        place: "what was said".to_owned(),
        text: heard.lock().await.clone(),
    });
    hay.extend(seen.0);
    let size: usize = hay.iter().map(|hay| hay.text.len()).sum();
    println!("{} secrets, {} places, {size} bytes", needles.len(), hay.len());
    for (kind, known) in [
        (Kind::Log, "CreateDesign"),
        (Kind::Metric, "CreateDesign"),
        (Kind::Table, &ada.email),
    ] {
        assert!(
            hay.iter().any(|hay| hay.kind == kind && hay.text.contains(known)),
            "{kind:?} were not read"
        );
    }
    let found: Vec<_> = search(&needles, &hay).into_iter().map(|(_, found)| found).collect();
    assert!(found.is_empty(), "{found:#?}");

    plant(&house, &password).await;
    let mut hay = gather(&house).await;
    let mut seen = Seen::default();
    seen.refused(
        "planted",
        Err::<(), _>(Status::internal(format!("driver: {}", STANDARD.encode(&password)))),
    );
    hay.extend(seen.0);
    let kinds: BTreeSet<_> = search(&needles, &hay).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        [Kind::Log, Kind::Error, Kind::Event, Kind::Redis, Kind::Table].into()
    );
}

/// Puts a secret wherever a test can, each time in another form.
async fn plant(house: &House, secret: &str) {
    let admin = house.database().admin().await;
    let sql = "create table designs.planted (raw bytea); insert into designs.planted values (convert_to('";
    admin
        .batch_execute(&format!("{sql}before {secret} after', 'UTF8'))"))
        .await
        .unwrap();
    let event = Event {
        event_id: request_id(),
        reason: secret.to_owned(),
        ..Event::default()
    };
    let sql = "insert into designs.outbox (event_id, org_id, envelope) values ($1::text::uuid, gen_random_uuid(), $2)";
    admin
        .execute(sql, &[&event.event_id, &event.encode_to_vec()])
        .await
        .unwrap();
    let mut redis = redis(house).await;
    let value = STANDARD.encode(format!("ab{secret}"));
    let () = cmd("SET")
        .arg("planted")
        .arg(value)
        .query_async(&mut redis)
        .await
        .unwrap();
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .open(house.log_file("audit"))
        .unwrap();
    writeln!(log, "{{\"planted\":\"{}\"}}", hex::encode(secret)).unwrap();
}
