//! The process between the runner and one Terraform, so that Terraform never goes on alone.
//!
//! It alone signals Terraform, and interrupts it at most once: a second interrupt makes Terraform drop its state.
//! It acts when it is told to, when the lease ran out that it was told of, and when its standard input ends, which the
//! kernel sees to however the runner ends. It dies only after Terraform and all that Terraform started.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

/// Between the interrupt and SIGKILL when the runner is gone.
const ORPHANED: Duration = Duration::from_secs(20);
/// The same when the lease ran out: less than the margin after which pipelines may give the stage to another runner.
pub(crate) const FENCED: Duration = Duration::from_secs(14);
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the runner tells, one a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    /// The lease lasts this long from now on.
    Keep(Duration),
    /// Interrupt, and kill after this time.
    Interrupt(Duration),
}

/// What the runner is told, one a line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    /// Terraform runs, as the leader of this process group.
    Started(i32),
    /// It ended by itself with this status.
    Exited(i32),
    /// It was ended by this signal.
    Signalled(i32),
    /// It could not be started.
    Missing(String),
}

impl Order {
    pub(crate) fn line(self) -> String {
        match self {
            Order::Keep(time) => format!("keep {}\n", time.as_millis()),
            Order::Interrupt(grace) => format!("interrupt {}\n", grace.as_millis()),
        }
    }

    fn parse(line: &str) -> Option<Order> {
        let (verb, time) = line.split_once(' ')?;
        let time = Duration::from_millis(time.parse().ok()?).min(FAR);
        match verb {
            "keep" => Some(Order::Keep(time)),
            "interrupt" => Some(Order::Interrupt(time)),
            _ => None,
        }
    }
}

impl Report {
    fn line(&self) -> String {
        match self {
            Report::Started(group) => format!("started {group}\n"),
            Report::Exited(status) => format!("exited {status}\n"),
            Report::Signalled(signal) => format!("signalled {signal}\n"),
            Report::Missing(why) => format!("missing {why}\n"),
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Report> {
        let (verb, what) = line.split_once(' ')?;
        match verb {
            "started" => Some(Report::Started(what.parse().ok()?)),
            "exited" => Some(Report::Exited(what.parse().ok()?)),
            "signalled" => Some(Report::Signalled(what.parse().ok()?)),
            "missing" => Some(Report::Missing(what.to_owned())),
            _ => None,
        }
    }

    fn of(status: ExitStatus) -> Report {
        match (status.code(), status.signal()) {
            (Some(code), _) => Report::Exited(code),
            (None, signal) => Report::Signalled(signal.unwrap_or_default()),
        }
    }

    fn tell(&self) {
        // Nobody may be left to tell it to.
        let _ = io::stdout().write_all(self.line().as_bytes());
        let _ = io::stdout().flush();
    }
}

/// `supervise MILLISECONDS PROGRAM ARGUMENT…`: orders on standard input, reports on standard output, Terraform's own
/// output on standard error.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let time = arguments.next().and_then(|time| time.to_str()?.parse().ok());
    let (Some(time), Some(program)) = (time, arguments.next()) else {
        return ExitCode::from(crate::WRONG_CONFIGURATION);
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let supervised = runtime.and_then(|runtime| runtime.block_on(supervise(command, Duration::from_millis(time))));
    match supervised {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Report::Missing(error.to_string().replace('\n', " ")).tell();
            ExitCode::FAILURE
        }
    }
}

async fn supervise(mut command: Command, time: Duration) -> io::Result<()> {
    // Before Terraform starts: what is handled here is not ignored there, as it else would be under some shells.
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut signals else {
        return Err(io::Error::other("signals cannot be handled"));
    };
    let orders = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut orders = BufReader::new(orders).lines();
    let output = || io::stderr().as_fd().try_clone_to_owned();
    let mut child = command.stdout(output()?).stderr(output()?).spawn()?;
    let mut stop = Stop::new(&child, Instant::now() + time);
    Report::Started(stop.group.map_or(0, |group| group.as_raw_nonzero().get())).tell();
    let mut listening = true;
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status?,
            () = sleep_until(stop.next()) => stop.passed(Instant::now()),
            line = orders.next_line(), if listening => match line {
                Ok(Some(line)) => match Order::parse(&line) {
                    Some(Order::Keep(time)) => stop.keep(Instant::now(), time),
                    Some(Order::Interrupt(grace)) => stop.interrupt(grace),
                    None => {}
                },
                Ok(None) | Err(_) => {
                    listening = false;
                    stop.interrupt(ORPHANED);
                }
            },
            _ = interrupt.recv() => stop.interrupt(ORPHANED),
            _ = terminate.recv() => stop.interrupt(ORPHANED),
            _ = hangup.recv() => stop.interrupt(ORPHANED),
        }
    };
    // What Terraform started does not outlive it.
    stop.signal(Signal::KILL);
    Report::of(status).tell();
    Ok(())
}

/// When Terraform is stopped, and how.
struct Stop {
    group: Option<Pid>,
    lease_ends: Instant,
    interrupted: bool,
    kill_at: Instant,
}

impl Stop {
    fn new(child: &Child, lease_ends: Instant) -> Self {
        Stop {
            group: child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)),
            lease_ends,
            interrupted: false,
            kill_at: Instant::now() + FAR,
        }
    }

    fn next(&self) -> Instant {
        if self.interrupted {
            self.kill_at
        } else {
            self.lease_ends
        }
    }

    /// A lease that ran out before the order was read stays run out.
    fn keep(&mut self, now: Instant, time: Duration) {
        self.passed(now);
        self.lease_ends = now + time;
    }

    fn passed(&mut self, now: Instant) {
        if now >= self.kill_at {
            self.signal(Signal::KILL);
            self.kill_at = now + FAR;
        } else if !self.interrupted && now >= self.lease_ends {
            self.interrupt(FENCED);
        }
    }

    fn interrupt(&mut self, grace: Duration) {
        self.kill_at = self.kill_at.min(Instant::now() + grace);
        if !self.interrupted {
            self.interrupted = true;
            self.signal(Signal::INT);
        }
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone needs no signal.
        let _ = self.group.map(|group| kill_process_group(group, signal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_are_read_as_they_were_written() {
        for order in [
            Order::Keep(Duration::from_millis(1500)),
            Order::Interrupt(Duration::ZERO),
        ] {
            assert_eq!(Order::parse(order.line().trim_end()), Some(order));
        }
        assert_eq!(Order::parse("kill"), None);
        for report in [
            Report::Started(7),
            Report::Exited(1),
            Report::Signalled(9),
            Report::Missing("no such file".to_owned()),
        ] {
            assert_eq!(Report::parse(report.line().trim_end()), Some(report));
        }
    }

    #[test]
    fn a_lease_that_ran_out_stays_so_and_the_first_kill_counts() {
        let now = Instant::now();
        let mut stop = Stop {
            group: None,
            lease_ends: now,
            interrupted: false,
            kill_at: now + FAR,
        };
        stop.keep(now + Duration::from_secs(1), Duration::from_secs(30));
        assert!(stop.interrupted);
        let kill_at = stop.kill_at;
        stop.interrupt(Duration::from_secs(600));
        assert_eq!(stop.kill_at, kill_at);
        stop.interrupt(Duration::ZERO);
        assert!(stop.next() < kill_at);
    }
}
