//! Two organizations in a suite of their own, the credentials that a sweep calls with, and what the tables hold.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use api::{
    designs::v1::{Canvas, CreateDesignRequest, Design, Edge, EdgeKind, Node, Position, PublishDesignRequest, Size},
    policy::{METHODS, Method, PERMISSIONS, Scope},
};
use kit::{
    auth::token::{AccessClaims, SigningKey},
    crypto::KeyRing,
    ids::{OrgId, Principal, UserId},
};
use secrecy::ExposeSecret;
use tokio_postgres::Client;
use tonic::transport::Channel;
use uuid::Uuid;

use super::{
    people::{Rights, add_role},
    tables::{Held, Tables},
    wire::{self, Answer},
    works::{RUNNER, Works},
};
use crate::{
    house::{House, SLICES, eventually},
    story::{Person, blank},
};

/// A suite with two organizations.
pub(crate) struct World {
    pub(crate) house: House,
    pub(crate) admin: Client,
    tables: Tables,
    pub(crate) a: Tenant,
    pub(crate) b: Tenant,
    channels: BTreeMap<&'static str, Channel>,
    signing: SigningKey,
    keys: tokio::sync::Mutex<BTreeMap<(String, Vec<&'static str>), String>>,
    peers: Mutex<BTreeMap<String, String>>,
}

/// An organization with one of everything.
pub(crate) struct Tenant {
    pub(crate) owner: Person,
    /// Published, with three nodes.
    pub(crate) design: Design,
    pub(crate) other_design: Design,
    /// A member without a permission.
    pub(crate) member: String,
    /// A role that no other organization has.
    pub(crate) role: String,
    pub(crate) template: String,
    pub(crate) audit_log: String,
    /// What only identity has.
    pub(crate) rights: Rights,
    /// A state, a pipeline and what belongs to them.
    pub(crate) works: Works,
}

impl World {
    /// A new suite, quiet.
    pub(crate) async fn new() -> World {
        // Leases of the sweep's stages outlive it, and nothing is compacted meanwhile.
        let later =
            ["LEASE_SECONDS", "LEASE_MARGIN_SECONDS", "STATE_COMPACT_AFTER_SECONDS"].map(|it| format!("BOARD3_{it}"));
        let house = House::open_with(&later.each_ref().map(|name| (name.as_str(), "600"))).await;
        let admin = house.database().admin().await;
        let channels = SLICES.map(|slice| (slice, house.door(slice).channel())).into();
        let (a, b) = (
            Tenant::new(&house, &admin, "ada").await,
            Tenant::new(&house, &admin, "bob").await,
        );
        let runners = [&a, &b].map(|tenant| ((tenant.owner.org.clone(), RUNNER.to_vec()), tenant.works.key.clone()));
        let keys = runners.into();
        let signing = signing_key(&house, &admin).await;
        let world = World {
            house,
            signing,
            tables: Tables::new(&admin).await,
            admin,
            a,
            b,
            channels,
            keys: tokio::sync::Mutex::new(keys),
            peers: Mutex::default(),
        };
        world.quiet().await;
        assert_eq!(
            world.tables.unknown(&world.admin).await,
            [],
            "quiet() waits for all who read events"
        );
        world
    }

    /// The channel to a service.
    pub(crate) fn channel(&self, slice: &str) -> &Channel {
        &self.channels[slice]
    }

    /// A call to the service that has the RPC; to identity where all have it.
    pub(crate) async fn call(&self, method: &Method, credential: &str, message: &[u8]) -> Answer {
        wire::call(self.channel(places(method)[0]), method.path, credential, message).await
    }

