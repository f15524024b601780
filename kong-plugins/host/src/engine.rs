//! The compiler, the pool of instances, and the clock that ends endless loops.
//!
//! wasmtime's epoch is advanced by one thread every [`TICK`]; a running guest looks at it at every loop
//! and function entry. What is compared then is the CPU time of the calling thread, not the clock on the
//! wall: on a machine that is busy with other things a filter is not stopped for having waited. It is
//! counted from the first advance within a call, so that a call that ends before asks for no time at all.

use crate::error::HostError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use wasmtime::{Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// How often a running guest's CPU time is looked at.
const TICK: Duration = Duration::from_millis(10);
/// Stack of a guest, in bytes; a worker's thread has at least four times as much.
const STACK: usize = 512 * 1024;

/// What one VM may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, in bytes.
    pub memory: usize,
    /// CPU time of one callback of a request, looked at every 10 ms, and counted from the first look.
    pub call: Duration,
    /// CPU time of start, configuration and tick, where keys are read and tables built.
    pub configure: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 * 1024 * 1024,
            call: Duration::from_millis(100),
            configure: Duration::from_secs(2),
        }
    }
}

/// One process's compiler and pool. Clones share both.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: wasmtime::Engine,
    pub(crate) limits: Limits,
    pub(crate) measured: bool,
    _clock: Arc<Clock>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine for at most `instances` VMs at a time.
    ///
    /// # Errors
    /// [`HostError::Engine`] when the machine has no room for the pool or no thread to give.
    pub fn new(limits: Limits, instances: u32) -> Result<Self, HostError> {
        Self::make(limits, instances, false)
    }

    /// The same for a measurement: [`crate::Vm::usage`] says what a VM has used. Counting makes every
    /// call of the guest dearer, so times are not to be taken here.
    ///
    /// # Errors
    /// As for [`Engine::new`].
    pub fn measured(limits: Limits, instances: u32) -> Result<Self, HostError> {
        Self::make(limits, instances, true)
    }

    fn make(limits: Limits, instances: u32, measured: bool) -> Result<Self, HostError> {
        let wrong = |e: wasmtime::Error| HostError::Engine(format!("{e:#}"));
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(instances)
            .total_memories(instances)
            .total_tables(instances)
            .max_memory_size(limits.memory)
            // A spent VM's memory goes back to the system: the pool is small and rarely used.
            .max_unused_warm_slots(0);
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .epoch_interruption(true)
            .consume_fuel(measured)
            .cranelift_opt_level(OptLevel::Speed)
            .max_wasm_stack(STACK)
            .wasm_memory64(false)
            .wasm_multi_memory(false);
        let inner = wasmtime::Engine::new(&config).map_err(wrong)?;
        let clock = Clock::start(&inner)?;
        Ok(Self {
            inner,
            limits,
            measured,
            _clock: Arc::new(clock),
        })
    }
}

/// The thread that advances the epoch; ends with the last engine.
struct Clock {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Clock {
    fn start(engine: &wasmtime::Engine) -> Result<Self, HostError> {
        let stopped = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&stopped);
        let weak = engine.weak();
        let thread = std::thread::Builder::new()
            .name("wasm-epoch".to_owned())
            .spawn(move || {
                let (flag, wake) = &*shared;
                let mut stopped = flag.lock().unwrap_or_else(PoisonError::into_inner);
                while !*stopped {
                    stopped = wake
                        .wait_timeout(stopped, TICK)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    let Some(engine) = weak.upgrade() else { return };
                    engine.increment_epoch();
                }
            })
            .map_err(|e| HostError::Engine(e.to_string()))?;
        Ok(Self {
            stopped,
            thread: Some(thread),
        })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        *self
            .stopped
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread holds nothing and ends at once; its only failure is a panic that it cannot have.
            let _ = thread.join();
        }
    }
}
