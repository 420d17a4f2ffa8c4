//! A proxy before a server over HTTP/1.1 that does what networks do: it loses requests and answers, spoils and cuts them.
//!
//! What it does follows from its seed and the order of the requests alone. Of one method at most two requests in a row
//! come to harm, so whoever tries three times gets through.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// How many requests of one method come to harm in a row at most.
const IN_A_ROW: u32 = 2;
/// How long what is slow stands still, at each of its stops.
const SLOW: Duration = Duration::from_millis(20);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It passes.
    None,
    /// It is lost before the server has it.
    DropBefore,
    /// Its answer is lost, once the server has given it.
    DropAfter,
    /// Its answer is replaced with 502, once the server has given it.
    BadGateway,
    /// It and its answer come late, and in pieces.
    Slow,
    /// The server gets a part of it.
    CutRequest,
    /// The caller gets a part of its answer.
    CutAnswer,
}

const FAULTS: [Fault; 6] = [
    Fault::DropBefore,
    Fault::DropAfter,
    Fault::BadGateway,
    Fault::Slow,
    Fault::CutRequest,
    Fault::CutAnswer,
];

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound).expect("a usize is no longer than 64 bits");
        usize::try_from((mixed ^ (mixed >> 31)) % bound).expect("it is below a usize")
    }
}

/// A proxy that runs until it is dropped.
pub struct Faults {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    accepting: AbortHandle,
}

struct Plan {
    dice: Dice,
    in_a_row: HashMap<String, u32>,
    done: BTreeMap<(String, Fault), u32>,
}

impl Plan {
    /// What becomes of the next request of a method, and a number to cut it by.
    fn next(&mut self, method: &str) -> (Fault, usize) {
        let harmed = self.in_a_row.entry(method.to_owned()).or_default();
        let mut fault = match self.dice.below(2) {
            0 => Fault::None,
            _ => FAULTS[self.dice.below(FAULTS.len())],
        };
        if *harmed >= IN_A_ROW {
            fault = Fault::None;
        }
        *harmed = match fault {
            Fault::None | Fault::Slow => 0,
            _ => *harmed + 1,
        };
        *self.done.entry((method.to_owned(), fault)).or_default() += 1;
        (fault, self.dice.below(usize::MAX))
    }
}

impl Faults {
    /// A proxy before this server, with the faults of this seed.
    pub async fn before(server: SocketAddr, seed: u64) -> Faults {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let plan = Arc::new(Mutex::new(Plan {
            dice: Dice::new(seed),
            in_a_row: HashMap::new(),
            done: BTreeMap::new(),
        }));
        let between = plan.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let plan = between.clone();
                // What breaks here is a fault like the others.
                tokio::spawn(async move { relay(client, server, &plan).await.is_ok() });
            }
        });
        Faults {
            address,
            plan,
            accepting: accepting.abort_handle(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often what became of the requests of which method.
    pub fn done(&self) -> BTreeMap<(String, Fault), u32> {
        self.plan.lock().expect("nobody panics with it").done.clone()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One request and its answer, on connections of their own.
async fn relay(mut client: TcpStream, server: SocketAddr, plan: &Mutex<Plan>) -> io::Result<()> {
    let Some(request) = request(&mut client).await? else {
        return Ok(());
    };
    let method = String::from_utf8_lossy(request.split(|byte| *byte == b' ').next().unwrap_or_default()).into_owned();
    let (fault, number) = plan.lock().expect("nobody panics with it").next(&method);
    if fault == Fault::DropBefore {
        return Ok(());
    }
    let mut upstream = TcpStream::connect(server).await?;
    match fault {
        Fault::CutRequest => return upstream.write_all(&request[..number % request.len()]).await,
        Fault::Slow => {
            let (one, other) = request.split_at(request.len() / 2);
            upstream.write_all(one).await?;
            tokio::time::sleep(SLOW).await;
            upstream.write_all(other).await?;
        }
        _ => upstream.write_all(&request).await?,
    }
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Ok(());
    }
    match fault {
        Fault::DropAfter => Ok(()),
        Fault::BadGateway => {
            let bad = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            client.write_all(bad).await
        }
        Fault::CutAnswer => client.write_all(&answer[..number % answer.len()]).await,
        Fault::Slow => {
            let (one, other) = answer.split_at(answer.len() / 2);
            client.write_all(one).await?;
            tokio::time::sleep(SLOW).await;
            client.write_all(other).await
        }
        Fault::None | Fault::DropBefore | Fault::CutRequest => client.write_all(&answer).await,
    }
}

/// A whole request, which asks for an answer that ends with its connection; none where the caller says nothing.
async fn request(client: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&read[..end - 2]).into_owned();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let chunked = header("transfer-encoding").is_some();
    let length: usize = header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    // What comes in chunks here is Terraform's empty body; a longer one ends the same way.
    while if chunked {
        !read[end..].ends_with(b"0\r\n\r\n")
    } else {
        read.len() < end + length
    } {
        if client.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let kept = head
        .split_inclusive("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut request: Vec<u8> = kept.collect::<String>().into_bytes();
    request.extend_from_slice(b"connection: close\r\n\r\n");
    request.extend_from_slice(&read[end..]);
    Ok(Some(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_requests_follows_from_the_seed_and_never_three_come_to_harm() {
        let plan = |seed| Plan {
            dice: Dice::new(seed),
            in_a_row: HashMap::new(),
            done: BTreeMap::new(),
        };
        let (mut one, mut same, mut other) = (plan(1), plan(1), plan(2));
        let all = |plan: &mut Plan| (0..500).map(|_| plan.next("LOCK").0).collect::<Vec<_>>();
        let faults = all(&mut one);
        assert_eq!(faults, all(&mut same));
        assert_ne!(faults, all(&mut other));
        let harmed = |fault: &Fault| !matches!(fault, Fault::None | Fault::Slow);
        assert!(faults.windows(3).all(|three| !three.iter().all(harmed)));
        assert!(FAULTS.iter().all(|fault| faults.contains(fault)));
    }
}
