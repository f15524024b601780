//! The filters of one worker: a VM per module, replaced when it is spent, and the life of one request
//! in them.

use crate::metrics::Metrics;
use bytes::Bytes;
use mesh_wasm_host::{
    Action, Call, CallAnswer, ContextId, Exchange, HostError, LocalResponse, Module, RootId,
    Shared, Vm,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether a filter has begun to ask for ticks.
const TICK_CHECK: Duration = Duration::from_secs(1);

/// One use of a filter in a chain: which module, which of its configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    pub module: usize,
    pub root: usize,
}

/// A module and all configurations that chains have for it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub module: Module,
    pub roots: Vec<RootPlan>,
}

/// One configuration.
#[derive(Debug, Clone)]
pub(crate) struct RootPlan {
    /// Name of the chain, for the log.
    pub name: String,
    pub config: Bytes,
}

/// The VMs of one worker. Sent to its thread once, then used there alone.
pub(crate) struct Set {
    slots: Vec<Slot>,
    store: Arc<Shared>,
    metrics: Metrics,
}

struct Slot {
    plan: Arc<Plan>,
    live: Option<Live>,
    /// Counts the VMs; a context belongs to one of them.
    generation: u64,
}

struct Live {
    vm: Vm,
    roots: Vec<(RootId, Option<Instant>)>,
}

/// A call that a filter made.
pub(crate) struct Asked {
    module: usize,
    generation: u64,
    pub call: Call,
}

/// A request's context in one filter.
type Context = (u64, ContextId);

impl Set {
    /// Makes all VMs and gives them their configurations.
    pub(crate) fn new(
        plans: &[Arc<Plan>],
        store: Arc<Shared>,
        metrics: Metrics,
    ) -> Result<Self, (String, HostError)> {
        let mut slots = Vec::with_capacity(plans.len());
        for plan in plans {
            let live = Live::new(plan, &store).map_err(|e| (plan.module.name().to_owned(), e))?;
            slots.push(Slot {
                plan: Arc::clone(plan),
                live: Some(live),
                generation: 0,
            });
        }
        Ok(Self {
            slots,
            store,
            metrics,
        })
    }

    /// Runs `call` in the filter's VM with the request's context, made when there is none yet.
    ///
    /// When the VM of an earlier callback has gone, what the filter knew of the request has gone with
    /// it: on the request's way (`renew` is false) that is a failure, on the response's way it gets a new
    /// context, as a filter does whose request callback never ran.
    fn call<R>(
        &mut self,
        filter: Use,
        context: &mut Option<Context>,
        renew: bool,
        call: impl FnOnce(&mut Vm, ContextId) -> Result<R, HostError>,
    ) -> Result<R, HostError> {
        let Some(slot) = self.slots.get_mut(filter.module) else {
            return Err(HostError::Spent);
        };
        if slot.live.is_none() {
            // An earlier replacement failed; perhaps this one does not.
            slot.live = Some(Live::new(&slot.plan, &self.store)?);
            slot.generation += 1;
        }
        let generation = slot.generation;
        if !renew && context.is_some_and(|(of, _)| of != generation) {
            return Err(HostError::Spent);
        }
        let Some(live) = &mut slot.live else {
            return Err(HostError::Spent);
        };
        let result = live.context(filter, generation, context).and_then(|id| {
            let result = call(&mut live.vm, id);
            if result.is_err() {
                *context = None;
            }
            result
        });
        if let Err(error) = &result {
            self.failed(filter.module, error);
        }
        result
    }

    /// Counts a failure, says what it was, and puts a new VM in the place of the spent one.
    fn failed(&mut self, module: usize, error: &HostError) {
        let Some(slot) = self.slots.get_mut(module) else {
            return;
        };
        let filter = slot.plan.module.name();
        self.metrics.filter_failed(filter);
        tracing::error!(filter, error = %error, "filter failed");
        // The spent one goes first: the pool has room for one VM per worker and module.
        slot.live = None;
        slot.generation += 1;
        match Live::new(&slot.plan, &self.store) {
            Ok(live) => slot.live = Some(live),
            Err(error) => tracing::error!(filter, error = %error, "filter cannot be replaced"),
        }
    }

    /// Calls that filters have made since they were last taken; each has to end in [`Set::answered`].
    pub(crate) fn take_calls(&mut self) -> Vec<Asked> {
        let slots = self.slots.iter_mut().enumerate();
        let calls = slots.filter_map(|(module, slot)| {
            let generation = slot.generation;
            let calls = slot.live.as_mut()?.vm.take_calls();
            Some(calls.into_iter().map(move |call| Asked {
                module,
                generation,
                call,
            }))
        });
        calls.flatten().collect()
    }

    /// Tells the filter what became of its call, if the VM that made it still lives.
    pub(crate) fn answered(&mut self, asked: &Asked, answer: CallAnswer) {
        let Some(slot) = self.slots.get_mut(asked.module) else {
            return;
        };
        let Some(live) = &mut slot.live else { return };
        if slot.generation != asked.generation {
            return;
        }
        if let Err(error) = live.vm.on_call_response(&asked.call, answer) {
            self.failed(asked.module, &error);
        }
    }

