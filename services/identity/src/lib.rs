//! Identity: users, organizations, roles, sessions, API keys and invitations, and the tokens that the suite believes.
//!
//! Promises: nobody holds more than what is granted to them now, nobody gives what they do not hold, a refresh token
//! works once, and no secret is kept: of passwords, tokens and keys there are hashes under keys that the database lacks.

mod authority;
mod forgetting;
mod issuer;
mod mail;
mod model;
mod password;
mod platform;
mod rpc;
mod schema;
mod signing_keys;
mod store;
mod throttle;
mod wire;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use api::identity::v1::{
    api_key_service_server::ApiKeyServiceServer, auth_service_server::AuthServiceServer,
    organization_service_server::OrganizationServiceServer, role_service_server::RoleServiceServer,
    session_service_server::SessionServiceServer, signing_key_service_server::SigningKeyServiceServer,
    user_service_server::UserServiceServer,
};
use diesel_migrations::embed_migrations;
use kit::{
    auth::token::{PublicKey, SigningKey},
    config::Env,
    crypto::Pepper,
    db::migrate::Slice,
    rate::{Limit, Limiter},
    service::{Build, Kit, Parts, Service},
    views::Views,
};

use crate::{
    authority::{Keeper, LocalAuthority},
    issuer::Issuer,
    mail::{Mailer, Post, Settings},
    password::Passwords,
    platform::Admins,
    rpc::Identity,
    signing_keys::SigningKeys,
    throttle::Throttle,
};

/// The largest message that is accepted.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// Wrong passwords a minute for one account, and at once.
const GUESSES: u32 = 10;

/// How long verifiers have to learn of a new signing key, in seconds: twice as long as one goes without asking that no
/// event reaches.
const LEAD: u64 = 2 * kit::auth::KEYS_REFRESHED_EVERY.as_secs();

static SLICE: Slice = Slice {
    name: "identity",
    migrations: embed_migrations!("../../migrations/identity"),
};

/// The identity service.
///
/// Reads `BOARD3_ROOT_KEY` (Ed25519 seed of the key that vouches for the signing keys), `BOARD3_SIGNING_KEY_LEAD_SECONDS`
/// (how long verifiers have to learn of a new one), `PASSWORD_PEPPER`, `API_KEY_PEPPER`, `BOARD3_MAIL`
/// (where e-mail goes), `BOARD3_MAIL_FROM` and
/// `BOARD3_PLATFORM_ADMINS` (optional: e-mail addresses of the accounts that own the platform's organization, with commas).
pub const SERVICE: Service = Service {
    slice: &SLICE,
    configure,
};

/// The service's own secrets, and who administers the platform.
struct Secrets {
    root: SigningKey,
    lead: Duration,
    passwords: Pepper,
    api_keys: Pepper,
    admins: Admins,
}

fn configure(env: &mut Env) -> Option<Build> {
    let root = root(env);
    let lead = env.number("BOARD3_SIGNING_KEY_LEAD_SECONDS", LEAD, 0..=3_600);
    let passwords = pepper(env, "PASSWORD_PEPPER");
    let api_keys = pepper(env, "API_KEY_PEPPER");
    let admins = Admins::read(env);
    let mail = Settings::read(env);
    let secrets = Secrets {
        root: root?,
        lead: Duration::from_secs(lead?),
        passwords: passwords?,
        api_keys: api_keys?,
        admins: admins?,
    };
    let mail = mail?;
    Some(Box::new(move |kit| Box::pin(build(kit, secrets, mail))))
}

fn pepper(env: &mut Env, name: &str) -> Option<Pepper> {
    let text = env.required(name)?;
    Pepper::parse(&text)
        .map_err(|problem| env.problem(format!("{name} {problem}")))
        .ok()
}

fn root(env: &mut Env) -> Option<SigningKey> {
    let root = SigningKey::from_seed(&env.key("BOARD3_ROOT_KEY")?);
    let pinned = env.optional("BOARD3_ROOT_PUBLIC_KEY");
    // One that is missing or malformed is told of where every service reads it.
    if let Some(pinned) = pinned.as_deref().and_then(PublicKey::parse)
        && pinned.id() != root.key_id()
    {
        env.problem("BOARD3_ROOT_PUBLIC_KEY is not the public half of BOARD3_ROOT_KEY");
        return None;
    }
    Some(root)
}

async fn build(kit: Kit, secrets: Secrets, mail: Settings) -> kit::Result<Parts> {
    let keys = Arc::new(SigningKeys::new(&kit, secrets.root, secrets.lead));
    let keeper = Arc::new(Keeper {
        db: kit.db.clone(),
        issuer: Issuer {
            environment: kit.config.environment.clone(),
            keys: keys.clone(),
        },
        api_key_pepper: secrets.api_keys,
    });
    let authority = LocalAuthority {
        keeper: keeper.clone(),
        scope: kit.scope(),
    };
    let (settle, forget) = (secrets.admins.clone().settle(&kit), forgetting::run(&kit));
    let guesses = GUESSES.saturating_mul(kit.config.rate_scale);
    let passwords = Passwords::new(secrets.passwords).await?;
    let made = passwords.made();
    kit.metrics
        .reading("password_hashes", "Hashes made of passwords, set or tried", move || {
            vec![(String::new(), made.load(Ordering::Relaxed) as f64)]
        });
    let limiter = Limiter::new(kit.redis.clone());
    let post = Post::new(kit.ring.clone(), limiter.clone(), kit.config.rate_scale);
    let mailer = Mailer::new(kit.clone(), mail, post.bell());
    let identity = Arc::new(Identity {
        db: kit.db,
        own_views: Views::new(kit.redis.clone(), "identity.own.v1"),
        throttle: Throttle::new(limiter.clone(), kit.ring.clone(), kit.config.rate_scale),
        limiter,
        post,
        guesses: Limit {
            per_minute: guesses,
            burst: guesses,
        },
        redis: kit.redis,
        ring: kit.ring,
        passwords,
        admins: secrets.admins,
        keeper,
        refreshing: Default::default(),
    });
    macro_rules! server {
        ($server:ident) => {
            $server::from_arc(identity.clone()).max_decoding_message_size(LARGEST_MESSAGE)
        };
    }
    Ok(Parts::new()
        .authority(authority)
        .work(keys.keep())
        .work(settle)
        .work(forget)
        .work(mailer.run())
        .serve(server!(AuthServiceServer))
        .serve(server!(SessionServiceServer))
        .serve(server!(UserServiceServer))
        .serve(server!(OrganizationServiceServer))
        .serve(server!(RoleServiceServer))
        .serve(server!(ApiKeyServiceServer))
        .serve(server!(SigningKeyServiceServer)))
}
