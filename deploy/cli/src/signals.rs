//! How a running mesh is ended from outside.
//!
//! A terminal that is closed (SIGHUP), Ctrl-\ (SIGQUIT), Ctrl-C and a supervisor's SIGTERM all mean the
//! same: the first drains, the second ends at once. `nohup` has SIGHUP ignored, and it stays ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

const INTERRUPTED: i32 = 130;

/// The first signal cancels `shutdown`; the second calls `at_once`, for what must not outlive the
/// process, and ends it.
pub fn on_signal(
    shutdown: CancellationToken,
    at_once: impl FnOnce() + Send + 'static,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = if hangup_is_ignored() {
        None
    } else {
        Some(signal(SignalKind::hangup())?)
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = quit.recv() => {}
                () = received(&mut hangup) => {}
            }
            if shutdown.is_cancelled() {
                break;
            }
            tracing::info!("draining; once more to end at once");
            shutdown.cancel();
        }
        // Asked twice: whoever asks does not want to wait for open tasks.
        at_once();
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit (proc(5)).
    ignored.is_some_and(|mask| mask & 1 == 1)
}
