//! What processes take of the machine, as /proc tells.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

/// /proc counts in hundredths of a second on every architecture that Linux has today.
const TICKS: f64 = 100.0;

/// Seconds of CPU that these processes have taken, with all that descend from them, those that have ended among them.
pub(in crate::bench) fn cpu_seconds(roots: &[u32]) -> Result<f64> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").context("CPU time is read from /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has ended meanwhile is counted with its parent's children.
        if let Some((parent, ticks)) = stat(&pid.to_string()) {
            all.insert(pid, (parent, ticks.0 + ticks.1));
        }
    }
    let ours = |pid: u32| {
        let mut at = pid;
        loop {
            if roots.contains(&at) {
                return true;
            }
            match all.get(&at) {
                Some((parent, _)) => at = *parent,
                None => return false,
            }
        }
    };
    let ticks: u64 = all
        .iter()
        .filter(|(pid, _)| ours(**pid))
        .map(|(_, (_, ticks))| *ticks)
        .sum();
    Ok(ticks as f64 / TICKS)
}

/// Seconds of CPU of our own children that have ended.
pub(in crate::bench) fn ended_seconds() -> Result<f64> {
    let (_, ticks) = stat("self").context("CPU time is read from /proc")?;
    Ok(ticks.1 as f64 / TICKS)
}

/// A process's parent, and the ticks of it and of its children that have ended.
fn stat(pid: &str) -> Option<(u32, (u64, u64))> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces; it ends with the last bracket.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let parent = u32::try_from(number(1)?).ok()?;
    Some((parent, (number(11)? + number(12)?, number(13)? + number(14)?)))
}

/// The memory of one process, from a moment on.
pub(in crate::bench) struct Memory {
    pid: u32,
    before: f64,
}

impl Memory {
    /// From now on.
    pub(in crate::bench) fn of(pid: u32) -> Result<Memory> {
        // 5 sets the peak to what is resident now (proc(5)).
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak cannot be reset")?;
        let before = mib(pid, "VmRSS:")?;
        Ok(Memory { pid, before })
    }

    /// How many MiB more than then were resident at most.
    pub(in crate::bench) fn extra(&self) -> Result<f64> {
        Ok(mib(self.pid, "VmHWM:")? - self.before)
    }

    /// How many MiB were resident then.
    pub(in crate::bench) fn before(&self) -> f64 {
        self.before
    }
}

/// What the kernel says of a process's memory: `VmRSS:` what it holds, `VmHWM:` the most that it held.
pub(in crate::bench) fn mib(pid: u32, what: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("memory is read from /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .with_context(|| what.to_owned())?
        .parse()?;
    Ok(kib / 1_024.0)
}
