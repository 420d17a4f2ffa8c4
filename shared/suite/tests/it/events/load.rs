//! Many clients of several organizations that change things and never give up on a call.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use api::{
    designs::v1::{DeleteDesignRequest, Design, PublishDesignRequest, UpdateDesignRequest},
    identity::v1::InviteMemberRequest,
};
use futures_util::future::join_all;
use tonic::{Code, Request, Status};

use crate::{
    house::House,
    story::{Person, blank, reason, request_id},
};

/// The longest that one attempt waits, and that all attempts at one call take together.
const ATTEMPT: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(90);

/// An organization and the `request_id` of a change in it.
pub(super) type Change = (String, String);

/// Everybody who changes things, and what was acknowledged to them.
pub(super) struct Load {
    pub(super) people: Vec<Person>,
    acknowledged: Mutex<BTreeSet<Change>>,
    created: AtomicUsize,
    done: AtomicUsize,
    retried: AtomicUsize,
}

impl Load {
    /// `organizations` people, each the owner of an organization.
    pub(super) async fn new(house: &House, organizations: usize) -> Load {
        let mut people = Vec::new();
        for number in 0..organizations {
            people.push(house.sign_up(&format!("client{number}")).await);
        }
        Load {
            people,
            acknowledged: Mutex::default(),
            created: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            retried: AtomicUsize::new(0),
        }
    }

    /// Makes this many changes from `clients` clients of each organization at once.
    pub(super) async fn change(&self, house: &House, changes: usize, clients: usize) {
        let tickets = AtomicUsize::new(changes);
        let clients = self.people.iter().cycle().take(self.people.len() * clients);
        join_all(clients.map(|person| self.client(house, person, &tickets))).await;
    }

    /// What was acknowledged so far.
    pub(super) fn acknowledged(&self) -> BTreeSet<Change> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// The request ids of the changes that were acknowledged to a person, sorted.
    pub(super) fn acknowledged_to(&self, person: &Person) -> Vec<String> {
        let acknowledged = self.acknowledged();
        let own = acknowledged.iter().filter(|(org, _)| *org == person.org);
        own.map(|(_, id)| id.clone()).collect()
    }

    /// How many changes have been acknowledged.
    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// How many designs were made.
    pub(super) fn created(&self) -> usize {
        self.created.load(Ordering::SeqCst)
    }

    /// How many attempts had no answer.
    pub(super) fn retried(&self) -> usize {
        self.retried.load(Ordering::SeqCst)
    }

    /// The organizations.
    pub(super) fn orgs(&self) -> Vec<String> {
        self.people.iter().map(|person| person.org.clone()).collect()
    }

    /// One client: draws, changes, publishes and deletes designs, and invites somebody now and then.
    async fn client(&self, house: &House, person: &Person, tickets: &AtomicUsize) {
        let mut turn = 0;
        let mut drawn: Option<Design> = None;
        while take(tickets) {
            let id = request_id();
            drawn = match (turn % 5, drawn) {
                (1, Some(design)) => Some(self.update(house, person, design, &id).await),
                (2, Some(design)) => Some(self.publish(house, person, design, &id).await),
                (3, Some(design)) => self.delete(house, person, design, &id).await,
                (4, _) => self.invite(house, person, &id).await,
                _ => Some(self.create(house, person, &id).await),
            };
            turn += 1;
            self.acknowledged.lock().unwrap().insert((person.org.clone(), id));
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn create(&self, house: &House, person: &Person, id: &str) -> Design {
        let mut client = person.designs(house);
        let mut request = blank("drawn under fire");
        request.request_id = id.to_owned();
        let made = self
            .answered(async || client.create_design(timed(request.clone())).await)
            .await;
        self.created.fetch_add(1, Ordering::SeqCst);
        made.expect("CreateDesign")
            .into_inner()
            .design
            .expect("CreateDesign answers the design")
    }

    async fn update(&self, house: &House, person: &Person, mut design: Design, id: &str) -> Design {
        let mut client = person.designs(house);
        design.description = format!("changed by {id}");
        let request = UpdateDesignRequest {
            design_id: design.id.clone(),
            etag: design.etag.clone(),
            design: Some(design),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["description".to_owned()],
            }),
            request_id: id.to_owned(),
        };
        let updated = self
            .answered(async || client.update_design(timed(request.clone())).await)
            .await;
        updated
            .expect("UpdateDesign")
            .into_inner()
            .design
            .expect("UpdateDesign answers the design")
    }

    async fn publish(&self, house: &House, person: &Person, design: Design, id: &str) -> Design {
        let mut client = person.designs(house);
        let request = PublishDesignRequest {
            design_id: design.id.clone(),
            etag: design.etag.clone(),
            message: "as it stands".to_owned(),
            request_id: id.to_owned(),
        };
        self.answered(async || client.publish_design(timed(request.clone())).await)
            .await
            .expect("PublishDesign");
        design
    }

    async fn delete(&self, house: &House, person: &Person, design: Design, id: &str) -> Option<Design> {
        let mut client = person.designs(house);
        let request = DeleteDesignRequest {
            design_id: design.id,
            etag: String::new(),
            request_id: id.to_owned(),
        };
        self.answered(async || client.delete_design(timed(request.clone())).await)
            .await
            .expect("DeleteDesign");
        None
    }