    /// An API key of an organization with these scopes, made once.
    pub(crate) async fn key(&self, tenant: &Tenant, scopes: &[&'static str]) -> String {
        let name = (tenant.owner.org.clone(), scopes.to_vec());
        let mut keys = self.keys.lock().await;
        if let Some(key) = keys.get(&name) {
            return key.clone();
        }
        let key = self.house.api_key(&tenant.owner, scopes).await.secret;
        keys.insert(name, key.clone());
        key
    }

    /// A key that may do everything but this.
    pub(crate) async fn key_without(&self, tenant: &Tenant, permission: &str) -> String {
        let others: Vec<_> = PERMISSIONS
            .iter()
            .copied()
            .filter(|other| *other != permission)
            .collect();
        self.key(tenant, &others).await
    }

    /// The credential that a call to an RPC needs at least, in an organization.
    pub(crate) async fn credential(&self, method: &Method, tenant: &Tenant) -> String {
        match method.scope {
            Scope::Public => String::new(),
            Scope::User => tenant.owner.access.clone(),
            Scope::Organization => self.key(tenant, &[method.permission]).await,
            Scope::Peer => {
                let named = method.peers.iter().find(|peer| **peer != "*");
                self.peer(named.copied().unwrap_or("designs"))
            }
        }
    }

    /// A token of a service.
    pub(crate) fn peer(&self, slice: &str) -> String {
        let mut peers = self.peers.lock().unwrap();
        peers
            .entry(slice.to_owned())
            .or_insert_with(|| wire::of_service(self.service_key(slice), slice))
            .clone()
    }

    /// The key that a service signs with.
    pub(crate) fn service_key(&self, slice: &str) -> SigningKey {
        let environment = self.house.environment(slice);
        let (_, seed) = environment
            .iter()
            .find(|(name, _)| name == "BOARD3_SERVICE_KEY")
            .expect("every service has one");
        key_of(seed)
    }

    /// The key that access tokens are signed with.
    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// What a genuine token of a person says, but for its end.
    pub(crate) fn claims(&self, person: &Person, ends_in: i64) -> AccessClaims {
        let now = std::time::SystemTime::now();
        let by = Duration::from_secs(ends_in.unsigned_abs());
        AccessClaims {
            principal: Principal::User(UserId(id(&person.user))),
            org: Some(OrgId(id(&person.org))),
            session: id(&person.session),
            epoch: 1,
            permission_version: 1,
            expires_at: if ends_in < 0 { now - by } else { now + by },
        }
    }

    /// Credentials that nobody may come in with, and what is wrong with each.
    pub(crate) fn refused_credentials(&self, tenant: &Tenant) -> Vec<(&'static str, String)> {
        let (key, claims) = (self.signing_key(), self.claims(&tenant.owner, 300));
        let stranger = SigningKey::from_seed(&[42; 32]);
        let genuine = &tenant.owner.access;
        let mut forged = genuine.clone().into_bytes();
        let middle = forged.len() / 2;
        forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
        vec![
            ("garbage", "garbage".to_owned()),
            ("a token cut short", genuine[..genuine.len() - 30].to_owned()),
            (
                "a token with a changed letter",
                String::from_utf8(forged).expect("base64 is ASCII"),
            ),
            (
                "an expired token",
                key.sign_access("test", &self.claims(&tenant.owner, -1)),
            ),
            ("a token of another environment", key.sign_access("production", &claims)),
            ("a token of an unknown key", stranger.sign_access("test", &claims)),
            (
                "a service's token with an access key",
                key.sign_service("test", "designs"),
            ),
            (
                "an access token with a service's key",
                self.service_key("designs").sign_access("test", &claims),
            ),
            (
                "a service's token of another environment",
                self.service_key("designs").sign_service("production", "designs"),
            ),
            (
                "a service in another's name",
                self.service_key("designs").sign_service("test", "identity"),
            ),
            (
                "an API key that was never made",
                kit::crypto::ApiKey::generate("test").expose().to_owned(),
            ),
            ("half an API key", "b3_test_abcdefghijkl_short".to_owned()),
        ]
    }

    /// A user without a session who is a member without a permission.
    pub(crate) async fn add_member(&self, tenant: &Tenant) -> String {
        self.add_member_of(&tenant.owner.org).await
    }

    /// As [`World::add_member`], of any organization that has the tenants' roles.
    pub(crate) async fn add_member_of(&self, org: &str) -> String {
        add_member(&self.admin, org).await
    }

    /// A new design of an organization, with three nodes.
    pub(crate) async fn add_design(&self, tenant: &Tenant) -> Design {
        let request = CreateDesignRequest {
            canvas: Some(canvas(3)),
            ..blank("a design of the sweep")
        };
        let answer = tenant.owner.designs(&self.house).create_design(request).await;
        answer
            .expect("CreateDesign")
            .into_inner()
            .design
            .expect("CreateDesign answers the design")
    }

    /// A version of a design.
    pub(crate) async fn publish(&self, tenant: &Tenant, design: &str) {
        let request = PublishDesignRequest {
            design_id: design.to_owned(),
            ..PublishDesignRequest::default()
        };
        tenant
            .owner
            .designs(&self.house)
            .publish_design(request)
            .await
            .expect("PublishDesign");
    }

    /// Waits until every event has a position, every consumer has come to it, and all mail is sent.
    pub(crate) async fn quiet(&self) {
        self.tables.quiet(&self.admin).await;
    }

    /// Rows and a hash of every table, but for what a mere call moves: when a session or key was last used.
    ///
    /// `but` names tables to leave out. A refusal that the trail must hold is written to the outbox, gets its position
    /// and is read by consumers: with [`TRAIL`] left out, nothing else may change.
    pub(crate) async fn tables(&self, but: &[&str]) -> Held {
        let mut held = self.tables.held(&self.admin).await;
        held.retain(|table, _| table.split_once('.').is_none_or(|(_, name)| !but.contains(&name)));
        held
    }

    /// The rows of the trail that a call left: organization, action, outcome, reason, actor's kind, resource's type.
    pub(crate) async fn trail(&self, request_id: &str) -> Vec<[String; 6]> {
        let sql = "select org_id::text, coalesce(action, ''), coalesce(outcome::text, ''), coalesce(reason, ''),
            coalesce(actor_kind::text, ''), coalesce(resource_type, '') from audit.audit_logs where request_id = $1";
        let rows = self
            .admin
            .query(sql, &[&request_id])
            .await
            .expect("an administrator sees everything");
        rows.iter()
            .map(|row| [0, 1, 2, 3, 4, 5].map(|column| row.get(column)))
            .collect()
    }
}

/// What a refusal may add to: events on their way, and the trail itself.
pub(crate) const TRAIL: &[&str] = &["outbox", "relay_head", "inbox", "cursors", "audit_logs"];

impl Tenant {
    async fn new(house: &House, admin: &Client, name: &str) -> Tenant {
        let owner = house.sign_up(name).await;
        let role = format!("only {name}'s");
        for role in [role.as_str(), "bare", "idle"] {
            add_role(admin, &owner.org, role).await;
        }
        let member = add_member(admin, &owner.org).await;
        let template = add_template(admin, &owner.org, "a template of the sweep").await;
        let request = CreateDesignRequest {
            canvas: Some(canvas(3)),
            ..blank("a design of the sweep")
        };
        let made = owner
            .designs(house)
            .create_design(request)
            .await
            .expect("CreateDesign")
            .into_inner();
        let design = made.design.expect("CreateDesign answers the design");
        let other_design = house.design(&owner, "another design of the sweep").await;
        let publish = PublishDesignRequest {
            design_id: design.id.clone(),
            ..PublishDesignRequest::default()
        };
        owner
            .designs(house)
            .publish_design(publish)
            .await
            .expect("PublishDesign");
        let design = house.read_design(&owner, &design.id).await.expect("GetDesign");
        let works = Works::new(house, admin, &owner, &design.id).await;
        let rights = Rights::new(house, admin, &owner, &role).await;
        let audit_log = eventually("the trail holds a row", Duration::from_secs(20), async || {
            let sql = "select id::text from audit.audit_logs where org_id = $1::text::uuid limit 1";
            let row = admin
                .query_opt(sql, &[&owner.org])
                .await
                .expect("an administrator sees everything");
            row.map(|row| row.get::<_, String>(0))
        })
        .await;
        Tenant {
            owner,
            design,
            other_design,
            member,
            role,
            template,
            audit_log,
            rights,
            works,
        }
    }
}

/// The services that have an RPC.
pub(crate) fn places(method: &Method) -> Vec<&'static str> {
    match SLICES.iter().find(|slice| **slice == method.slice) {
        Some(slice) => vec![slice],
        None => SLICES.to_vec(),
    }
}

/// An RPC by the end of its path.
pub(crate) fn method(action: &str) -> &'static Method {
    METHODS
        .iter()
        .find(|method| method.action == action)
        .unwrap_or_else(|| panic!("there is no {action}"))
}

