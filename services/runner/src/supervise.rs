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
    /// It is interrupted, and killed after this time.
    Interrupted(Duration),
    /// There is nothing that could be started.
    Missing(String),
    /// It could not be started though it is there.
    Broken(String),
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
            Report::Interrupted(grace) => format!("interrupted {}\n", grace.as_millis()),
            Report::Missing(why) => format!("missing {}\n", why.replace('\n', " ")),
            Report::Broken(why) => format!("broken {}\n", why.replace('\n', " ")),
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Report> {
        let (verb, what) = line.split_once(' ')?;
        match verb {
            "started" => Some(Report::Started(what.parse().ok()?)),
            "exited" => Some(Report::Exited(what.parse().ok()?)),
            "signalled" => Some(Report::Signalled(what.parse().ok()?)),
            "interrupted" => Some(Report::Interrupted(Duration::from_millis(what.parse().ok()?))),
            "missing" => Some(Report::Missing(what.to_owned())),
            "broken" => Some(Report::Broken(what.to_owned())),
            _ => None,
        }
    }

    fn of(status: ExitStatus) -> Report {
        match (status.code(), status.signal()) {
            (Some(code), _) => Report::Exited(code),
            (None, signal) => Report::Signalled(signal.unwrap_or_default()),
        }
    }

    /// Why nothing was started.
    fn unstarted(error: &io::Error) -> Report {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Report::Missing(error.to_string()),
            _ => Report::Broken(error.to_string()),
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
    let supervised = match runtime {
        Ok(runtime) => runtime.block_on(supervise(command, Duration::from_millis(time))),
        Err(error) => Err(Report::Broken(error.to_string())),
    };
    match supervised {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            report.tell();
            ExitCode::FAILURE
        }
    }
}

/// Stands by to the end; `Err` is why nothing was started.
async fn supervise(mut command: Command, time: Duration) -> Result<(), Report> {
    // Before Terraform starts: what is handled here is not ignored there, as it else would be under some shells.
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut signals else {
        return Err(Report::Broken("signals cannot be handled".to_owned()));
    };
    let broken = |error: io::Error| Report::Broken(error.to_string());
    let orders = io::stdin().as_fd().try_clone_to_owned().map_err(broken)?;
    let orders = pipe::Receiver::from_owned_fd(orders).map_err(broken)?;
    let mut orders = BufReader::new(orders).lines();
    let output = || io::stderr().as_fd().try_clone_to_owned().map_err(broken);
    let command = command.stdout(output()?).stderr(output()?);
    let mut child = command.spawn().map_err(|error| Report::unstarted(&error))?;
    let mut stop = Stop::new(&child, Instant::now() + time);
    Report::Started(stop.group.map_or(0, |group| group.as_raw_nonzero().get())).tell();
    let mut listening = true;
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => match status {
                Ok(status) => break status,
                // Nobody can say how it ended, and the runner hears nothing.
                Err(_) => return Ok(()),
            },
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
    /// None once it ran out: what is told later changes nothing.
    lease_ends: Option<Instant>,
    interrupted: bool,
    kill_at: Instant,
}

impl Stop {
    fn new(child: &Child, lease_ends: Instant) -> Self {
        Stop {
            group: child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)),
            lease_ends: Some(lease_ends),
            interrupted: false,
            kill_at: Instant::now() + FAR,
        }
    }

    fn next(&self) -> Instant {
        self.lease_ends.map_or(self.kill_at, |end| end.min(self.kill_at))
    }

    /// A lease that ran out before the order was read stays run out.
    fn keep(&mut self, now: Instant, time: Duration) {
        self.passed(now);
        self.lease_ends = self.lease_ends.map(|_| now + time);
    }

    fn passed(&mut self, now: Instant) {
        if let Some(end) = self.lease_ends.take_if(|end| now >= *end) {
            // Whatever else it was given: after the lease there is no more than this.
            self.interrupt_until(end + FENCED);
        }
        if now >= self.kill_at {
            self.signal(Signal::KILL);
            self.kill_at = now + FAR;
        }
    }

    fn interrupt(&mut self, grace: Duration) {
        self.interrupt_until(Instant::now() + grace);
    }

    fn interrupt_until(&mut self, kill_at: Instant) {
        self.kill_at = self.kill_at.min(kill_at);
        if !self.interrupted {
            self.interrupted = true;
            // Before the signal: the runner must not send a second one should this process end now.
            Report::Interrupted(self.kill_at.saturating_duration_since(Instant::now())).tell();
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
            Report::Interrupted(Duration::from_millis(1500)),
            Report::Missing("no such file".to_owned()),
            Report::Broken("too many open files".to_owned()),
        ] {
            assert_eq!(Report::parse(report.line().trim_end()), Some(report));
        }
    }

    #[test]
    fn only_a_program_that_is_not_there_is_missing() {
        let report = |kind: io::ErrorKind| Report::unstarted(&kind.into());
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied] {
            assert!(matches!(report(kind), Report::Missing(_)));
        }
        assert!(matches!(report(io::ErrorKind::OutOfMemory), Report::Broken(_)));
    }

    #[test]
    fn a_lease_that_ends_shortens_the_grace_that_was_given_before() {
        let now = Instant::now();
        let mut stop = Stop {
            group: None,
            lease_ends: Some(now + Duration::from_secs(10)),
            interrupted: false,
            kill_at: now + FAR,
        };
        stop.interrupt(Duration::from_secs(60));
        assert_eq!(stop.next(), now + Duration::from_secs(10));
        stop.keep(now, Duration::from_secs(30));
        let end = now + Duration::from_secs(30);
        assert_eq!(stop.next(), end);
        stop.passed(end);
        assert_eq!(stop.next(), end + FENCED);
        stop.keep(end, Duration::from_secs(30));
        assert_eq!(stop.next(), end + FENCED);
        stop.passed(end + FENCED);
        assert!(stop.next() > end + Duration::from_secs(3600));
    }

    #[test]
    fn a_lease_that_ran_out_stays_so_and_the_first_kill_counts() {
        let now = Instant::now();
        let mut stop = Stop {
            group: None,
            lease_ends: Some(now),
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
