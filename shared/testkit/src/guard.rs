//! A child process that cannot outlive its owner.
//!
//! Between owner and child stands a shell that reads the owner's orders from a pipe. However the owner ends, SIGKILL
//! included, the kernel closes the pipe; the shell then stops the child, waits for it and removes its directory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

// Arguments: the signal that asks the child to end, the directory to remove (may be empty), the child's command line.
// Terminal signals reach the owner, never this shell: it ignores them and has a process group of its own.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
stop=$1; dir=$2; shift 2
start() { "$@" </dev/null >&2 & child=$!; echo "$child"; }
end() {
  [ -n "$child" ] || return 0
  kill -CONT "$child" 2>/dev/null; kill -"$1" "$child" 2>/dev/null
  { i=0; while [ $i -lt 30 ]; do sleep 1; i=$((i + 1)); done; kill -KILL "$child"; } </dev/null >/dev/null 2>&1 &
  timer=$!
  wait "$child"; child=
  kill -KILL "$timer"; wait "$timer"
} 2>/dev/null
start "$@"
while read -r order; do
  case $order in
    start) end KILL; start "$@" ;;
    stop) end "$stop"; echo stopped ;;
    KILL) end KILL; echo stopped ;;
    *) kill -"$order" "$child"; echo done ;;
  esac
done
end "$stop"
[ -z "$dir" ] || rm -rf "$dir"
"#;

/// A running child and the pipe its life hangs on. Dropping it stops the child and waits for that.
#[derive(Debug)]
pub struct Guard {
    pipes: Arc<Mutex<Pipes>>,
    log: PathBuf,
}

#[derive(Debug)]
struct Pipes {
    shell: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pid: u32,
}

impl Guard {
    /// Starts `command` with its output appended to `log`.
    ///
    /// `stop` names the signal that asks it to end (30 s later comes KILL), `dir` what is removed after its end.
    pub fn spawn(command: &Command, stop: &str, dir: Option<&Path>, log: &Path) -> io::Result<Guard> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SCRIPT, "board3-guard", stop])
            .arg(dir.unwrap_or(Path::new("")));
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        let mut shell = shell
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(output))
            .spawn()?;
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("stdout was piped above"));
        let mut pipes = Pipes {
            shell,
            orders,
            answers,
            pid: 0,
        };
        pipes.pid = pipes.started()?;
        Ok(Guard {
            pipes: Arc::new(Mutex::new(pipes)),
            log: log.to_owned(),
        })
    }

    /// The child's process id; another one after [`Guard::start`].
    pub fn pid(&self) -> u32 {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner).pid
    }

    /// Whether the child still runs, where /proc tells; true elsewhere.
    pub fn alive(&self) -> bool {
        !Path::new("/proc/self/stat").exists() || running(self.pid())
    }

    /// Asks the child to end and waits until it has; its directory stays.
    pub async fn stop(&self) -> io::Result<()> {
        self.order("stop").await
    }

    /// Ends the child with SIGKILL and waits until it is gone; its directory stays.
    pub async fn kill(&self) -> io::Result<()> {
        self.order("KILL").await
    }

    /// Freezes the child.
    pub async fn pause(&self) -> io::Result<()> {
        self.order("STOP").await
    }

    /// Lets a frozen child go on.
    pub async fn resume(&self) -> io::Result<()> {
        self.order("CONT").await
    }

    /// Starts the same command again; what still runs of it is killed first.
    pub async fn start(&self) -> io::Result<()> {
        self.order("start").await
    }

    /// The end of what the child wrote, for messages about it.
    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    async fn order(&self, order: &'static str) -> io::Result<()> {
        let pipes = Arc::clone(&self.pipes);
        // The answer may take as long as the child takes to end, which may need the caller's runtime to go on.
        tokio::task::spawn_blocking(move || {
            let mut pipes = pipes.lock().unwrap_or_else(PoisonError::into_inner);
            let orders = pipes.orders.as_mut().expect("orders is taken by drop only");
            writeln!(orders, "{order}")?;
            if order == "start" {
                pipes.pid = pipes.started()?;
            } else {
                pipes.answer()?;
            }
            Ok(())
        })
        .await
        .map_err(io::Error::other)?
    }
}

impl Pipes {
    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the guarding shell is gone")),
            _ => Ok(line),
        }
    }

    fn started(&mut self) -> io::Result<u32> {
        self.answer()?.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.shell.wait();
    }
}

/// Whether a process of this id exists and is not just waiting to be reaped.
pub fn running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command's name, which may itself hold brackets and blanks.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
