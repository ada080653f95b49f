//! Faults of the system, by `strace`: calls of a real server that fail, and notes of what it did.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Is there a `strace` that may look at our own processes? Says so if not.
pub(crate) fn is_here() -> bool {
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let is_here = tried.is_ok_and(|status| status.success());
    if !is_here {
        eprintln!("not tried: there is no strace, or it may not be used");
    }
    is_here
}

/// What stands before a program whose calls are noted: with paths, all bytes as hexadecimal
/// digits.
pub(crate) fn noting(notes: &Path, calls: &str) -> Vec<String> {
    let notes = notes.display().to_string();
    let trace = format!("trace={calls}");
    let args = ["strace", "-f", "-y", "-qq", "-xx", "-s", "1000000", "-o", &notes, "-e", &trace];
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// The texts in the arguments of a noted call: paths of descriptors, and strings.
pub(crate) fn strings(arguments: &str) -> Vec<Vec<u8>> {
    arguments
        .split(['<', '>', '"'])
        .filter(|text| text.starts_with("\\x"))
        .map(|text| {
            let digits = text.split("\\x").skip(1);
            digits.map(|digits| u8::from_str_radix(digits, 16).expect("digits")).collect()
        })
        .collect()
}

/// Calls of a process that fail until this is dropped.
pub(crate) struct Failing(Child);

impl Failing {
    /// `calls` is a list with commas, `error` a name such as `EIO`. `None`: it may not be done
    /// here, which it says.
    pub(crate) fn of(pid: u32, calls: &str, error: &str) -> Option<Self> {
        Self::of_threads(&[pid.to_string()], &["-f"], calls, error)
    }

    /// The same where they concern this file or directory.
    pub(crate) fn on(pid: u32, path: &Path, calls: &str, error: &str) -> Option<Self> {
        let path = path.display().to_string();
        Self::of_threads(&[pid.to_string()], &["-f", "-P", &path], calls, error)
    }

    /// The same of the threads that serve devices only.
    pub(crate) fn of_workers(pid: u32, calls: &str, error: &str) -> Option<Self> {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let threads = threads.map(|thread| thread.expect("it is there").path());
        let serves = |thread: &std::path::PathBuf| {
            let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
            ["otter-mio-", "otter-tokio-"].iter().any(|driver| name.starts_with(driver))
        };
        let ids = threads
            .filter(serves)
            .map(|thread| thread.file_name().expect("a number").to_string_lossy().into_owned());
        Self::of_threads(&ids.collect::<Vec<_>>(), &[], calls, error)
    }

    fn of_threads(ids: &[String], more: &[&str], calls: &str, error: &str) -> Option<Self> {
        let mut child = Command::new("strace")
            .args(more)
            .args(["-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .args(ids.iter().flat_map(|id| ["-p", id]))
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take()?);
        while lines.read_line(&mut said).is_ok_and(|length| length > 0) {
            if said.matches("attached").count() == ids.len() {
                // Nobody reads what follows, of which there is a line or two.
                child.stderr = Some(lines.into_inner());
                return Some(Self(child));
            }
        }
        eprintln!("not tried: {said}");
        let _ = child.wait();
        None
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // It lets go of the process.
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}