/// A member without a permission, written by an administrator.
pub(super) async fn add_member(admin: &Client, org: &str) -> String {
    let (user, unique) = (Uuid::now_v7().to_string(), Uuid::new_v4().simple().to_string());
    let sql = "insert into identity.users (id, email, username, first_name, last_name, password_hash)
        values ($1::text::uuid, $2, $3, 'Member', 'Testson', 'none')";
    admin
        .execute(sql, &[&user, &format!("{unique}@example.test"), &unique])
        .await
        .expect("an administrator makes a user");
    let sql = "insert into identity.organization_members (org_id, user_id, role_org_id, role_id)
        select org_id, $2::text::uuid, org_id, id from identity.roles where org_id = $1::text::uuid and name = 'bare'";
    admin
        .execute(sql, &[&org, &user])
        .await
        .expect("an administrator makes a member");
    user
}

/// A template of an organization, written by an administrator.
pub(crate) async fn add_template(admin: &Client, org: &str, name: &str) -> String {
    let template = Uuid::now_v7().to_string();
    let sql = "insert into designs.templates (org_id, id, name, description, category, cloud_provider, canvas, canvas_hash)
        select $1::text::uuid, $2::text::uuid, $3, '', 'starter', cloud_provider, canvas, canvas_hash from designs.templates
        where org_id = '00000000-0000-7000-8000-000000000000' order by name limit 1";
    admin
        .execute(sql, &[&org, &template, &name])
        .await
        .expect("an administrator makes a template");
    template
}

