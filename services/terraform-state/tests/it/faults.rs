//! A network that loses, spoils and cuts: no lock is stuck, and no version is lost or written twice.

use kit::failpoint;
use testkit::faults::{Dice, Faults};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cli::{Checkout, terraform},
    world::{WORK, World, basic, id, lock_info, state},
};

/// How many cycles.
const CYCLES: u32 = 50;

/// The seed of a run, told so that it can be repeated.
fn seed() -> u64 {
    let given = std::env::var("BOARD3_FAULTS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let seed = given.unwrap_or(u64::try_from(now.as_nanos() & 0xffff_ffff).unwrap());
    eprintln!("BOARD3_FAULTS_SEED={seed}");
    seed
}

/// A caller who tries and gives up as Terraform does.
struct Rider<'a> {
    faults: &'a Faults,
    authorization: String,
    name: &'a str,
}

/// An answer as it came: its body may be cut.
struct Heard {
    status: u16,
    body: Option<Vec<u8>>,
}

impl Rider<'_> {
    /// One try; none where no answer's head came whole.
    async fn once(&self, method: &str, query: &str, body: &str) -> Option<Heard> {
        let mut stream = TcpStream::connect(self.faults.address()).await.ok()?;
        let request = format!(
            "{method} /v1/states/{}{query} HTTP/1.1\r\nhost: board3\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.name,
            self.authorization,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut heard = Vec::new();
        // What a broken connection brought is heard too.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut heard))
            .await
            .unwrap();
        let end = heard.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&heard[..end]).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = heard[end + 4..].to_vec();
        Some(Heard {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            body: (length.map(|length| length.parse().unwrap()) == Some(body.len())).then_some(body),
        })
    }

    /// Three tries at what may pass.
    async fn ask(&self, method: &str, query: &str, body: &str) -> Option<Heard> {
        let mut last = None;
        for _ in 0..3 {
            last = self.once(method, query, body).await;
            if last
                .as_ref()
                .is_some_and(|heard| heard.status < 500 && heard.status != 429)
            {
                break;
            }
        }
        last
    }

    async fn status(&self, method: &str, query: &str, body: &str) -> Option<u16> {
        self.ask(method, query, body).await.map(|heard| heard.status)
    }

    /// A plan, or an apply that writes the serial after the one that it reads; answers the one that was written.
    async fn cycle(&self, applies: bool, value: &str) -> Option<u64> {
        let lock = id();
        let info = lock_info(&lock, "OperationTypeApply");
        if self.status("LOCK", "", &info).await != Some(200) {
            // Whoever is refused does not give back what it does not hold.
            return None;
        }
        let mut written = None;
        let read = self.ask("GET", "", "").await;
        let serial = match &read {
            Some(Heard { status: 404, .. }) => Some(0),
            Some(Heard {
                status: 200,
                body: Some(body),
            }) => {
                let read: serde_json::Value = serde_json::from_slice(body).unwrap();
                read["serial"].as_u64()
            }
            // Half an answer is none, and ends the run.
            _ => None,
        };
        if let Some(serial) = serial.filter(|_| applies) {
            let sent = state(serial + 1, "l", value);
            if self.status("POST", &format!("?ID={lock}"), &sent).await == Some(200) {
                written = Some(serial + 1);
            }
        }
        self.status("UNLOCK", "", &info).await;
        written
    }
}

/// What went wrong in a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Harm {
    stuck: i64,
    lost: usize,
    doubled: usize,
}

/// So many cycles on a state through a proxy with faults; a lock that is stuck ends them.
async fn ride(world: &World, name: &str, seed: u64) -> (Harm, usize) {
    let faults = Faults::before(world.door(), seed).await;
    let rider = Rider {
        faults: &faults,
        authorization: basic(&world.token(world.org, &WORK)),
        name,
    };
    let (mut harm, mut written) = (Harm::default(), Vec::new());
    let mut dice = Dice::new(seed ^ 1);
    for cycle in 0..CYCLES {
        let applies = dice.below(3) > 0;
        written.extend(rider.cycle(applies, &format!("cycle {cycle}")).await);
        let held = "select count(*) from state_locks l join states s on s.org_id = l.org_id and s.id = l.state_id";
        harm.stuck = world.number(&format!("{held} where s.name = '{name}'")).await;
        if harm.stuck > 0 {
            break;
        }
    }
    let rows = format!(
        "select v.serial from state_versions v join states s on s.org_id = v.org_id and s.id = v.state_id
        where s.name = '{name}' order by v.number"
    );
    let rows = world.admin.query(&rows, &[]).await.unwrap();
    let mut kept: Vec<u64> = rows.iter().map(|row| row.get::<_, i64>(0).unsigned_abs()).collect();
    let count = kept.len();
    kept.dedup();
    harm.doubled = count - kept.len();
    harm.lost = written.iter().filter(|serial| !kept.contains(serial)).count();
    eprintln!("{:?}", faults.done());
    (harm, written.len())
}

#[tokio::test]
async fn no_lock_is_stuck_and_no_version_lost_or_doubled_whatever_the_network_does() {
    let world = World::new().await;
    let (harm, written) = ride(&world, "faulty", seed()).await;
    assert_eq!(harm, Harm::default());
    assert!(written > 0);
}

#[tokio::test]
async fn without_the_repeat_such_a_network_leaves_a_stuck_lock() {
    let world = World::new().await;
    let _off = failpoint::switch_off("terraform_state.lock_repeat/faulty-and-strict");
    let (harm, _) = ride(&world, "faulty-and-strict", seed()).await;
    assert_eq!(harm.stuck, 1);
}

#[tokio::test]
async fn terraform_itself_survives_such_a_network() {
    let Some(program) = terraform() else { return };
    let world = World::new().await;
    let token = world.token(world.org, &WORK);
    let faults = Faults::before(world.door(), seed()).await;
    let mut checkout = Checkout::new(program, world.door(), "faulty", &token).await;
    checkout.reach(faults.address());
    let mut applied = 0;
    for cycle in 0..4 {
        checkout.write(&format!("cycle {cycle}"), "");
        // An answer to GET that is cut is the one fault that ends a run.
        applied += i64::from(checkout.apply().await.good);
        assert_eq!(world.number("select count(*) from state_locks").await, 0);
    }
    let doubled = "select count(*) - count(distinct serial) from state_versions";
    assert_eq!(world.number(doubled).await, 0);
    assert!(world.versions("faulty").await >= applied, "{:?}", faults.done());
}
