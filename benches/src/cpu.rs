//! What a process has used, and which CPU it may use.

use anyhow::{Context, Result};
use rustix::process::{Pid, getsid};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPU time of all threads of a process that live, in nanoseconds, as the scheduler counted it.
///
/// # Errors
/// If the process is gone.
pub fn used_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in threads(pid)? {
        // One that has ended meanwhile no longer counts.
        let path = format!("/proc/{pid}/task/{thread}/schedstat");
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        sum += text.split(' ').next().context("no time")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Whether all threads of a process wait for something: not for a CPU, nor for a tracer.
///
/// # Errors
/// If the process is gone.
pub fn is_asleep(pid: u32) -> Result<bool> {
    for thread in threads(pid)? {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")) else {
            continue;
        };
        // The name before the state is in parentheses, and may contain some.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if state != Some('S') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first two CPUs that this process may use: one for servers, one for their load.
///
/// # Errors
/// If there is but one.
pub fn pair() -> Result<[usize; 2]> {
    let set = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let pair = allowed.next().zip(allowed.next());
    let (servers, load) = pair.context("two CPUs are needed: one for servers, one for the load")?;
    Ok([servers, load])
}

/// Keeps all threads of a process on one CPU, and those that they start.
///
/// # Errors
/// If the process is gone, or there is no such CPU.
pub fn pin(pid: u32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    allow(pid, &set).with_context(|| format!("cannot use CPU {cpu}"))
}

/// Lets all threads of a process use any CPU again, and those that they start.
///
/// # Errors
/// If the process is gone.
pub fn unpin(pid: u32) -> Result<()> {
    let mut set = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    allow(pid, &set)
}

/// Lets a process that leads a session of its own (`setsid`) go before all other sessions. Where
/// that is not allowed, it has its share, and figures scatter more.
pub fn prefer(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/autogroup"), "-20");
}

/// The same for this process and what it starts, if it leads a session of its own: otherwise the
/// user's shell would go before others, too.
pub fn prefer_own_session() {
    let own = std::process::id();
    if getsid(None).is_ok_and(|session| session.as_raw_nonzero().get().cast_unsigned() == own) {
        prefer(own);
    }
}

fn allow(pid: u32, set: &CpuSet) -> Result<()> {
    for thread in threads(pid)? {
        sched_setaffinity(Pid::from_raw(i32::try_from(thread)?), set)?;
    }
    Ok(())
}

fn threads(pid: u32) -> Result<Vec<u32>> {
    let folder = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("{pid} is gone"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?)).collect()
}