/// A canvas with so many nodes, and an edge where there are two.
pub(crate) fn canvas(nodes: usize) -> Canvas {
    let node = |n: usize| Node {
        id: format!("node-{n}"),
        resource_type: "terraform_data".to_owned(),
        name: format!("thing_{n}"),
        position: Some(Position {
            x: 10.0 * n as f64,
            y: 20.0,
        }),
        size: Some(Size {
            width: 160.0,
            height: 80.0,
        }),
        ..Node::default()
    };
    let edge = Edge {
        from: "node-0".to_owned(),
        to: "node-1".to_owned(),
        kind: EdgeKind::DependsOn.into(),
    };
    Canvas {
        nodes: (0..nodes).map(node).collect(),
        edges: if nodes > 1 { vec![edge] } else { Vec::new() },
    }
}

/// The key that access tokens are signed with, opened as only identity can.
async fn signing_key(house: &House, admin: &Client) -> SigningKey {
    let row = admin
        .query_one(
            "select kid, seed from identity.signing_keys where state = 'active'",
            &[],
        )
        .await
        .expect("identity has a key that signs");
    let ring = KeyRing::parse(&house.secrets().encryption_key, "").expect("a key is 64 hex digits");
    let (kid, sealed): (&str, &[u8]) = (row.get(0), row.get(1));
    let seed = ring
        .open(sealed, kid.as_bytes())
        .expect("the seed is sealed for its key");
    SigningKey::from_seed(seed.expose_secret().try_into().expect("a seed has 32 bytes"))
}

fn key_of(seed: &str) -> SigningKey {
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed, &mut bytes).expect("a key is 64 hex digits");
    SigningKey::from_seed(&bytes)
}

fn id(text: &str) -> Uuid {
    text.parse().expect("an id is a UUID")
}
