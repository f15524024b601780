//! What belongs to one VM beside its memory, and how its memory is read and written.

use crate::calls::{Call, CallAnswer};
use crate::error::{Stop, forbidden};
use crate::exchange::{Exchange, LocalResponse};
use crate::metrics::Metric;
use crate::shared::Shared;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{Caller, Memory, StoreLimits, TypedFunc};

/// Statuses that host functions return (Proxy-Wasm 0.2.1, `proxy_status_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    CasMismatch = 8,
    InternalFailure = 10,
}

/// What is running; decides what a host function may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Start,
    Configure,
    Tick,
    CallResponse,
    RequestHeaders,
    RequestBody,
    ResponseHeaders,
    ResponseBody,
    End,
}

impl Phase {
    /// The callback's name, for errors and logs.
    pub fn callback(self) -> &'static str {
        match self {
            Self::Start => "proxy_on_vm_start",
            Self::Configure => "proxy_on_configure",
            Self::Tick => "proxy_on_tick",
            Self::CallResponse => "proxy_on_http_call_response",
            Self::RequestHeaders => "proxy_on_request_headers",
            Self::RequestBody => "proxy_on_request_body",
            Self::ResponseHeaders => "proxy_on_response_headers",
            Self::ResponseBody => "proxy_on_response_body",
            Self::End => "proxy_on_done",
        }
    }

    /// Whether there is no request.
    pub fn is_apart(self) -> bool {
        matches!(
            self,
            Self::Start | Self::Configure | Self::Tick | Self::CallResponse
        )
    }

    /// Whether the request has not gone to the service yet.
    pub fn is_request(self) -> bool {
        matches!(self, Self::RequestHeaders | Self::RequestBody)
    }

    /// Whether a response is on its way.
    pub fn is_response(self) -> bool {
        matches!(self, Self::ResponseHeaders | Self::ResponseBody)
    }
}

/// One configuration of the module.
pub(crate) struct Root {
    pub name: Arc<str>,
    pub config: Bytes,
    pub tick: Option<Duration>,
}

/// What belongs to one VM beside its memory.
pub(crate) struct State {
    pub module: Arc<str>,
    pub limits: StoreLimits,
    pub memory: Option<Memory>,
    pub allocate: Option<TypedFunc<u32, u32>>,
    pub roots: HashMap<u32, Root>,
    /// Stream contexts and their roots.
    pub contexts: HashMap<u32, u32>,
    /// The context that runs.
    pub current: u32,
    pub phase: Phase,
    pub exchange: Exchange,
    pub local_response: Option<LocalResponse>,
    /// Calls that nobody has taken yet, and how many of those taken are on their way, too.
    pub calls: Vec<Call>,
    pub calls_open: usize,
    pub last_call: u32,
    /// The answer that the running callback is about.
    pub call_answer: Option<CallAnswer>,
    pub shared: Arc<Shared>,
    /// What this VM defined; the index is the id that the guest holds.
    pub defined: Vec<Arc<Metric>>,
    /// CPU time of the thread at the first tick of the clock within the call, if one came, and how much
    /// more the call may have then. Nearly every call ends before one: asking is a system call.
    pub cpu_start: Option<Duration>,
    pub cpu_limit: Duration,
    /// Calls of each host function; empty unless the engine measures.
    pub counts: BTreeMap<String, u64>,
}

impl State {
    /// The root context of what runs now.
    pub fn root(&mut self) -> Option<&mut Root> {
        let id = self
            .contexts
            .get(&self.current)
            .copied()
            .unwrap_or(self.current);
        self.roots.get_mut(&id)
    }

    /// The clock has ticked: fails when the running call has used up its time.
    pub fn check_time(&mut self) -> wasmtime::Result<()> {
        let now = cpu_now();
        let used = now.saturating_sub(*self.cpu_start.get_or_insert(now));
        if used > self.cpu_limit {
            return Err(wasmtime::Error::new(Stop::Timeout));
        }
        Ok(())
    }
}

/// CPU time of this thread.
pub(crate) fn cpu_now() -> Duration {
    cpu_time::ThreadTime::try_now()
        .map(|t| t.as_duration())
        .unwrap_or_default()
}

fn memory(caller: &Caller<'_, State>) -> wasmtime::Result<Memory> {
    match caller.data().memory {
        Some(memory) => Ok(memory),
        None => forbidden("a host function was called before the module had a memory"),
    }
}

/// The guest's bytes at `at`.
pub(crate) fn read<'a>(
    caller: &'a Caller<'_, State>,
    at: u32,
    length: u32,
) -> wasmtime::Result<&'a [u8]> {
    let memory = memory(caller)?;
    let (at, length) = (at as usize, length as usize);
    let bytes = at
        .checked_add(length)
        .and_then(|end| memory.data(caller).get(at..end));
    match bytes {
        Some(bytes) => Ok(bytes),
        None => forbidden("an argument lies outside the memory"),
    }
}

/// The guest's text at `at`, UTF-8 or made so.
pub(crate) fn read_text(
    caller: &Caller<'_, State>,
    at: u32,
    length: u32,
) -> wasmtime::Result<String> {
    Ok(String::from_utf8_lossy(read(caller, at, length)?).into_owned())
}

/// Writes `bytes` into the guest's memory.
pub(crate) fn write(caller: &mut Caller<'_, State>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let memory = memory(caller)?;
    let at = at as usize;
    let place = at
        .checked_add(bytes.len())
        .and_then(|end| memory.data_mut(caller).get_mut(at..end));
    match place {
        Some(place) => {
            place.copy_from_slice(bytes);
            Ok(())
        }
        None => forbidden("a result lies outside the memory"),
    }
}

/// Writes a number where the guest wants it.
pub(crate) fn write_u32(
    caller: &mut Caller<'_, State>,
    at: u32,
    value: u32,
) -> wasmtime::Result<()> {
    write(caller, at, &value.to_le_bytes())
}

/// Hands `bytes` to the guest: in memory that the guest allocates, its address and length at the two
/// places that the guest named.
pub(crate) fn hand_over(
    caller: &mut Caller<'_, State>,
    bytes: &[u8],
    return_at: u32,
    return_length: u32,
) -> wasmtime::Result<()> {
    let Ok(length) = u32::try_from(bytes.len()) else {
        return forbidden("a value is larger than the address space");
    };
    let mut at = 0;
    if length > 0 {
        // Taken and put back: a clone counts up what all workers share. An allocator that asks the host
        // for bytes finds none.
        let Some(allocate) = caller.data_mut().allocate.take() else {
            return forbidden("the module exports no allocator");
        };
        let allocated = allocate.call(&mut *caller, length);
        caller.data_mut().allocate = Some(allocate);
        at = allocated?;
        if at == 0 {
            return forbidden("the module's allocator has no memory left");
        }
        write(caller, at, bytes)?;
    }
    write_u32(caller, return_at, at)?;
    write_u32(caller, return_length, length)
}
