//! The two contexts of a filter: one root per configuration, one context per request.

use crate::around::Around;
use crate::calls::Calls;
use crate::host::{self, Gateway, Level};
use crate::metrics::Metrics;
use mesh_policy::{Decision, Filter, Host, Refusal};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::cell::Cell;
use std::rc::Rc;

/// One configuration of the filter, and what its requests share.
pub struct Root<F> {
    shared: Rc<Shared<F>>,
    calls: Calls,
}

struct Shared<F> {
    /// None: refuse everything.
    filter: Option<F>,
    metrics: Metrics,
    /// Found out within the first request.
    gateway: Cell<Option<Gateway>>,
}

impl<F> Shared<F> {
    fn new(filter: Option<F>) -> Rc<Self> {
        Rc::new(Self {
            filter,
            metrics: Metrics::default(),
            gateway: Cell::new(None),
        })
    }

    fn gateway(&self) -> Gateway {
        self.gateway.get().unwrap_or_else(|| {
            let gateway = Gateway::find_out();
            self.gateway.set(Some(gateway));
            gateway
        })
    }
}

/// Makes the root context, as the SDK wants it: a plain function.
pub fn new_root<F: Filter>(_context_id: u32) -> Box<dyn RootContext> {
    Box::new(Root::<F> {
        shared: Shared::new(None),
        calls: Calls::default(),
    })
}

impl<F: Filter> Context for Root<F> {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        body_size: usize,
        _trailers: usize,
    ) {
        if let Some(filter) = &self.shared.filter {
            let around = Around::new(self.shared.gateway.get());
            self.calls.answered(filter, token, body_size, &around);
        }
    }
}

impl<F: Filter> RootContext for Root<F> {
    /// Always true: a host that is told false may go on without the filter.
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = host::configuration();
        let filter = match mesh_policy::filter::load::<F>(&json) {
            Ok((filter, revision)) => {
                if let Some(period) = self.calls.begin(&revision, filter.tick_ms()) {
                    self.set_tick_period(period);
                }
                Some(filter)
            }
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
        self.shared = Shared::new(filter);
        true
    }

    fn on_tick(&mut self) {
        let shared = Rc::clone(&self.shared);
        if let Some(filter) = &shared.filter {
            let around = Around::new(shared.gateway.get());
            let mut calls = std::mem::take(&mut self.calls);
            calls.tick(filter, self, &around);
            self.calls = calls;
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request {
            shared: Rc::clone(&self.shared),
            kept: F::Request::default(),
            stage: Stage::Undecided,
            ended: false,
            spent_ns: self.shared.metrics.times_this().then_some(0),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Request<F: Filter> {
    shared: Rc<Shared<F>>,
    kept: F::Request,
    stage: Stage,
    ended: bool,
    /// Time that its decisions took; none of a request that is not timed.
    spent_ns: Option<u64>,
}

/// How far the decision on a request has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is decided; another filter may refuse before anything is.
    Undecided,
    /// It may pass as far as its head goes, and the body is to be looked at.
    AwaitsBody,
    /// It passed.
    Passed,
    /// It was refused, and its answer is whole as it is.
    Refused,
}

impl<F: Filter> Context for Request<F> {}

impl<F: Filter> HttpContext for Request<F> {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let around = self.around();
        let Some(filter) = &self.shared.filter else {
            return self.apply(Refusal::misconfigured().into());
        };
        let began = self.clock(&around);
        let mut decision = filter.decide(&mut self.kept, &around, &around);
        if let Decision::Pass(_) = decision
            && filter.wants_body(&self.kept)
        {
            if around.body_comes(end_of_stream) {
                self.stage = Stage::AwaitsBody;
            } else {
                decision = filter.decide_body(&mut self.kept, Some(&[]), &around);
            }
        }
        let waits = self.stage == Stage::AwaitsBody && around.must_wait_for_body();
        self.took(began);
        match self.apply(decision) {
            Action::Continue if waits => Action::Pause,
            action => action,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self.stage {
            Stage::AwaitsBody => {}
            Stage::Refused => return Action::Pause,
            Stage::Undecided | Stage::Passed => return Action::Continue,
        }
        let around = self.around();
        if !end_of_stream && around.must_wait_for_body() {
            return Action::Pause;
        }
        let Some(filter) = &self.shared.filter else {
            return self.apply(Refusal::misconfigured().into());
        };
        let began = self.clock(&around);
        let body = if size == 0 {
            Some(Vec::new())
        } else {
            host::request_body(size)
        };
        let mut decision = filter.decide_body(&mut self.kept, body.as_deref(), &around);
        if let Decision::Pass(pass) = &mut decision
            && let Some(body) = pass.set_body.take()
            && !host::set_request_body(&body, size)
        {
            // The request must not go on with the body that it came with.
            decision = Refusal::host_failure().into();
        }
        self.stage = Stage::Passed;
        self.took(began);
        self.apply(decision)
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let (Some(filter), true) = (&self.shared.filter, self.stage != Stage::Refused) {
            for (name, value) in filter.response_headers(&self.kept) {
                host::add_response_header(name, &value);
            }
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        self.finish();
    }
}

impl<F: Filter> Drop for Request<F> {
    fn drop(&mut self) {
        // Not every gateway calls on_log for a request that broke off.
        self.finish();
    }
}

impl<F: Filter> Request<F> {
    fn around(&self) -> Around {
        Around::new(Some(self.shared.gateway()))
    }

    /// When the callback began, if its request is timed.
    fn clock(&self, around: &Around) -> Option<u64> {
        self.spent_ns.and_then(|_| around.now_ns().ok())
    }

    /// Records the time that the decision took, once it is whole: what the request waited is not in it.
    fn took(&mut self, began: Option<u64>) {
        let Some(spent_ns) = &mut self.spent_ns else {
            return;
        };
        if let (Some(began), Some(ended)) = (began, host::now_ns()) {
            *spent_ns = spent_ns.saturating_add(ended.saturating_sub(began));
        }
        if self.stage != Stage::AwaitsBody {
            self.shared.metrics.took(*spent_ns);
        }
    }

    fn finish(&mut self) {
        if self.ended || self.stage == Stage::Undecided {
            return;
        }
        self.ended = true;
        let around = self.around();
        if let Some(filter) = &self.shared.filter {
            filter.end(&mut self.kept, &around);
        }
    }

    fn apply(&mut self, decision: Decision) -> Action {
        let refusal = match decision {
            Decision::Pass(pass) => {
                let set = pass
                    .set_headers
                    .iter()
                    .all(|(name, value)| host::set_request_header(name, value.as_bytes()));
                if set {
                    if self.stage == Stage::Undecided {
                        self.stage = Stage::Passed;
                    }
                    let gateway = self.shared.gateway();
                    let left = pass
                        .leave
                        .iter()
                        .all(|(name, value)| host::leave(gateway, name, value));
                    // A later filter that does not find it knows nothing, and so grants nothing.
                    let reason = if left { pass.reason } else { "not_left" };
                    if self.stage != Stage::AwaitsBody {
                        self.shared.metrics.count("pass", reason);
                    }
                    return Action::Continue;
                }
                Refusal::host_failure()
            }
            Decision::Refuse(refusal) => refusal,
        };
        self.stage = Stage::Refused;
        self.shared.metrics.count("refuse", refusal.reason);
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
