//! How `board3 down` reaches the `board3 up` that runs in a directory.
//!
//! The running one listens on a loopback port that it names, with a secret, in the file `control`. A file that a
//! killed suite left behind leads nowhere, so it never ends somebody else's process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::layout::Layout;
use crate::random_hex;
use crate::variables::{self, Variables};

/// The end that listens.
pub struct Control {
    path: PathBuf,
    ready: watch::Sender<bool>,
    asked: watch::Receiver<bool>,
}

impl Control {
    /// Listens, unless a suite of this directory does so already.
    pub async fn listen(layout: &Layout) -> Result<Control> {
        if state(layout).await?.is_some() {
            bail!(
                "a suite already runs in {}; `./dev down` ends it",
                layout.dir().display()
            );
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let token = random_hex(16)?;
        let path = path(layout);
        let variables = [
            ("ADDRESS", listener.local_addr()?.to_string()),
            ("TOKEN", token.clone()),
        ];
        variables::write(
            &path,
            &variables
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect::<Variables>(),
        )?;
        let (ready, is_ready) = watch::channel(false);
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, token.clone(), is_ready.clone(), ask.clone()));
            }
        });
        Ok(Control { path, ready, asked })
    }

    /// From now on the suite counts as ready.
    pub fn ready(&self) {
        self.ready.send_replace(true);
    }

    /// Completes when somebody asks the suite to end.
    pub async fn asked_to_end(&self) {
        let mut asked = self.asked.clone();
        // The sender lives as long as the listening task, so this ends with a question only.
        let _ = asked.wait_for(|asked| *asked).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a suite runs in this directory, and if so, whether it is ready.
pub async fn state(layout: &Layout) -> Result<Option<bool>> {
    let Some((mut stream, token)) = reach(layout).await? else {
        return Ok(None);
    };
    Ok(
        match timeout(Duration::from_secs(5), ask(&mut stream, &token, "state")).await {
            Ok(Ok(answer)) if answer == "ready" => Some(true),
            Ok(Ok(answer)) if answer == "starting" => Some(false),
            _ => None,
        },
    )
}

/// Asks the suite of this directory to end and waits until it has; false where none runs.
pub async fn end(layout: &Layout) -> Result<bool> {
    let Some((mut stream, token)) = reach(layout).await? else {
        return Ok(false);
    };
    if ask(&mut stream, &token, "end").await? != "ending" {
        return Ok(false);
    }
    // The connection closes with the process.
    let mut rest = BufReader::new(stream).lines();
    timeout(Duration::from_secs(90), rest.next_line())
        .await
        .context("the suite was asked to end but still runs")?
        .ok();
    Ok(true)
}

fn path(layout: &Layout) -> PathBuf {
    layout.dir().join("control")
}

async fn reach(layout: &Layout) -> Result<Option<(TcpStream, String)>> {
    let variables = variables::read(&path(layout))?;
    let (Some(address), Some(token)) = (variables.get("ADDRESS"), variables.get("TOKEN")) else {
        return Ok(None);
    };
    Ok(TcpStream::connect(address)
        .await
        .ok()
        .map(|stream| (stream, token.clone())))
}

async fn ask(stream: &mut TcpStream, token: &str, question: &str) -> Result<String> {
    stream.write_all(format!("{token} {question}\n").as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await?;
    Ok(answer.trim().to_owned())
}

async fn answer(
    mut stream: TcpStream,
    token: String,
    ready: watch::Receiver<bool>,
    end: watch::Sender<bool>,
) -> Result<()> {
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await?;
    match line.trim().split_once(' ') {
        Some((given, "state")) if given == token => {
            let state: &[u8] = if *ready.borrow() { b"ready\n" } else { b"starting\n" };
            stream.write_all(state).await?;
        }
        Some((given, "end")) if given == token => {
            stream.write_all(b"ending\n").await?;
            end.send_replace(true);
            // Held open until the process ends.
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    Ok(())
}
