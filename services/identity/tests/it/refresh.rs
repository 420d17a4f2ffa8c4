//! Refresh tokens in every order: tabs that refresh, race and repeat, thieves that replay, and time that passes.

use std::collections::HashMap;

use api::{
    events::v1::event::Payload,
    identity::v1::{RefreshTokenRequest, SessionTokens},
};
use futures_util::future::join_all;
use tonic::Status;

use crate::{
    house::{House, reason_of},
    without::fails_without,
};

const SEQUENCES: u64 = 24;
const STEPS: usize = 12;
/// How many tabs present one token at once.
const RACING: usize = 12;

/// A leaf that is fresh for as long as the test takes, and one that is not.
const SOON: &str = "clock_timestamp() + interval '1 hour'";
const LONG_AGO: &str = "clock_timestamp() - interval '11 seconds'";

/// xorshift: the same numbers at every run of a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// What a family of tokens should be: those that were given out, of which the last one is the valid leaf.
struct Model {
    given: Vec<String>,
    /// Whether the leaf was given less than ten seconds ago.
    fresh: bool,
    alive: bool,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Successor,
    Same,
    Refused,
}

impl Model {
    /// What presenting one of the tokens does.
    fn present(&mut self, nth: usize) -> Expected {
        match self.given.len() - 1 - nth {
            _ if !self.alive => Expected::Refused,
            0 => Expected::Successor,
            1 if self.fresh => Expected::Same,
            _ => {
                self.alive = false;
                Expected::Refused
            }
        }
    }

    /// Takes up what was answered.
    fn learn(&mut self, expected: &Expected, answer: Result<SessionTokens, Status>, context: &str) {
        match (expected, answer) {
            (Expected::Successor, Ok(tokens)) => {
                assert!(
                    !self.given.contains(&tokens.refresh_token),
                    "{context}: an old token came back"
                );
                self.given.push(tokens.refresh_token);
                self.fresh = true;
            }
            (Expected::Same, Ok(tokens)) => {
                assert_eq!(Some(&tokens.refresh_token), self.given.last(), "{context}");
            }
            (Expected::Refused, Err(status)) => {
                assert_eq!(reason_of(&status), "REFRESH_TOKEN_INVALID", "{context}");
            }
            (expected, answer) => panic!("{context}: expected {expected:?}, was answered {answer:?}"),
        }
    }
}

#[tokio::test]
async fn in_every_order_a_family_has_one_leaf_and_a_replay_ends_it() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let admin = house.served.database.admin().await;
    let mut auth = house.auth("");
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut ended = 0;
    for seed in 1..=SEQUENCES {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let first = house.login(&ada.email).await;
        let session = first.session_id;
        // Time stands still between the steps, however slow the machine is, and passes by steps of its own.
        let clock = async |rotated: &str| {
            let moved = format!(
                "update identity.sessions set rotated_at = {rotated} where id = '{session}' and rotated_at is not null"
            );
            admin.batch_execute(&moved).await.unwrap();
        };
        let mut model = Model {
            given: vec![first.refresh_token],
            fresh: false,
            alive: true,
        };
        // Each tab keeps the last token that it was answered.
        let mut tabs = [0; 3];
        for step in 0..STEPS {
            let tab = numbers.below(tabs.len());
            let mut context = format!("seed {seed}, step {step}: ");
            let kind = match numbers.below(12) {
                0..=4 => "a tab refreshes",
                5..=7 => "tabs race with one token",
                8 => "ten seconds pass",
                9..=10 => "a tab hears what another was answered",
                _ => "a thief replays",
            };
            context.push_str(kind);
            *seen.entry(kind).or_default() += 1;
            let nth = match kind {
                "ten seconds pass" => {
                    clock(LONG_AGO).await;
                    model.fresh = false;
                    continue;
                }
                "a tab hears what another was answered" => {
                    tabs[tab] = model.given.len() - 1;
                    continue;
                }
                "a thief replays" => numbers.below(model.given.len()),
                // Racing tabs know the leaf; else there is one order in which they end the session.
                "tabs race with one token" => model.given.len() - 1,
                _ => tabs[tab],
            };
            let token = model.given[nth].clone();
            let at_once = if kind == "tabs race with one token" { RACING } else { 1 };
            let requests = (0..at_once).map(|_| {
                let request = RefreshTokenRequest {
                    refresh_token: token.clone(),
                };
                let mut auth = auth.clone();
                async move { Ok::<_, Status>(auth.refresh_token(request).await?.into_inner().tokens.unwrap()) }
            });
            let mut answers = join_all(requests).await.into_iter();
            let expected = model.present(nth);
            let (was_alive, first) = (expected == Expected::Successor, answers.next().unwrap());
            model.learn(&expected, first, &context);
            for repeated in answers {
                let expected = if was_alive { Expected::Same } else { Expected::Refused };
                model.learn(&expected, repeated, &context);
            }
            if model.alive {
                clock(if model.fresh { SOON } else { LONG_AGO }).await;
                if kind != "a thief replays" {
                    tabs[tab] = model.given.len() - 1;
                }
            }
            let row = admin
                .query_one(
                    &format!("select generation, revoked_at is null from identity.sessions where id = '{session}'"),
                    &[],
                )
                .await
                .unwrap();
            assert_eq!(
                (row.get::<_, i64>(0), row.get::<_, bool>(1)),
                (model.given.len() as i64, model.alive),
                "{context}"
            );
        }
        ended += usize::from(!model.alive);
        let leaf = RefreshTokenRequest {
            refresh_token: model.given.last().unwrap().clone(),
        };
        assert_eq!(auth.refresh_token(leaf).await.is_ok(), model.alive, "seed {seed}");
    }
    // The numbers walk all of it, and each end is told and audited once.
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert!((3..=SEQUENCES as usize).contains(&ended), "{ended} families ended");
    let told = house.told().await;
    let revoked = told
        .iter()
        .filter(|(_, event)| matches!(event, Payload::SessionRevoked(_)));
    assert_eq!(revoked.count(), ended);
    assert_eq!(house.audited("identity.RefreshToken").await.len(), ended);
}

#[tokio::test]
async fn without_the_sessions_lock_some_order_breaks_a_family() {
    let test = "refresh::in_every_order_a_family_has_one_leaf_and_a_replay_ends_it";
    assert!(fails_without("identity.session_lock", test).await);
}
