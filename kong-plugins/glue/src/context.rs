//! The two contexts of a filter: one root per configuration, one context per request.

use crate::headers::Head;
use crate::host::{self, Level};
use crate::metrics::Counters;
use mesh_policy::{Decision, Filter, Refusal};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::rc::Rc;

/// One configuration of the filter, and what its requests share.
pub struct Root<F> {
    shared: Rc<Shared<F>>,
}

struct Shared<F> {
    /// None: refuse everything.
    filter: Option<F>,
    counters: Counters,
}

/// Makes the root context, as the SDK wants it: a plain function.
pub fn new_root<F: Filter>(_context_id: u32) -> Box<dyn RootContext> {
    Box::new(Root::<F> {
        shared: Rc::new(Shared {
            filter: None,
            counters: Counters::default(),
        }),
    })
}

impl<F: Filter> Context for Root<F> {}

impl<F: Filter> RootContext for Root<F> {
    /// Always true: a host that is told false may go on without the filter.
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = host::configuration();
        let filter = match mesh_policy::filter::load::<F>(&json) {
            Ok(filter) => Some(filter),
            Err(faults) => {
                for fault in faults {
                    host::log(
                        Level::Error,
                        &format!(
                            "{}: every request is refused: faulty configuration: {fault}",
                            F::NAME
                        ),
                    );
                }
                None
            }
        };
        // Requests in flight keep the configuration that they began with.
        self.shared = Rc::new(Shared {
            filter,
            counters: Counters::default(),
        });
        true
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request {
            shared: Rc::clone(&self.shared),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Request<F> {
    shared: Rc<Shared<F>>,
}

impl<F: Filter> Context for Request<F> {}

impl<F: Filter> HttpContext for Request<F> {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let decision = match (&self.shared.filter, host::now()) {
            (Some(filter), Some(now)) => filter.decide(&Head, now),
            (Some(_), None) => Refusal::host_failure().into(),
            (None, _) => Refusal::misconfigured().into(),
        };
        self.apply(decision)
    }
}

impl<F: Filter> Request<F> {
    fn apply(&self, decision: Decision) -> Action {
        let refusal = match decision {
            Decision::Pass(pass) => {
                let set = pass
                    .set_headers
                    .iter()
                    .all(|(name, value)| host::set_request_header(name, value.as_bytes()));
                if set {
                    self.shared.counters.count("pass", pass.reason);
                    return Action::Continue;
                }
                Refusal::host_failure()
            }
            Decision::Refuse(refusal) => refusal,
        };
        self.shared.counters.count("refuse", refusal.reason);
        if !host::answer(&refusal) {
            host::log(
                Level::Error,
                &format!("{}: the host took no answer; the request is held", F::NAME),
            );
        }
        // Paused whether or not the answer went out: what was refused never goes on.
        Action::Pause
    }
}
