//! Calls that a filter makes on its tick, and the tick itself.

use crate::host;
use mesh_policy::{Fetch, Fetched, Filter, Host};
use proxy_wasm::traits::Context;
use std::cell::RefCell;
use std::time::Duration;

thread_local! {
    /// The revision that was configured last. Gateways let old configurations tick on for ever.
    static NEWEST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The calls of one configuration that are on their way, and its right to make more.
#[derive(Default)]
pub(crate) struct Calls {
    revision: String,
    /// A period that is set twice ends the call in Kong.
    ticks: bool,
    /// Token of the gateway, id of the filter.
    open: Vec<(u32, u32)>,
}

impl Calls {
    /// A configuration of `revision` came: those before it go silent. Returns how often to tick, if that
    /// is still to be said.
    pub(crate) fn begin(&mut self, revision: &str, tick_ms: Option<u32>) -> Option<Duration> {
        self.revision = revision.to_owned();
        NEWEST.with(|newest| {
            if let Ok(mut newest) = newest.try_borrow_mut() {
                revision.clone_into(&mut newest);
            }
        });
        let period = tick_ms.filter(|ms| *ms > 0 && !self.ticks)?;
        self.ticks = true;
        Some(Duration::from_millis(period.into()))
    }

    fn is_current(&self) -> bool {
        NEWEST.with(|newest| {
            newest
                .try_borrow()
                .is_ok_and(|newest| *newest == self.revision)
        })
    }

    /// Lets the filter look around and makes the calls that it asks for.
    pub(crate) fn tick<F: Filter>(&mut self, filter: &F, context: &dyn Context, around: &dyn Host) {
        if !self.is_current() {
            return;
        }
        for fetch in filter.tick(around) {
            if self.open.iter().any(|(_, id)| *id == fetch.id) {
                continue;
            }
            match dispatch(context, &fetch) {
                Some(token) => self.open.push((token, fetch.id)),
                None => filter.fetched(fetch.id, Fetched::Failed, around),
            }
        }
    }

    /// Tells the filter what became of the call `token`.
    pub(crate) fn answered<F: Filter>(
        &mut self,
        filter: &F,
        token: u32,
        body_size: usize,
        around: &dyn Host,
    ) {
        let Some(place) = self.open.iter().position(|(open, _)| *open == token) else {
            return;
        };
        let (_, id) = self.open.swap_remove(place);
        let fetched = match host::call_answer(body_size) {
            Some((status, body)) => Fetched::Answer { status, body },
            None => Fetched::Failed,
        };
        filter.fetched(id, fetched, around);
    }
}

/// Through the SDK, which leads the answer back to the context that asked.
fn dispatch(context: &dyn Context, fetch: &Fetch) -> Option<u32> {
    // A gateway that knows names of upstreams asks a name server for others.
    if !mesh_policy::fetch::is_authority(&fetch.authority) {
        return None;
    }
    let host = fetch.headers.iter().find(|(name, _)| *name == "host");
    let mut headers = vec![
        (":method", fetch.method),
        (":path", fetch.path.as_str()),
        (
            ":authority",
            host.map_or(fetch.authority.as_str(), |(_, value)| value.as_str()),
        ),
    ];
    headers.extend(
        fetch
            .headers
            .iter()
            .filter(|(name, _)| *name != "host")
            .map(|(name, value)| (*name, value.as_str())),
    );
    let body = (!fetch.body.is_empty()).then_some(fetch.body.as_slice());
    let timeout = Duration::from_millis(fetch.timeout_ms.into());
    context
        .dispatch_http_call(&fetch.authority, headers, body, Vec::new(), timeout)
        .ok()
}
