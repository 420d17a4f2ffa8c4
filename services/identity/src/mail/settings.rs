//! Where messages go, from the environment. No problem that is told repeats a password.

use std::{path::PathBuf, time::Duration};

use kit::config::Env;
use lettre::{
    AsyncSmtpTransport, Tokio1Executor,
    message::Mailbox,
    transport::smtp::{AsyncSmtpTransportBuilder, authentication::Credentials, extension::ClientId},
};
use url::Url;

use super::carrier::Carrier;

/// The longest that the other side is waited for at each step.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who writes, where nobody is told otherwise and nothing leaves the machine.
const LOCAL_SENDER: &str = "Board3 <board3@localhost>";

/// How messages leave, and in whose name.
pub(crate) struct Settings {
    pub(super) from: Mailbox,
    pub(super) carrier: Carrier,
}

/// What `BOARD3_MAIL` says.
enum Way {
    Directory(PathBuf),
    Server(Url),
}

impl Settings {
    /// Reads `BOARD3_MAIL` and `BOARD3_MAIL_FROM`; `None` when a problem was noted.
    pub(crate) fn read(env: &mut Env) -> Option<Self> {
        let way = way(env);
        let local = matches!(way, None | Some(Way::Directory(_)));
        let from = sender(env, local);
        let (way, from) = (way?, from?);
        let carrier = match way {
            Way::Directory(directory) => {
                if let Err(error) = std::fs::create_dir_all(&directory) {
                    env.problem(format!("BOARD3_MAIL: the directory cannot be made ({})", error.kind()));
                    return None;
                }
                Carrier::Directory(directory)
            }
            Way::Server(url) => match server(&url, &from) {
                Ok(server) => Carrier::Server(server),
                Err(problem) => {
                    env.problem(format!("BOARD3_MAIL {problem}"));
                    return None;
                }
            },
        };
        Some(Settings { from, carrier })
    }
}

fn way(env: &mut Env) -> Option<Way> {
    let text = env.required("BOARD3_MAIL")?;
    let directory = text.strip_prefix("file:").filter(|path| !path.is_empty());
    if let Some(path) = directory {
        return Some(Way::Directory(PathBuf::from(path)));
    }
    let url = Url::parse(&text)
        .ok()
        .filter(|url| matches!(url.scheme(), "smtp" | "smtps") && url.has_host() && url.path().len() < 2);
    if url.is_none() {
        env.problem("BOARD3_MAIL must be file:<directory>, smtp://<host>:<port> or smtps://<host>:<port>");
    }
    url.map(Way::Server)
}

fn sender(env: &mut Env, local: bool) -> Option<Mailbox> {
    let text = if local {
        env.optional("BOARD3_MAIL_FROM")
            .unwrap_or_else(|| LOCAL_SENDER.to_owned())
    } else {
        env.required("BOARD3_MAIL_FROM")?
    };
    let from = text.parse().ok();
    if from.is_none() {
        env.problem("BOARD3_MAIL_FROM must be an address like Board3 <board3@example.com>");
    }
    from
}

/// `smtps` speaks TLS from the first byte, `smtp` after STARTTLS, and in the clear only where `?tls=off` says so.
fn server(url: &Url, from: &Mailbox) -> Result<AsyncSmtpTransport<Tokio1Executor>, &'static str> {
    let host = url.host_str().ok_or("names no host")?;
    let mut clear = false;
    for (name, value) in url.query_pairs() {
        match (name.as_ref(), value.as_ref()) {
            ("tls", "off") if url.scheme() == "smtp" => clear = true,
            _ => return Err("takes no parameter but ?tls=off, and that after smtp:// only"),
        }
    }
    let prepared = if clear {
        Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host))
    } else if url.scheme() == "smtps" {
        AsyncSmtpTransport::<Tokio1Executor>::relay(host)
    } else {
        AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host)
    };
    let mut builder: AsyncSmtpTransportBuilder = prepared
        .map_err(|_| "names a host that no certificate can be of")?
        .timeout(Some(PATIENCE))
        .hello_name(ClientId::Domain(from.email.domain().to_owned()));
    if let Some(port) = url.port() {
        builder = builder.port(port);
    }
    match (url.username(), url.password()) {
        ("", None) => {}
        (user, Some(password)) if !user.is_empty() => {
            let credentials = Credentials::new(decoded(user)?, decoded(password)?);
            builder = builder.credentials(credentials);
        }
        _ => return Err("must hold a user and a password, or neither"),
    }
    Ok(builder.build())
}

/// Percent-encoding undone.
fn decoded(text: &str) -> Result<String, &'static str> {
    let plain = text.replace('+', "%2B");
    let pair = format!("x={plain}");
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    let text = pairs.next().map(|(_, value)| value.into_owned());
    text.filter(|_| !pair.contains('&'))
        .ok_or("holds what must be percent-encoded")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
        let mut env = Env::of(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        (Settings::read(&mut env), env.take_problems())
    }

    #[tokio::test]
    async fn good_settings_are_read_and_bad_ones_are_told_without_their_secrets() {
        let from = ("BOARD3_MAIL_FROM", "Board3 <board3@example.com>");
        for good in [
            "smtp://localhost:25?tls=off",
            "smtp://mail.example.com",
            "smtps://user:s%40cret@mail.example.com:465",
        ] {
            let (settings, problems) = read(&[("BOARD3_MAIL", good), from]);
            assert!(settings.is_some(), "{good}: {problems:?}");
        }
        for bad in [
            "",
            "file:",
            "sendmail",
            "http://example.com",
            "smtp://",
            "smtp://user:s3cr3t@",
            "smtp://user@example.com",
            "smtp://:s3cr3t@example.com",
            "smtp://user:s3cr3t@example.com/box",
            "smtp://user:s3cr3t@example.com?tls=maybe",
            "smtps://user:s3cr3t@example.com?tls=off",
            "smtp://user:s3cr3t@example.com:99999",
            "file:/dev/null/mail",
        ] {
            let (settings, problems) = read(&[("BOARD3_MAIL", bad), from]);
            assert!(settings.is_none() && problems.len() == 1, "{bad}: {problems:?}");
            assert!(problems[0].starts_with("BOARD3_MAIL ") || problems[0].starts_with("BOARD3_MAIL:"));
            assert!(!problems[0].contains("s3cr3t"));
        }
        let server = ("BOARD3_MAIL", "smtp://localhost:25?tls=off");
        assert_eq!(read(&[server]).1, ["BOARD3_MAIL_FROM is not set"]);
        for from in ["nobody", "a@b@c", "Board3 <board3@example.com"] {
            let (settings, problems) = read(&[server, ("BOARD3_MAIL_FROM", from)]);
            assert!(settings.is_none() && problems.len() == 1, "{from}: {problems:?}");
        }
    }

    #[test]
    fn percent_encoding_is_undone_and_a_plus_stays_one() {
        assert_eq!(decoded("s%40c+r%25et").unwrap(), "s@c+r%et");
        assert!(decoded("a&b").is_err());
    }
}
