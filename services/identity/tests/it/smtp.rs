//! A small mail server (RFC 5321) that does what the test says with each message.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is taken.
    Take,
    /// Its recipient is refused for now.
    Refuse,
    /// Its recipient is refused for ever.
    Reject,
    /// The connection ends in the middle of it.
    Drop,
    /// It is taken, and the connection ends before that is said.
    TakeSilently,
}

/// The server and what it has taken.
#[derive(Clone)]
pub(crate) struct Smtp {
    address: SocketAddr,
    script: Arc<Mutex<VecDeque<Turn>>>,
    taken: Arc<Mutex<Vec<String>>>,
    seen: Arc<Mutex<Vec<Turn>>>,
}

impl Smtp {
    /// Does this with the first messages, and takes all others.
    pub(crate) async fn start(script: &[Turn]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Smtp {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            taken: Arc::default(),
            seen: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move {
                    // A client that hangs up is none of our business.
                    let _ = server.serve(stream).await;
                });
            }
        });
        server
    }

    /// As `BOARD3_MAIL`.
    pub(crate) fn setting(&self) -> String {
        format!("smtp://user:pass%20word@{}?tls=off", self.address)
    }

    /// The messages that were taken, as they came.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    /// What happened so far.
    pub(crate) fn seen(&self) -> Vec<Turn> {
        self.seen.lock().unwrap().clone()
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 test ready\r\n").await?;
        let mut turn = Turn::Take;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let answer = match verb.as_str() {
                "EHLO" => "250-test\r\n250 AUTH PLAIN\r\n",
                "AUTH" => {
                    // \0user\0pass word
                    assert_eq!(line.trim_end(), "AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk");
                    "235 welcome\r\n"
                }
                "MAIL" => {
                    turn = self.script.lock().unwrap().pop_front().unwrap_or(Turn::Take);
                    self.seen.lock().unwrap().push(turn);
                    "250 ok\r\n"
                }
                "RCPT" if turn == Turn::Refuse => "450 <ada@example.com> not now\r\n",
                "RCPT" if turn == Turn::Reject => "550 <ada@example.com> no such mailbox\r\n",
                "DATA" if turn == Turn::Drop => return Ok(()),
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let mut message = String::new();
                    while !message.ends_with("\r\n.\r\n") {
                        if stream.read_line(&mut message).await? == 0 {
                            return Ok(());
                        }
                    }
                    message.truncate(message.len() - 3);
                    self.taken.lock().unwrap().push(message);
                    if turn == Turn::TakeSilently {
                        return Ok(());
                    }
                    "250 taken\r\n"
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => "250 ok\r\n",
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
