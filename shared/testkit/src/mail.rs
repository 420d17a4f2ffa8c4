//! The messages that a service under test has sent, as files in a directory of its own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use uuid::Uuid;

use crate::servers;

/// Where a service's messages lie.
#[derive(Debug)]
pub struct Mail(PathBuf);

/// A message as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The recipient.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The text, its lines ended by `\n`.
    pub text: String,
}

impl Letter {
    /// Reads RFC 5322 as services write it: no part but a text.
    fn read(file: &str) -> Letter {
        let (head, body) = file.split_once("\r\n\r\n").expect("a message has a head and a body");
        let head = head.replace("\r\n ", " ");
        let header = |name: &str| {
            let mut lines = head.lines();
            lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .unwrap_or_default()
                .to_owned()
        };
        let text = match header("Content-Transfer-Encoding").as_str() {
            "quoted-printable" => quoted_printable(body),
            "7bit" | "8bit" => body.to_owned(),
            other => panic!("a message is encoded as {other:?}"),
        };
        Letter {
            to: header("To"),
            subject: header("Subject"),
            text: text.replace("\r\n", "\n"),
        }
    }

    /// The token that stands on a line of its own.
    ///
    /// # Panics
    /// When there is none.
    pub fn token(&self) -> &str {
        let mut lines = self.text.lines();
        lines
            .find(|line| line.starts_with("b3"))
            .unwrap_or_else(|| panic!("no token: {self:?}"))
    }
}

impl Mail {
    /// In the directory of this process's Redis, which goes however the process ends.
    pub(crate) async fn new() -> Self {
        let url = servers::redis_url().await;
        let socket = Path::new(url.trim_start_matches("redis+unix://"));
        let beside = socket.parent().expect("the socket lies in a directory");
        let path = beside.join(format!("mail-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&path).expect("a directory can be made");
        Mail(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Everything that was sent to an address, oldest first.
    pub fn to(&self, address: &str) -> Vec<Letter> {
        self.all().into_iter().filter(|letter| letter.to == address).collect()
    }

    /// Everything that was sent, oldest first.
    pub fn all(&self) -> Vec<Letter> {
        let files = std::fs::read_dir(self.path()).expect("the directory is there");
        let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        // Names are time-ordered ids; those that are still being written have no such ending.
        files.retain(|path| path.extension().is_some_and(|ending| ending == "eml"));
        files.sort();
        let read = |path: PathBuf| std::fs::read_to_string(path).expect("a message is there whole");
        files.into_iter().map(|path| Letter::read(&read(path))).collect()
    }

    /// The latest message to an address with this in its subject; waits for it, at most 30 s.
    ///
    /// # Panics
    /// When there is none by then.
    pub async fn wait(&self, address: &str, subject: &str) -> Letter {
        let asked = async {
            loop {
                let mut letters = self.to(address).into_iter();
                let found = letters.rfind(|letter| letter.subject.contains(subject));
                match found {
                    Some(letter) => return letter,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), asked).await;
        waited.unwrap_or_else(|_| panic!("no message {subject:?} to {address}: {:?}", self.all()))
    }
}

fn quoted_printable(body: &str) -> String {
    let joined = body.replace("=\r\n", "");
    let mut bytes = joined.bytes();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'=' {
            let digits = [bytes.next(), bytes.next()].map(|digit| digit.map_or('0', char::from));
            let code: String = digits.into_iter().collect();
            text.push(u8::from_str_radix(&code, 16).expect("two hex digits follow"));
        } else {
            text.push(byte);
        }
    }
    String::from_utf8(text).expect("a message is UTF-8")
}
