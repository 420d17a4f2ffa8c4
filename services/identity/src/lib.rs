//! Identity: users, organizations, roles, sessions, API keys and invitations, and the tokens that the suite believes.
//!
//! Promises: nobody holds more than what is granted to them now, nobody gives what they do not hold, a refresh token
//! works once, and no secret is kept: of passwords, tokens and keys there are hashes under keys that the database lacks.

mod authority;
mod issuer;
mod model;
mod password;
mod rpc;
mod schema;
mod store;
mod wire;

use std::sync::Arc;

use api::identity::v1::{
    api_key_service_server::ApiKeyServiceServer, auth_service_server::AuthServiceServer,
    organization_service_server::OrganizationServiceServer, user_service_server::UserServiceServer,
};
use diesel_migrations::embed_migrations;
use kit::{
    auth::token::{PublicKey, SigningKey},
    cache::Cache,
    config::Env,
    crypto::Pepper,
    db::migrate::Slice,
    rate::{Limit, Limiter},
    service::{Build, Kit, Parts, Service},
};

use crate::{
    authority::{Keeper, LocalAuthority},
    issuer::Issuer,
    password::Passwords,
    rpc::Identity,
};

/// The largest message that is accepted.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// Wrong passwords a minute for one account, and at once.
const GUESSES: u32 = 10;

static SLICE: Slice = Slice {
    name: "identity",
    migrations: embed_migrations!("../../migrations/identity"),
};

/// The identity service.
///
/// Reads `BOARD3_SIGNING_KEY` (Ed25519 seed), `BOARD3_SIGNING_KEYS_RETIRED` (optional: PASERK public keys whose tokens
/// are still believed), `PASSWORD_PEPPER` and `API_KEY_PEPPER`.
pub const SERVICE: Service = Service {
    slice: &SLICE,
    configure,
};

/// The service's own secrets.
struct Secrets {
    signing: SigningKey,
    retired: Vec<PublicKey>,
    passwords: Pepper,
    api_keys: Pepper,
}

fn configure(env: &mut Env) -> Option<Build> {
    let signing = env.key("BOARD3_SIGNING_KEY").map(|seed| SigningKey::from_seed(&seed));
    let retired = retired(env);
    let passwords = pepper(env, "PASSWORD_PEPPER");
    let api_keys = pepper(env, "API_KEY_PEPPER");
    let secrets = Secrets {
        signing: signing?,
        retired: retired?,
        passwords: passwords?,
        api_keys: api_keys?,
    };
    Some(Box::new(move |kit| Box::pin(build(kit, secrets))))
}

fn pepper(env: &mut Env, name: &str) -> Option<Pepper> {
    let text = env.required(name)?;
    Pepper::parse(&text)
        .map_err(|problem| env.problem(format!("{name} {problem}")))
        .ok()
}

fn retired(env: &mut Env) -> Option<Vec<PublicKey>> {
    let text = env.optional("BOARD3_SIGNING_KEYS_RETIRED").unwrap_or_default();
    let keys: Option<Vec<_>> = text
        .split(',')
        .filter(|key| !key.is_empty())
        .map(PublicKey::parse)
        .collect();
    if keys.is_none() {
        env.problem("BOARD3_SIGNING_KEYS_RETIRED must be a list like k4.public.…,k4.public.…");
    }
    keys
}

async fn build(kit: Kit, secrets: Secrets) -> kit::Result<Parts> {
    let keeper = Arc::new(Keeper {
        db: kit.db.clone(),
        issuer: Issuer {
            environment: kit.config.environment.clone(),
            key: secrets.signing,
            retired: secrets.retired,
        },
        api_key_pepper: secrets.api_keys,
    });
    let authority = LocalAuthority {
        keeper: keeper.clone(),
        scope: kit.scope(),
    };
    let guesses = GUESSES.saturating_mul(kit.config.rate_scale);
    let identity = Arc::new(Identity {
        db: kit.db,
        users: Cache::new(kit.redis.clone(), "identity.user.v2"),
        limiter: Limiter::new(kit.redis.clone()),
        guesses: Limit {
            per_minute: guesses,
            burst: guesses,
        },
        redis: kit.redis,
        ring: kit.ring,
        passwords: Passwords::new(secrets.passwords).await?,
        keeper,
        refreshing: Default::default(),
    });
    let auth = AuthServiceServer::from_arc(identity.clone());
    let organizations = OrganizationServiceServer::from_arc(identity.clone());
    let users = UserServiceServer::from_arc(identity.clone());
    let api_keys = ApiKeyServiceServer::from_arc(identity);
    Ok(Parts::new()
        .authority(authority)
        .serve(auth.max_decoding_message_size(LARGEST_MESSAGE))
        .serve(organizations.max_decoding_message_size(LARGEST_MESSAGE))
        .serve(users.max_decoding_message_size(LARGEST_MESSAGE))
        .serve(api_keys.max_decoding_message_size(LARGEST_MESSAGE)))
}
