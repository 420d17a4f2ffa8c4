//! What it costs to know who a token belongs to, on one core.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use kit::auth::gate::measure::Verifier;
use kit::auth::token::{AccessClaims, SigningKey};
use kit::ids::{OrgId, Principal, UserId};
use uuid::Uuid;

use super::process::cpu_seconds;

/// Figures per core and second.
pub(super) struct Verification {
    /// Of tokens that were not seen before.
    pub(super) cold: f64,
    /// Of tokens that were verified a moment ago.
    pub(super) remembered: f64,
}

/// How many tokens are verified in turn.
const TOKENS: usize = 8_000;
const LONG: Duration = Duration::from_secs(2);

/// On the thread that asks, so that one core works.
pub(super) fn measure() -> Result<Verification> {
    let key = SigningKey::from_seed(&[42; 32]);
    let wrong = |error: kit::Error| anyhow!("a token was refused: {error}");
    let verifier = Verifier::new("bench", key.public().clone()).map_err(wrong)?;
    let tokens: Vec<String> = (0..TOKENS)
        .map(|_| {
            let claims = AccessClaims {
                principal: Principal::User(UserId::new()),
                org: Some(OrgId::new()),
                session: Uuid::now_v7(),
                epoch: 1,
                permission_version: 1,
                expires_at: SystemTime::now() + Duration::from_secs(300),
            };
            key.sign_access("bench", &claims)
        })
        .collect();
    // In seconds of CPU: a core that does something else meanwhile is none of this.
    let ours = [std::process::id()];
    let before = cpu_seconds(&ours)?;
    for token in &tokens {
        verifier.cold(token).map_err(wrong)?;
    }
    let cold = tokens.len() as f64 / (cpu_seconds(&ours)? - before);

    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let remembered = runtime.block_on(async {
        let (began, mut done) = (Instant::now(), 0_u64);
        while began.elapsed() < LONG {
            for token in &tokens {
                verifier.remembered(token).await.map_err(wrong)?;
                done += 1;
            }
        }
        anyhow::Ok(done as f64 / began.elapsed().as_secs_f64())
    })?;
    Ok(Verification { cold, remembered })
}
