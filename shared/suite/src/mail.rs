//! Signing up as a person does, whose mail lies in a directory: what a suite with `BOARD3_MAIL=file:<directory>` sends.
//!
//! Nobody here takes a token from anywhere but a message to the address that it is for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use api::identity::v1::auth_service_client::AuthServiceClient;
use api::identity::v1::{SignUpRequest, VerifyEmailRequest, VerifyEmailResponse};
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

/// The setting of identity that names the directory.
pub const SETTING: &str = "BOARD3_MAIL";

/// A message that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// No token is shorter, and nothing else on a line of its own is as long.
const SHORTEST_TOKEN: usize = 24;

/// A directory with a file for each message that was sent.
#[derive(Clone, Debug)]
pub struct Mailbox {
    dir: PathBuf,
}

/// The messages that come after a moment.
#[derive(Debug)]
pub struct Watch {
    mailbox: Mailbox,
    /// Those that were there before, or are for nobody who was asked for.
    old: BTreeSet<PathBuf>,
}

impl Mailbox {
    /// The messages in `dir`, which is made where it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn in_dir(dir: &Path) -> Result<Mailbox> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        Ok(Mailbox { dir: dir.to_owned() })
    }

    /// The directory that a setting names.
    ///
    /// # Errors
    /// When it names none: mail that is really sent cannot be read here.
    pub fn of_setting(setting: &str) -> Result<Mailbox> {
        let dir = setting.strip_prefix("file:");
        let dir =
            dir.with_context(|| format!("{SETTING} is no `file:<directory>`, so nobody here can read its mail"))?;
        Mailbox::in_dir(Path::new(dir))
    }

    /// What identity is told, so that mail comes here.
    pub fn setting(&self) -> String {
        format!("file:{}", self.dir.display())
    }

    /// Where the messages lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What comes from now on; asked for before the call that sends something.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn watch(&self) -> Result<Watch> {
        Ok(Watch {
            old: self.messages()?,
            mailbox: self.clone(),
        })
    }

    /// Every message's text, oldest name first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn texts(&self) -> Result<Vec<String>> {
        let messages = self.messages()?.into_iter();
        messages
            .map(|path| fs::read_to_string(&path).with_context(|| path.display().to_string()))
            .collect()
    }

    fn messages(&self) -> Result<BTreeSet<PathBuf>> {
        let mut messages = BTreeSet::new();
        for entry in fs::read_dir(&self.dir).with_context(|| self.dir.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "eml") {
                messages.insert(path);
            }
        }
        Ok(messages)
    }
}

impl Watch {
    /// Waits for a message with a token to this address, and answers the token.
    ///
    /// # Errors
    /// When none comes within a minute.
    pub async fn token(&mut self, address: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for path in self.mailbox.messages()? {
                if self.old.contains(&path) {
                    continue;
                }
                // A file that has gone, or is being written, is looked at again.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                if let Some(token) = token_to(address, &text) {
                    self.old.insert(path);
                    return Ok(token);
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "no message with a token came to {address} within {} s",
                    PATIENCE.as_secs()
                );
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The token in a message to this address.
fn token_to(address: &str, text: &str) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n")?;
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let to = headers.find(|(name, _)| name.eq_ignore_ascii_case("to"))?.1;
    let to = to.trim().rsplit('<').next()?.trim_end_matches('>');
    if !to.eq_ignore_ascii_case(address) {
        return None;
    }
    let is_token = |line: &&str| {
        line.len() >= SHORTEST_TOKEN && line.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    // The last line must be whole.
    let body = body.rsplit_once('\n')?.0;
    body.lines().map(str::trim).find(is_token).map(str::to_owned)
}

/// Signs up at identity, takes the token from the mail, and gives it back: user and organization are there afterwards.
///
/// # Errors
/// What identity refuses, as it is, and [`tonic::Code::Unknown`] where no message comes.
pub async fn join(identity: Channel, mailbox: &Mailbox, request: SignUpRequest) -> Result<VerifyEmailResponse, Status> {
    let lost = |error: anyhow::Error| Status::unknown(format!("{error:#}"));
    let mut auth = AuthServiceClient::new(identity);
    let email = request.email.clone();
    let mut watch = mailbox.watch().map_err(lost)?;
    auth.sign_up(request).await?;
    let verify = VerifyEmailRequest {
        token: watch.token(&email).await.map_err(lost)?,
        request_id: Uuid::now_v7().to_string(),
        ..Default::default()
    };
    Ok(auth.verify_email(verify).await?.into_inner())
}

/// The mailbox that the environment of a running suite names.
///
/// # Errors
/// When it names none.
pub fn of(variables: &crate::variables::Variables) -> Result<Mailbox> {
    let setting = variables
        .get(SETTING)
        .ok_or_else(|| anyhow!("{SETTING} is not in the env file"))?;
    Mailbox::of_setting(setting)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TOKEN: &str = "b3e_0123456789abcdefghijklmnopqrstuvwxyzABCD";

    fn message(to: &str) -> String {
        format!(
            "From: Board3 <no-reply@board3.local>\r\nTo: {to}\r\nSubject: Hello\r\n\r\nTake this:\r\n\r\n{TOKEN}\r\n\r\nBye\r\n"
        )
    }

    #[test]
    fn a_token_is_taken_from_a_message_to_the_address_and_from_no_other() {
        for to in ["ada@example.test", "<Ada@Example.test>", "Ada <ada@example.test>"] {
            assert_eq!(
                token_to("ada@example.test", &message(to)).as_deref(),
                Some(TOKEN),
                "{to}"
            );
        }
        assert_eq!(token_to("ada@example.test", &message("bob@example.test")), None);
        assert_eq!(token_to("ada@example.test", &message("bada@example.test")), None);
        let without = message("ada@example.test").replace(TOKEN, "no token here");
        assert_eq!(token_to("ada@example.test", &without), None);
    }

    #[tokio::test]
    async fn what_was_there_before_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let mailbox = Mailbox::of_setting(&format!("file:{}", dir.path().display())).unwrap();
        fs::write(dir.path().join("1.eml"), message("ada@example.test")).unwrap();
        let mut watch = mailbox.watch().unwrap();
        let newer = message("ada@example.test").replace(TOKEN, &TOKEN.replace('0', "9"));
        fs::write(dir.path().join("0.eml"), newer).unwrap();
        assert_eq!(watch.token("ada@example.test").await.unwrap(), TOKEN.replace('0', "9"));
        assert!(Mailbox::of_setting("smtp://mail.example.test").is_err());
    }
}
