//! A call that is cut inside its transaction leaves no transaction open and no tenant behind on its connection.

use std::time::Duration;

use api::designs::v1::{CreateDesignResponse, ListDesignsRequest, design_service_client::DesignServiceClient};
use kit::{
    failpoint::{self, Action},
    ids::OrgId,
};
use testkit::{Caller, Served, serve_with};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

use crate::{
    house::eventually,
    story::{blank, reason},
};

/// Inside every transaction, after its last statement.
const POINT: &str = "tx.before_commit";
/// How long held calls have; all must have come to the point by then, over connections that are open already.
const TIME: Duration = Duration::from_secs(10);

/// Failpoints and switches are the process's.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Bench {
    served: Served,
    org: OrgId,
    admin: tokio_postgres::Client,
}

impl Bench {
    async fn new() -> Bench {
        let served = serve_with(designs::SERVICE, &[("DATABASE_CONNECTIONS", "110")]).await;
        let admin = served.database.admin().await;
        Bench {
            served,
            org: OrgId::new(),
            admin,
        }
    }

    fn client(&self, org: OrgId) -> DesignServiceClient<Caller> {
        DesignServiceClient::new(self.served.caller(org, &["designs.*.*"]))
    }

    /// Transactions that stand open and do nothing.
    async fn idle_in_transaction(&self) -> i64 {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() \
                   and usename = 'board3_designs_app' and state like 'idle in transaction%'";
        self.admin.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Waits until the relay has nothing to do: it commits too, and would be held or panic with the calls.
    async fn relayed(&self) {
        let sql = "select not exists (select from designs.outbox where position is null)";
        let placed = async || {
            self.admin
                .query_one(sql, &[])
                .await
                .unwrap()
                .get::<_, bool>(0)
                .then_some(())
        };
        eventually("the relay is idle", Duration::from_secs(10), placed).await;
    }

    /// Opens as many connections as there will be calls: on a busy machine that may take longer than a call has.
    async fn connected(&self, calls: usize) {
        self.relayed().await;
        let point = failpoint::arm(POINT, Action::Hold);
        let client = self.client(self.org);
        let reading = (0..calls).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let patient = || {
                    let mut request = Request::new(ListDesignsRequest::default());
                    request.set_timeout(Duration::from_secs(60));
                    request
                };
                while overloaded(&client.list_designs(patient()).await) {}
            })
        });
        let reading: Vec<JoinHandle<_>> = reading.collect();
        point.held(calls).await;
        drop(point);
        for read in reading {
            read.await.unwrap();
        }
    }

    /// Starts calls, holds all inside their transactions, lets every second client hang up and the others run out of
    /// time; answers what these were told.
    async fn hold_and_cut<T: Send + 'static, F>(&self, calls: usize, call: impl Fn(usize) -> F) -> Vec<Status>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.connected(calls).await;
        self.relayed().await;
        let point = failpoint::arm(POINT, Action::Hold);
        let running: Vec<JoinHandle<_>> = (0..calls).map(|number| tokio::spawn(call(number))).collect();
        point.held(calls).await;
        assert!(
            self.idle_in_transaction().await >= calls as i64,
            "the point is not inside transactions"
        );
        let mut told = Vec::new();
        for (number, task) in running.into_iter().enumerate() {
            if number % 2 == 0 {
                task.abort();
            } else {
                told.extend(task.await.unwrap().err());
            }
        }
        // Still armed: nobody was let go, so whoever is gone was cut. A hung-up client's call runs to its deadline.
        let cut = async || {
            let pool = self.served.running.kit.db.statistics();
            (pool.idle == pool.connections).then_some(())
        };
        eventually("every call is cut", TIME + Duration::from_secs(20), cut).await;
        drop(point);
        told
    }

    async fn no_transaction_is_left(&self) {
        let none = async || (self.idle_in_transaction().await == 0).then_some(());
        eventually("no transaction is left open", Duration::from_secs(10), none).await;
        let left = self.served.running.kit.db.tenants_left().await.unwrap();
        assert!(
            left.iter().all(String::is_empty),
            "connections still belong to {left:?}"
        );
    }
}

async fn created(
    mut client: DesignServiceClient<Caller>,
    number: usize,
) -> Result<Response<CreateDesignResponse>, Status> {
    loop {
        let answer = client.create_design(blank(&format!("cut {number}"))).await;
        if !overloaded(&answer) {
            return answer;
        }
    }
}

/// All ran out of time, and were told so: the callers have no timer of their own.
#[track_caller]
fn were_cut(told: &[Status], calls: usize) {
    let reasons: Vec<_> = told.iter().map(reason).collect();
    let late = reasons.iter().filter(|reason| *reason == "DEADLINE_EXCEEDED").count();
    assert!(late == calls && told.len() == calls, "{reasons:?}");
}

/// A hundred new connections at once may take the database longer than a call waits for one.
fn overloaded<T>(answer: &Result<T, Status>) -> bool {
    answer.as_ref().is_err_and(|status| reason(status) == "OVERLOADED")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_cut_inside_their_transaction_leave_nothing_behind() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let bench = Bench::new().await;
    let client = bench.client(bench.org);
    client.clone().create_design(blank("the first")).await.unwrap();

    let list = |_| {
        let mut client = client.clone();
        async move {
            loop {
                let answer = client.list_designs(ListDesignsRequest::default()).await;
                if !overloaded(&answer) {
                    return answer;
                }
            }
        }
    };
    let told = bench.hold_and_cut(100, list).await;
    were_cut(&told, 50);
    bench.no_transaction_is_left().await;

    let create = |number| created(client.clone(), number);
    let told = bench.hold_and_cut(100, create).await;
    were_cut(&told, 50);
    bench.no_transaction_is_left().await;

    bench.relayed().await;
    let point = failpoint::arm(POINT, Action::Panic);
    for number in 0..20 {
        let told = create(number).await.unwrap_err();
        assert_eq!((told.code(), reason(&told).as_str()), (Code::Internal, "INTERNAL"));
    }
    assert!(point.hits() >= 20);
    drop(point);
    bench.no_transaction_is_left().await;

    let kept: i64 = bench
        .admin
        .query_one("select count(*) from designs.designs", &[])
        .await
        .unwrap()
        .get(0);
    let asked: i64 = bench
        .admin
        .query_one("select count(*) from designs.requests", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!((kept, asked), (1, 1), "something of a cut call was kept");
    let closed = bench.served.running.kit.db.statistics().broken;
    assert!(closed >= 220, "only {closed} connections were closed");
    client
        .clone()
        .create_design(blank("the second"))
        .await
        .expect("the service goes on");
    bench.served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_guard_a_cut_transaction_is_handed_to_the_next_caller() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let bench = Bench::new().await;
    let client = bench.client(bench.org);
    let _without = failpoint::switch_off("tx_guard");
    let create = |number| created(client.clone(), number);
    bench.hold_and_cut(10, create).await;
    let open = bench.idle_in_transaction().await;
    let left = bench.served.running.kit.db.tenants_left().await.unwrap();
    println!("without the guard, {open} of 10 cut transactions stand open, their tenants on the connections");
    assert!(
        open > 0 && left.contains(&bench.org.to_string()),
        "{open} open, {left:?}"
    );
    bench.served.running.stop().await;
}
