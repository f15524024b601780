//! Process groups of agents that are programs: nothing of them outlives the mesh.
//!
//! A group can be left behind in three ways, and each has its own end: a part that is dropped kills its
//! group; a process that leaves without dropping anything calls [`Groups::kill`] first; and for a
//! process that is killed itself a shell waits beside each group, whose input ends with the process and
//! which then kills the group. (`PR_SET_PDEATHSIG` would need `unsafe` between fork and exec, would end
//! the leader alone, and would fire when the thread that started it ends.)

use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::process::{Child, Command};

/// The groups of one mesh.
#[derive(Debug, Clone, Default)]
pub struct Groups(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    running: Vec<Pid>,
    /// From here on nothing is started any more.
    ended: bool,
}

/// One group; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Pid,
    groups: Groups,
    /// Held for its end alone, which comes before the group's number can be given away again.
    _guard: Option<Child>,
}

impl Groups {
    /// Kills every group, and keeps new ones from being started.
    pub fn kill(&self) {
        let mut known = self.known();
        known.ended = true;
        for leader in known.running.drain(..) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    /// Starts a program as the leader of a group of its own.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<(Child, Group)> {
        // Locked until the group is known, or [`Groups::kill`] could miss it.
        let mut known = self.known();
        if known.ended {
            return Err(io::Error::other("the mesh is being ended"));
        }
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let leader = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or_else(|| io::Error::other("it has no process id"))?;
        known.running.push(leader);
        let group = Group {
            leader,
            groups: self.clone(),
            _guard: guard(leader),
        };
        Ok((child, group))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A list of numbers is whole whatever happened to who held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    pub(crate) fn signal(&self, signal: Signal) {
        // An error means that the group is gone, which is what is wanted.
        let _ = kill_process_group(self.leader, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let mut known = self.groups.known();
        known.running.retain(|leader| *leader != self.leader);
    }
}

/// Waits for the end of its input, which this process alone holds open, and then kills the group.
fn guard(leader: Pid) -> Option<Child> {
    const WAIT: &str = "read -r _; kill -s KILL -- \"-$0\"";
    let number = leader.as_raw_nonzero().to_string();
    Command::new("/bin/sh")
        .args(["-c", WAIT, &number])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is meant for the mesh.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .inspect_err(|error| tracing::warn!(%error, "agents will outlive a mesh that is killed"))
        .ok()
}