    async fn invite(&self, house: &House, person: &Person, id: &str) -> Option<Design> {
        let mut client = person.organizations(house);
        let request = InviteMemberRequest {
            email: format!("guest-{id}@example.test"),
            role: "viewer".to_owned(),
            request_id: id.to_owned(),
        };
        match self
            .answered(async || client.invite_member(timed(request.clone())).await)
            .await
        {
            // The first attempt was heard, and its answer lost.
            Err(status) if reason(&status) == "SECRET_ALREADY_SHOWN" => {}
            answer => assert!(answer.is_ok(), "InviteMember: {answer:?}"),
        }
        None
    }

    /// Repeats a call until it has an answer.
    async fn answered<T>(&self, mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Status> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match call().await {
                Err(status) if unanswered(&status) && Instant::now() < deadline => {
                    self.retried.fetch_add(1, Ordering::SeqCst);
                    // As a polite client would.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return answer,
            }
        }
    }
}

/// What became of a house's changes in the trail.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Acknowledged, and not in the trail.
    pub(super) lost: Vec<Change>,
    /// In the trail more than once.
    pub(super) twice: Vec<Change>,
    /// In the trail, and never acknowledged.
    pub(super) unexpected: Vec<Change>,
    /// Anything else that must not be.
    pub(super) crooked: Vec<String>,
}

impl Findings {
    /// Compares what was acknowledged, what the outboxes hold and what the trail holds.
    pub(super) async fn of(house: &House, load: &Load) -> Findings {
        let (mut found, admin, orgs) = (Findings::default(), house.database().admin().await, load.orgs());
        let acknowledged = load.acknowledged();

        let sql = "select org_id::text, coalesce(idempotency_key, ''), source || ' ' || id::text, outcome::text, \
                   coalesce(action, '') from audit.audit_logs";
        let mut trail: BTreeMap<Change, usize> = BTreeMap::new();
        let mut recorded: BTreeSet<String> = BTreeSet::new();
        for row in admin.query(sql, &[]).await.unwrap() {
            let (org, key, event): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let (outcome, action): (Option<String>, String) = (row.get(3), row.get(4));
            found.crooked(recorded.insert(event.clone()), || {
                format!("{event} is in the trail twice")
            });
            // How the organizations came to be is no part of the load.
            if orgs.contains(&org) && !key.is_empty() && action != "identity.VerifyEmail" {
                found.crooked(outcome.as_deref() == Some("success"), || {
                    format!("{event} has outcome {outcome:?}")
                });
                *trail.entry((org, key)).or_default() += 1;
            }
        }
        for change in &acknowledged {
            match trail.get(change) {
                None => found.lost.push(change.clone()),
                Some(1) => {}
                Some(_) => found.twice.push(change.clone()),
            }
        }
        let strange = trail.keys().filter(|change| !acknowledged.contains(*change));
        found.unexpected = strange.cloned().collect();

        let mut told: BTreeSet<String> = BTreeSet::new();
        for slice in crate::house::SLICES {
            let sql = format!("select position, envelope from {slice}.outbox order by id");
            let mut positions = Vec::new();
            for row in admin.query(&sql, &[]).await.unwrap() {
                positions.push(row.get::<_, Option<i64>>(0));
                let event = <api::events::v1::Event as prost::Message>::decode(row.get::<_, &[u8]>(1)).unwrap();
                if event.audited {
                    told.insert(format!("{slice} {}", event.event_id));
                }
            }
            let count = positions.len() as i64;
            let head = format!("select position from {slice}.relay_head");
            let head: i64 = admin.query_one(&head, &[]).await.unwrap().get(0);
            found.crooked(head == count, || {
                format!("{slice} has {count} events, and its head is {head}")
            });
            positions.sort_unstable();
            let dense = positions.iter().copied().eq((1..=count).map(Some));
            found.crooked(dense, || format!("the positions of {slice} are not 1 to {count}"));
        }
        for event in told.difference(&recorded) {
            found.crooked.push(format!("{event} was told and is not in the trail"));
        }
        for event in recorded.difference(&told) {
            found
                .crooked
                .push(format!("{event} is in the trail and was never told"));
        }

        let sql = "select count(*) from designs.designs where org_id::text = any($1)";
        let designs: i64 = admin.query_one(sql, &[&orgs]).await.unwrap().get(0);
        let made = load.created() as i64;
        found.crooked(designs == made, || {
            format!("{made} designs were made, and there are {designs}")
        });
        let sql = "select count(*) from audit.dead_letters";
        let dead: i64 = admin.query_one(sql, &[]).await.unwrap().get(0);
        found.crooked(dead == 0, || format!("there are {dead} dead letters"));
        found
    }

    /// Whether every change is in the trail exactly once, and nothing else is.
    pub(super) fn sound(&self) -> bool {
        self.lost.is_empty() && self.twice.is_empty() && self.unexpected.is_empty() && self.crooked.is_empty()
    }

    fn crooked(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.crooked.push(what());
        }
    }
}

/// Whether the trail has come to the end of every slice's log.
pub(super) async fn drained(admin: &tokio_postgres::Client) -> bool {
    for slice in crate::house::SLICES {
        let sql = format!(
            "select not exists (select from {slice}.outbox where position is null) and h.position = coalesce( \
               (select min(c.position) from audit.cursors c where c.source = h.source and c.epoch = h.epoch), 0) \
             from {slice}.relay_head h"
        );
        if !admin.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0) {
            return false;
        }
    }
    true
}

/// Whether a failed call may have had an effect, or may succeed when it is repeated.
fn unanswered(status: &Status) -> bool {
    // Without a reason it was made by the transport and not by the suite.
    reason(status).is_empty()
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Aborted
        ) && reason(status) != "ETAG_MISMATCH"
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ATTEMPT);
    request
}

fn take(tickets: &AtomicUsize) -> bool {
    tickets
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
        .is_ok()
}
