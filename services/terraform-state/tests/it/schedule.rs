//! Schedules of checks for drift: each due time has one outcome, and no check takes a lock.

use api::{
    events::v1::{ActorKind, DriftCheckAnswered, DriftCheckRequested, ExecutionChanged, event::Payload},
    terraform_state::v1::{
        CreateDriftScheduleRequest, DeleteDriftScheduleRequest, DeleteStateRequest, DriftRun, DriftRunOutcome,
        DriftSchedule, GetDriftScheduleRequest, ListDriftSchedulesRequest, UpdateDriftScheduleRequest,
        drift_schedule_service_client::DriftScheduleServiceClient,
    },
};
use kit::failpoint::{self, Action};
use prost_types::{Duration, FieldMask};
use testkit::Caller;
use tonic::Status;
use uuid::Uuid;

use crate::world::{EVERYTHING, World, id, reason};

/// Due once in a while, and never while a test runs that is not begun in the last second of a year.
const YEARLY: &str = "0 0 1 1 *";

struct Desk {
    world: World,
    client: DriftScheduleServiceClient<Caller>,
}

impl Desk {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(env: &[(&str, &str)]) -> Self {
        let world = World::with(env).await;
        let client = DriftScheduleServiceClient::new(world.served.caller(world.org, &EVERYTHING));
        Desk { world, client }
    }

    async fn make(&self, schedule: DriftSchedule) -> Result<DriftSchedule, Status> {
        let request = CreateDriftScheduleRequest {
            drift_schedule: Some(schedule),
            ..Default::default()
        };
        let made = self.client.clone().create_drift_schedule(request).await?;
        Ok(made.into_inner().drift_schedule.unwrap())
    }

    /// A schedule of a new state of this name.
    async fn scheduled(&self, name: &str) -> DriftSchedule {
        let state = self.world.grpc(&EVERYTHING).create(name).await.unwrap();
        self.make(yearly(&state.id)).await.unwrap()
    }

    async fn get(&self, id: &str) -> Result<DriftSchedule, Status> {
        let request = GetDriftScheduleRequest {
            drift_schedule_id: id.to_owned(),
        };
        let got = self.client.clone().get_drift_schedule(request).await?;
        Ok(got.into_inner().drift_schedule.unwrap())
    }

    async fn update(&self, schedule: DriftSchedule, paths: &[&str]) -> Result<DriftSchedule, Status> {
        let request = UpdateDriftScheduleRequest {
            drift_schedule_id: schedule.id.clone(),
            etag: schedule.etag.clone(),
            drift_schedule: Some(schedule),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..Default::default()
        };
        let updated = self.client.clone().update_drift_schedule(request).await?;
        Ok(updated.into_inner().drift_schedule.unwrap())
    }

    /// Lets a schedule be due so many seconds ago.
    async fn due(&self, schedule: &DriftSchedule, seconds: u32) {
        self.all_due(std::slice::from_ref(schedule), seconds).await;
    }

    /// Lets schedules be due at once.
    async fn all_due(&self, schedules: &[DriftSchedule], seconds: u32) {
        let ids: Vec<String> = schedules.iter().map(|schedule| format!("'{}'", schedule.id)).collect();
        let due = format!(
            "with t as (select clock_timestamp() - interval '{seconds} s' as due)
             update drift_schedules set due_at = due, run_at = due,
               run_before = due + make_interval(secs => window_seconds)
             from t where id in ({})",
            ids.join(", ")
        );
        self.world.admin.batch_execute(&due).await.unwrap();
    }