    /// Makes the ticks due of all filters that want any.
    pub(crate) fn hurry(&mut self, now: Instant) {
        for live in self.slots.iter_mut().filter_map(|slot| slot.live.as_mut()) {
            for (root, due) in &mut live.roots {
                *due = live.vm.tick_period(*root).map(|_| now);
            }
        }
    }

    /// Runs the ticks that are due; returns when to look again.
    pub(crate) fn tick(&mut self, now: Instant) -> Instant {
        let mut next = now + TICK_CHECK;
        for module in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(module) else {
                continue;
            };
            let Some(live) = &mut slot.live else { continue };
            match live.tick(now) {
                Ok(Some(at)) => next = next.min(at),
                Ok(None) => {}
                Err(error) => self.failed(module, &error),
            }
        }
        next
    }
}

impl Live {
    fn new(plan: &Plan, store: &Arc<Shared>) -> Result<Self, HostError> {
        let mut vm = Vm::new(&plan.module, Arc::clone(store))?;
        let mut roots = Vec::with_capacity(plan.roots.len());
        for root in &plan.roots {
            roots.push((vm.configure(&root.name, root.config.clone())?, None));
        }
        Ok(Self { vm, roots })
    }

    fn context(
        &mut self,
        filter: Use,
        generation: u64,
        context: &mut Option<Context>,
    ) -> Result<ContextId, HostError> {
        match context {
            Some((of, id)) if *of == generation => Ok(*id),
            _ => {
                let (root, _) = self.roots.get(filter.root).ok_or(HostError::Spent)?;
                let id = self.vm.create_context(*root)?;
                *context = Some((generation, id));
                Ok(id)
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Result<Option<Instant>, HostError> {
        let mut next: Option<Instant> = None;
        for (root, due) in &mut self.roots {
            if due.is_some_and(|due| due <= now) {
                *due = None;
                self.vm.on_tick(*root)?;
            }
            *due = match (self.vm.tick_period(*root), *due) {
                (None, _) => None,
                (Some(period), None) => Some(now + period),
                // A shorter period counts from now on.
                (Some(period), Some(at)) => Some(at.min(now + period)),
            };
            next = match (next, *due) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(next)
    }
}

/// One request in its filters. When it is dropped, the filters hear that the request is over.
pub(crate) struct Passage {
    set: Rc<RefCell<Set>>,
    chain: Arc<[Use]>,
    contexts: Vec<Option<Context>>,
    /// Request and response as the filters see them.
    pub exchange: Exchange,
}

/// What the filters decided together.
pub(crate) enum Verdict {
    Pass,
    Answer(LocalResponse),
    /// One failed; the request must not pass.
    Failed,
}

impl Passage {
    pub(crate) fn new(set: Rc<RefCell<Set>>, chain: Arc<[Use]>, exchange: Exchange) -> Self {
        Self {
            contexts: vec![None; chain.len()],
            set,
            chain,
            exchange,
        }
    }

    /// The request's headers, in the order of the chain, until one answers.
    pub(crate) fn request_headers(&mut self, end: bool) -> Verdict {
        self.run(false, |vm, id, exchange| {
            vm.on_request_headers(id, exchange, end)
        })
    }

    /// The whole body, in the order of the chain, until one answers.
    pub(crate) fn request_body(&mut self) -> Verdict {
        self.run(false, |vm, id, exchange| vm.on_request_body(id, exchange))
    }

    /// The response's headers, the last filter of the chain first: what wraps the request wraps the
    /// response. All filters, also those that never saw the request.
    pub(crate) fn response_headers(&mut self, end: bool) -> Verdict {
        self.run(true, |vm, id, exchange| {
            vm.on_response_headers(id, exchange, end)
        })
    }

    /// A part of the response's body.
    pub(crate) fn response_body(&mut self, end: bool) -> Verdict {
        self.run(true, |vm, id, exchange| {
            vm.on_response_body(id, exchange, end)
        })
    }

    fn run(
        &mut self,
        response: bool,
        mut call: impl FnMut(&mut Vm, ContextId, &mut Exchange) -> Result<Action, HostError>,
    ) -> Verdict {
        // Calls do not nest; should they, the request does not pass.
        let Ok(mut set) = self.set.try_borrow_mut() else {
            return Verdict::Failed;
        };
        let exchange = &mut self.exchange;
        let mut step = |(filter, context): (&Use, &mut Option<Context>)| match set.call(
            *filter,
            context,
            response,
            |vm, id| call(vm, id, exchange),
        ) {
            Ok(Action::Continue) => None,
            Ok(Action::Respond(answer)) => Some(Verdict::Answer(answer)),
            Err(_) => Some(Verdict::Failed),
        };
        let mut steps = self.chain.iter().zip(&mut self.contexts);
        let decided = if response {
            steps.rev().find_map(&mut step)
        } else {
            steps.find_map(&mut step)
        };
        decided.unwrap_or(Verdict::Pass)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Ok(mut set) = self.set.try_borrow_mut() else {
            return;
        };
        for (filter, context) in self.chain.iter().zip(&mut self.contexts) {
            let generation = set.slots.get(filter.module).map(|slot| slot.generation);
            if context.is_some_and(|(of, _)| Some(of) == generation) {
                let exchange = &mut self.exchange;
                // The failure is counted and logged; the request is over all the same.
                let _ = set.call(*filter, context, false, |vm, id| vm.finish(id, exchange));
            }
        }
    }
}
