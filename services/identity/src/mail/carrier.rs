//! Who takes messages: a mail server, or a directory of files in development and tests.

use std::{fmt, path::PathBuf};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use tokio::io::AsyncWriteExt;

use crate::model::{MailContent, MailId};

/// Takes messages.
pub(super) enum Carrier {
    /// One file for each, `<id>.eml`, that is there whole or not at all.
    Directory(PathBuf),
    /// By SMTP (RFC 5321).
    Server(AsyncSmtpTransport<Tokio1Executor>),
}

/// Why a message was not taken. What a server says may repeat the address, so of that only the number is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It makes no message: the address is none that can be written to.
    Malformed,
    /// The server's code.
    Answered(u16),
    TimedOut,
    /// The two sides could not agree on TLS.
    Tls,
    /// The connection could not be made, or broke.
    Unreachable,
    /// The file could not be written.
    File(std::io::ErrorKind),
}

impl Refused {
    /// Whether the same message would be refused again: it makes none, or the server says so (RFC 5321, 5yz). What a server
    /// says of us, and not of the message, is not for ever: our credentials (RFC 4954) and that it takes no mail (RFC 7504).
    pub(super) fn permanent(self) -> bool {
        match self {
            Refused::Malformed => true,
            Refused::Answered(code) => (500..600).contains(&code) && ![521, 530, 534, 535, 538].contains(&code),
            Refused::TimedOut | Refused::Tls | Refused::Unreachable | Refused::File(_) => false,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Malformed => f.write_str("no such address can be written to"),
            Refused::Answered(code) => write!(f, "the server answered {code}"),
            Refused::TimedOut => f.write_str("the server did not answer in time"),
            Refused::Tls => f.write_str("no trusted TLS with the server"),
            Refused::Unreachable => f.write_str("the server cannot be reached"),
            Refused::File(kind) => write!(f, "the file cannot be written: {kind}"),
        }
    }
}

impl Carrier {
    /// Hands a message over. Sent twice, it has one Message-ID, so that readers can tell.
    pub(super) async fn send(&self, id: MailId, from: &Mailbox, content: &MailContent) -> Result<(), Refused> {
        let message = message(id, from, content)?;
        match self {
            Carrier::Directory(directory) => {
                let (draft, place) = (directory.join(format!(".{id}")), directory.join(format!("{id}.eml")));
                let written = async {
                    let mut file = tokio::fs::File::create(&draft).await?;
                    file.write_all(&message.formatted()).await?;
                    file.sync_all().await?;
                    tokio::fs::rename(&draft, &place).await
                };
                written
                    .await
                    .map_err(|error: std::io::Error| Refused::File(error.kind()))
            }
            Carrier::Server(server) => match server.send(message).await {
                Ok(_) => Ok(()),
                Err(error) => Err(match error.status() {
                    Some(code) => Refused::Answered(u16::from(code)),
                    None if error.is_timeout() => Refused::TimedOut,
                    None if error.is_tls() => Refused::Tls,
                    None => Refused::Unreachable,
                }),
            },
        }
    }
}

fn message(id: MailId, from: &Mailbox, content: &MailContent) -> Result<Message, Refused> {
    let to = content.to.parse().map_err(|_| Refused::Malformed)?;
    Message::builder()
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(content.subject.as_str())
        .header(ContentType::TEXT_PLAIN)
        .body(content.text.clone())
        .map_err(|_| Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_the_message_is_for_ever_and_what_it_says_of_us_is_not() {
        for code in [500, 550, 552, 553, 554] {
            assert!(Refused::Answered(code).permanent(), "{code}");
        }
        for code in [421, 450, 451, 452, 521, 530, 535] {
            assert!(!Refused::Answered(code).permanent(), "{code}");
        }
        assert!(Refused::Malformed.permanent() && !Refused::TimedOut.permanent());
    }
}