    /// Waits until the newest run of a schedule has this outcome.
    async fn came_to(&self, schedule: &DriftSchedule, outcome: DriftRunOutcome) -> DriftRun {
        let start = std::time::Instant::now();
        loop {
            let now = self.get(&schedule.id).await.unwrap();
            if let Some(run) = now.last_run
                && run.outcome() == outcome
            {
                return run;
            }
            let waited = start.elapsed() < std::time::Duration::from_secs(60);
            assert!(waited, "{outcome:?}: {:?}", self.get(&schedule.id).await);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// What pipelines has been asked for.
    async fn asked(&self) -> Vec<DriftCheckRequested> {
        let events = self.world.events().await.into_iter();
        let asked = events.filter_map(|event| match event.payload {
            Some(Payload::DriftCheckRequested(asked)) => Some(asked),
            _ => None,
        });
        asked.collect()
    }

    /// Pipelines answers a run: with an execution, or with why there is none.
    fn answer(&self, run: &DriftRun, execution: &str, refusal: &str) {
        let answer = DriftCheckAnswered {
            drift_run_id: run.id.clone(),
            execution_id: execution.to_owned(),
            refusal: refusal.to_owned(),
        };
        let office = &self.world.served.office;
        office.tell_as("pipelines", self.world.org, Payload::DriftCheckAnswered(answer));
    }

    /// An execution stands elsewhere.
    fn stands(&self, execution: &str, state: &str, status: &str, revision: i64) {
        let changed = ExecutionChanged {
            execution_id: execution.to_owned(),
            pipeline_id: Uuid::now_v7().to_string(),
            state_name: state.to_owned(),
            status: status.to_owned(),
            trigger: "schedule".to_owned(),
            revision,
            ..Default::default()
        };
        let office = &self.world.served.office;
        office.tell_as("pipelines", self.world.org, Payload::ExecutionChanged(changed));
    }
}

fn yearly(state: &str) -> DriftSchedule {
    DriftSchedule {
        state_id: state.to_owned(),
        pipeline_id: Uuid::now_v7().to_string(),
        cron: YEARLY.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_schedule_is_made_changed_paused_listed_and_ended() {
    let desk = Desk::new().await;
    let state = desk.world.grpc(&EVERYTHING).create("prod").await.unwrap();
    let made = desk
        .make(DriftSchedule {
            time_zone: "europe/berlin".to_owned(),
            jitter: Some(Duration { seconds: 600, nanos: 0 }),
            ..yearly(&state.id)
        })
        .await
        .unwrap();
    assert_eq!(
        (made.time_zone.as_str(), made.window.unwrap().seconds),
        ("Europe/Berlin", 3_600)
    );
    // The year begins at 23:00 UTC in Berlin.
    let next = made.next_run_time.unwrap().seconds;
    let year = next - made.jitter.unwrap().seconds..=next;
    let begin = "select extract(epoch from date_trunc('year', now() at time zone 'Europe/Berlin') + interval '1 year'
                 - interval '1 hour')::bigint";
    assert!(year.contains(&desk.world.number(begin).await), "{made:?}");
    assert_eq!(desk.get(&made.id).await.unwrap(), made);

    let changed = DriftSchedule {
        cron: "*/5 * * * *".to_owned(),
        paused: true,
        ..made.clone()
    };
    let paused = desk.update(changed, &["cron", "paused"]).await.unwrap();
    assert_eq!(
        (paused.next_run_time, paused.paused, paused.cron.as_str()),
        (None, true, "*/5 * * * *")
    );
    assert_ne!(paused.etag, made.etag);
    let stale = desk.update(made.clone(), &["paused"]).await;
    assert_eq!(reason(stale).0, "ETAG_MISMATCH");
    let again = desk
        .update(
            DriftSchedule {
                paused: false,
                ..paused
            },
            &["paused"],
        )
        .await
        .unwrap();
    assert!(again.next_run_time.is_some());

    let second = desk.make(yearly(&state.id)).await.unwrap();
    let list = ListDriftSchedulesRequest {
        page_size: 1,
        state_id: state.id.clone(),
        ..Default::default()
    };
    let first = desk
        .client
        .clone()
        .list_drift_schedules(list.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.drift_schedules, [second]);
    let more = ListDriftSchedulesRequest {
        page_token: first.next_page_token,
        ..list
    };
    let more = desk
        .client
        .clone()
        .list_drift_schedules(more)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((more.drift_schedules, more.next_page_token.as_str()), (vec![again], ""));

    let delete = DeleteDriftScheduleRequest {
        drift_schedule_id: made.id.clone(),
        ..Default::default()
    };
    desk.client.clone().delete_drift_schedule(delete.clone()).await.unwrap();
    assert_eq!(reason(desk.get(&made.id).await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(
        reason(desk.client.clone().delete_drift_schedule(delete).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let foreign = desk.make(yearly(&Uuid::now_v7().to_string())).await;
    assert_eq!(reason(foreign).0, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_schedule_is_told_at_once() {
    let desk = Desk::new().await;
    let wrong = DriftSchedule {
        state_id: "x".to_owned(),
        cron: "61 * * * *".to_owned(),
        time_zone: "Berlin".to_owned(),
        window: Some(Duration { seconds: 59, nanos: 0 }),
        jitter: Some(Duration { seconds: 1, nanos: 5 }),
        ..Default::default()
    };
    let fields = ["state_id", "pipeline_id", "cron", "time_zone", "window", "jitter"];
    let fields: Vec<String> = fields.iter().map(|field| format!("drift_schedule.{field}")).collect();
    assert_eq!(reason(desk.make(wrong).await), ("INVALID_REQUEST".to_owned(), fields));
    assert_eq!(desk.world.number("select count(*) from drift_schedules").await, 0);
}

#[tokio::test]
async fn what_is_due_is_asked_of_pipelines_and_followed_to_its_end() {
    let desk = Desk::new().await;
    let schedule = desk.scheduled("prod").await;
    desk.due(&schedule, 1).await;
    let run = desk.came_to(&schedule, DriftRunOutcome::Requested).await;
    let asked = desk.asked().await;
    let [asked] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(
        (
            &asked.drift_run_id,
            &asked.drift_schedule_id,
            &asked.pipeline_id,
            asked.state_name.as_str()
        ),
        (&run.id, &schedule.id, &schedule.pipeline_id, "prod")
    );
    let author = asked.author.clone().unwrap();
    assert_eq!((author.kind(), &author.id), (ActorKind::User, &schedule.author_id));
    assert_eq!(asked.begin_before.unwrap().seconds, run.due_at.unwrap().seconds + 3_600);
    let acted = ("terraform_state.RequestDriftCheck".to_owned(), String::new());
    assert!(desk.world.audited().await.contains(&acted));
    assert!(desk.get(&schedule.id).await.unwrap().next_run_time == schedule.next_run_time);

    let execution = Uuid::now_v7().to_string();
    desk.stands(&execution, "prod", "queued", 1);
    desk.answer(&run, &execution, "");
    let running = desk.came_to(&schedule, DriftRunOutcome::Running).await;
    assert_eq!((running.id, running.execution_id), (run.id, execution.clone()));
    // While it goes on, the next is skipped.
    desk.due(&schedule, 0).await;
    desk.came_to(&schedule, DriftRunOutcome::StateBusy).await;
    desk.stands(&execution, "prod", "succeeded", 2);
    desk.world
        .until("select count(*) from drift_runs where outcome = 'succeeded'", 1)
        .await;
    assert_eq!(desk.asked().await.len(), 1);
    // What pipelines refuses is told with its reason.
    desk.due(&schedule, 0).await;
    let run = desk.came_to(&schedule, DriftRunOutcome::Requested).await;
    desk.answer(&run, "", "PERMISSION_MISSING");
    let refused = desk.came_to(&schedule, DriftRunOutcome::Refused).await;
    assert_eq!(
        (refused.reason.as_str(), refused.execution_id.as_str()),
        ("PERMISSION_MISSING", "")
    );
}

#[tokio::test]
async fn a_state_that_is_locked_late_or_deleted_is_skipped_and_its_lock_stands() {
    let desk = Desk::new().await;
    let schedule = desk.scheduled("prod").await;
    let (http, lock) = (desk.world.http(&EVERYTHING), id());
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    desk.due(&schedule, 1).await;
    desk.came_to(&schedule, DriftRunOutcome::StateLocked).await;
    assert_eq!(desk.world.number("select count(*) from state_locks").await, 1);
    assert_eq!(http.unlock("prod", &lock).await.status, 200);

    desk.due(&schedule, 3_601).await;
    desk.came_to(&schedule, DriftRunOutcome::Late).await;

    let delete = DeleteStateRequest {
        state_id: schedule.state_id.clone(),
        ..Default::default()
    };
    let mut grpc = desk.world.grpc(&EVERYTHING);
    let etag = grpc.named("prod").await.etag;
    grpc.states
        .delete_state(DeleteStateRequest { etag, ..delete })
        .await
        .unwrap();
    desk.due(&schedule, 1).await;
    desk.came_to(&schedule, DriftRunOutcome::StateDeleted).await;
    assert_eq!(desk.asked().await, []);
    // Its runs go with it.
    let delete = DeleteDriftScheduleRequest {
        drift_schedule_id: schedule.id,
        ..Default::default()
    };
    desk.client.clone().delete_drift_schedule(delete).await.unwrap();
    assert_eq!(desk.world.number("select count(*) from drift_runs").await, 0);
}

#[tokio::test]
async fn no_more_runs_of_an_organization_go_on_at_once_than_may() {
    let desk = Desk::with(&[("BOARD3_DRIFT_RUNS", "1")]).await;
    let (first, second, third) = (
        desk.scheduled("a").await,
        desk.scheduled("b").await,
        desk.scheduled("c").await,
    );
    desk.due(&first, 1).await;
    let run = desk.came_to(&first, DriftRunOutcome::Requested).await;
    desk.due(&second, 1).await;
    // It waits where the other, whose window has passed, does not.
    desk.due(&third, 3_601).await;
    desk.came_to(&third, DriftRunOutcome::OverCap).await;
    assert_eq!(desk.get(&second.id).await.unwrap().last_run, None);
    desk.answer(&run, "", "DESIGN_NOT_PUBLISHED");
    desk.came_to(&second, DriftRunOutcome::Requested).await;
    assert_eq!(desk.asked().await.len(), 2);
}

#[tokio::test]
async fn of_two_replicas_one_decides_on_a_due_time() {
    let desk = Desk::new().await;
    let schedule = desk.scheduled("prod").await;
    // Nothing but the claim stands between the two.
    let unguarded = "alter table drift_runs drop constraint drift_runs_due_key";
    desk.world.admin.batch_execute(unguarded).await.unwrap();
    let replica = desk.world.replica(&[("BOARD3_TERRAFORM_LISTEN", "127.0.0.1:0")]).await;
    let org = desk.world.org;
    let runs = format!("select count(*) from drift_runs where schedule_id = '{}'", schedule.id);
    let claimed = failpoint::arm(format!("terraform_state.schedule_claimed/{org}"), Action::Hold);
    let swept = failpoint::arm(format!("terraform_state.schedules_swept/{org}"), Action::Hold);
    desk.due(&schedule, 1).await;
    // One has it; the other has looked and found nothing.
    claimed.held(1).await;
    swept.held(1).await;
    assert_eq!(claimed.hits(), 1);
    claimed.release();
    desk.came_to(&schedule, DriftRunOutcome::Requested).await;
    swept.release();
    assert_eq!((desk.world.number(&runs).await, desk.asked().await.len()), (1, 1));

    // Without the claim both decide, and the due time has two outcomes.
    desk.world.admin.batch_execute("delete from drift_runs").await.unwrap();
    let _without = failpoint::switch_off(format!("terraform_state.schedule_claim/{org}"));
    let claimed = failpoint::arm(format!("terraform_state.schedule_claimed/{org}"), Action::Hold);
    desk.due(&schedule, 1).await;
    claimed.held(2).await;
    claimed.release();
    desk.world.until(&runs, 2).await;
    replica.stop().await;
}

#[tokio::test]
async fn two_replicas_keep_to_what_may_go_on_at_once() {
    let desk = Desk::with(&[("BOARD3_DRIFT_RUNS", "1")]).await;
    let schedules = [desk.scheduled("a").await, desk.scheduled("b").await];
    let replica = desk.world.replica(&[("BOARD3_TERRAFORM_LISTEN", "127.0.0.1:0")]).await;
    let org = desk.world.org;
    let live = "select count(*) from drift_runs where finished_at is null";
    let claimed = failpoint::arm(format!("terraform_state.schedule_claimed/{org}"), Action::Hold);
    let swept = failpoint::arm(format!("terraform_state.schedules_swept/{org}"), Action::Hold);
    desk.all_due(&schedules, 1).await;
    // Each has one of them, and each comes to an end with it.
    claimed.held(2).await;
    claimed.release();
    swept.held(2).await;
    assert_eq!(desk.world.number(live).await, 1);

    // Where the second does not wait for the first, neither counts the other's.
    desk.world.admin.batch_execute("delete from drift_runs").await.unwrap();
    let _without = failpoint::switch_off(format!("terraform_state.schedule_cap/{org}"));
    let counted = failpoint::arm(format!("terraform_state.schedule_counted/{org}"), Action::Hold);
    desk.all_due(&schedules, 0).await;
    swept.release();
    counted.held(2).await;
    counted.release();
    desk.world.until(live, 2).await;
    replica.stop().await;
}
