//! One instance of a module, and the callbacks of the ABI.

mod exports;

use crate::calls::{Call, CallAnswer};
use crate::engine::Engine;
use crate::error::{HostError, Stop};
use crate::exchange::{Exchange, LocalResponse};
use crate::module::Module;
use crate::shared::Shared;
use crate::state::{Phase, Root, State};
use crate::usage::Usage;
use bytes::Bytes;
use exports::{Exports, StreamCallback};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{Store, StoreLimitsBuilder, TypedFunc, UpdateDeadline, WasmParams, WasmResults};

/// Stream contexts of one VM at a time; a worker has fewer connections.
const MAX_CONTEXTS: usize = 65_536;
/// `PAUSE`, the one other answer of a callback.
const PAUSE: u32 = 1;

/// Fuel of a VM that is measured: more than it burns.
const FUEL: u64 = u64::MAX;

/// A root context: one configuration of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootId(u32);

/// A stream context: one request in one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContextId(u32);

/// What a filter decided.
#[derive(Debug)]
pub enum Action {
    /// Goes on.
    Continue,
    /// The filter answers.
    Respond(LocalResponse),
}

/// One instance of a module. After the first error it is spent: every later call fails.
pub struct Vm {
    store: Store<State>,
    exports: Exports,
    module: Arc<str>,
    /// Its clock stops endless loops, and must run as long as this VM does.
    _engine: Engine,
    call_limit: Duration,
    configure_limit: Duration,
    next_id: u32,
    spent: bool,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm")
            .field("module", &self.module)
            .field("spent", &self.spent)
            .finish_non_exhaustive()
    }
}

impl Vm {
    /// Makes an instance of `module` and runs its initialisation.
    ///
    /// # Errors
    /// [`HostError::Module`] when it lacks what the ABI asks for or the pool is empty, else what its
    /// initialisation ended with.
    pub fn new(module: &Module, shared: Arc<Shared>) -> Result<Self, HostError> {
        let limits = module.engine.limits;
        let state = State {
            module: Arc::clone(&module.name),
            limits: StoreLimitsBuilder::new()
                .memory_size(limits.memory)
                .instances(1)
                .memories(1)
                .trap_on_grow_failure(true)
                .build(),
            memory: None,
            allocate: None,
            roots: HashMap::new(),
            contexts: HashMap::new(),
            current: 0,
            phase: Phase::Start,
            exchange: Exchange::default(),
            local_response: None,
            calls: Vec::new(),
            calls_open: 0,
            last_call: 0,
            call_answer: None,
            shared,
            defined: Vec::new(),
            cpu_start: None,
            cpu_limit: limits.configure,
            counts: BTreeMap::new(),
        };
        let mut store = Store::new(&module.engine.inner, state);
        if module.engine.measured {
            store
                .set_fuel(FUEL)
                .map_err(|e| HostError::Engine(format!("{e:#}")))?;
        }
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            context.data_mut().check_time()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let instance = module
            .pre
            .instantiate(&mut store)
            .map_err(|e| wrong(&module.name, format!("{e:#}")))?;
        let exports = Exports::of(&module.name, &instance, &mut store)?;
        let mut vm = Self {
            store,
            exports,
            module: Arc::clone(&module.name),
            _engine: module.engine.clone(),
            call_limit: limits.call,
            configure_limit: limits.configure,
            next_id: 1,
            spent: false,
        };
        vm.call(Phase::Start, 0, |e| &e.initialise, ())?;
        Ok(vm)
    }

    /// Makes a root context named `name` and gives it `config`.
    ///
    /// # Errors
    /// [`HostError::Refused`] when the filter says no, else what the call ended with.
    pub fn configure(&mut self, name: &str, config: Bytes) -> Result<RootId, HostError> {
        let id = self.take_id();
        let length = size(config.len());
        let root = Root {
            name: name.into(),
            config,
            tick: None,
        };
        self.store.data_mut().roots.insert(id, root);
        self.call(Phase::Start, id, |e| &e.context_create, (id, 0))?;
        if self.call(Phase::Start, id, |e| &e.vm_start, (id, 0))? == Some(0) {
            return Err(self.refused(Phase::Start));
        }
        if self.call(Phase::Configure, id, |e| &e.configure, (id, length))? == Some(0) {
            return Err(self.refused(Phase::Configure));
        }
        Ok(RootId(id))
    }

    /// What this VM has used so far; none unless its engine is [`Engine::measured`].
    pub fn usage(&self) -> Option<Usage> {
        // Fails where fuel is not counted.
        let left = self.store.get_fuel().ok()?;
        Some(Usage {
            fuel: FUEL.saturating_sub(left),
            calls: self.store.data().counts.clone(),
        })
    }

    /// How often the root context wants [`Vm::on_tick`]; None when it does not.
    pub fn tick_period(&self, root: RootId) -> Option<Duration> {
        self.store.data().roots.get(&root.0).and_then(|r| r.tick)
    }

    /// Runs the root context's tick.
    ///
    /// # Errors
    /// What the call ended with.
    pub fn on_tick(&mut self, root: RootId) -> Result<(), HostError> {
        self.call(Phase::Tick, root.0, |e| &e.tick, root.0)
            .map(drop)
    }

    /// Calls that filters have made since they were last taken. Each has to end in
    /// [`Vm::on_call_response`].
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.store.data_mut().calls)
    }

    /// Tells the filter what became of its call.
    ///
    /// # Errors
    /// What the callback ended with.
    pub fn on_call_response(&mut self, call: &Call, answer: CallAnswer) -> Result<(), HostError> {
        let (headers, body) = (size(answer.headers), size(answer.body.len()));
        let state = self.store.data_mut();
        state.calls_open = state.calls_open.saturating_sub(1);
        state.call_answer = Some(answer);
        let params = (call.root, call.id, headers, body, 0);
        let result = self.call(Phase::CallResponse, call.root, |e| &e.call_response, params);
        self.store.data_mut().call_answer = None;
        result.map(drop)
    }

    /// Makes a stream context for one request.
    ///
    /// # Errors
    /// What the call ended with.
    pub fn create_context(&mut self, root: RootId) -> Result<ContextId, HostError> {
        if self.store.data().contexts.len() >= MAX_CONTEXTS {
            return Err(HostError::Trap {
                callback: "proxy_on_context_create",
                reason: "too many requests at a time".to_owned(),
            });
        }
        let id = self.take_id();
        self.store.data_mut().contexts.insert(id, root.0);
        self.call(Phase::Start, id, |e| &e.context_create, (id, root.0))?;
        Ok(ContextId(id))
    }

    /// The request's headers are there.
    ///
    /// # Errors
    /// What the call ended with; the request must not pass.
    pub fn on_request_headers(
        &mut self,
        context: ContextId,
        exchange: &mut Exchange,
        end: bool,
    ) -> Result<Action, HostError> {
        let count = exchange.request.len();
        self.stream(
            Phase::RequestHeaders,
            context,
            exchange,
            |e| &e.request_headers,
            count,
            end,
        )
    }

    /// The whole request body is there.
    ///
    /// # Errors
    /// What the call ended with; the request must not pass.
    pub fn on_request_body(
        &mut self,
        context: ContextId,
        exchange: &mut Exchange,
    ) -> Result<Action, HostError> {
        let length = exchange.request_body.len();
        self.stream(
            Phase::RequestBody,
            context,
            exchange,
            |e| &e.request_body,
            length,
            true,
        )
    }

    /// The response's headers are there.
    ///
    /// # Errors
    /// What the call ended with; the response must not pass.
    pub fn on_response_headers(
        &mut self,
        context: ContextId,
        exchange: &mut Exchange,
        end: bool,
    ) -> Result<Action, HostError> {
        let count = exchange.response.len();
        self.stream(
            Phase::ResponseHeaders,
            context,
            exchange,
            |e| &e.response_headers,
            count,
            end,
        )
    }

    /// A part of the response body is there; `end` marks the last.
    ///
    /// # Errors
    /// What the call ended with; the response must not go on.
    pub fn on_response_body(
        &mut self,
        context: ContextId,
        exchange: &mut Exchange,
        end: bool,
    ) -> Result<Action, HostError> {
        let length = exchange.response_body.len();
        self.stream(
            Phase::ResponseBody,
            context,
            exchange,
            |e| &e.response_body,
            length,
            end,
        )
    }

    /// The request is over: the filter may look at it once more, then its context goes.
    ///
    /// # Errors
    /// What the call ended with; the request is over all the same.
    pub fn finish(&mut self, context: ContextId, exchange: &mut Exchange) -> Result<(), HostError> {
        std::mem::swap(&mut self.store.data_mut().exchange, exchange);
        let id = context.0;
        let result = self
            .call(Phase::End, id, |e| &e.done, id)
            .and_then(|_| self.call(Phase::End, id, |e| &e.log, id))
            .and_then(|_| self.call(Phase::End, id, |e| &e.delete, id));
        std::mem::swap(&mut self.store.data_mut().exchange, exchange);
        self.store.data_mut().contexts.remove(&id);
        result.map(drop)
    }

    fn stream(
        &mut self,
        phase: Phase,
        context: ContextId,
        exchange: &mut Exchange,
        function: impl FnOnce(&Exports) -> &Option<StreamCallback>,
        amount: usize,
        end: bool,
    ) -> Result<Action, HostError> {
        if !self.store.data().contexts.contains_key(&context.0) {
            return Err(HostError::Spent);
        }
        std::mem::swap(&mut self.store.data_mut().exchange, exchange);
        let params = (context.0, size(amount), u32::from(end));
        let result = self.call(phase, context.0, function, params);
        std::mem::swap(&mut self.store.data_mut().exchange, exchange);
        let answer = self.store.data_mut().local_response.take();
        match (result?, answer) {
            (_, Some(answer)) => Ok(Action::Respond(answer)),
            (Some(PAUSE), None) => {
                // Nothing could wake it again: there are no dispatched calls, and bodies come whole.
                self.spent = true;
                Err(HostError::Unsupported {
                    callback: phase.callback(),
                    function: "PAUSE without a response".to_owned(),
                })
            }
            _ => Ok(Action::Continue),
        }
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        phase: Phase,
        context: u32,
        function: impl FnOnce(&Exports) -> &Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<Option<R>, HostError> {
        if self.spent {
            return Err(HostError::Spent);
        }
        // By reference: a clone of a function counts up what all workers share.
        let Some(function) = function(&self.exports) else {
            return Ok(None);
        };
        let limit = match phase {
            phase if phase.is_apart() => self.configure_limit,
            _ => self.call_limit,
        };
        let state = self.store.data_mut();
        state.phase = phase;
        state.current = context;
        state.cpu_start = None;
        state.cpu_limit = limit;
        self.store.set_epoch_deadline(1);
        match function.call(&mut self.store, params) {
            Ok(result) => Ok(Some(result)),
            Err(error) => {
                self.spent = true;
                Err(explain(phase.callback(), limit, &error))
            }
        }
    }

    fn refused(&mut self, phase: Phase) -> HostError {
        self.spent = true;
        HostError::Refused {
            module: self.module.to_string(),
            callback: phase.callback(),
        }
    }

    fn take_id(&mut self) -> u32 {
        // Ids wrap after four billion requests; one that is still in use is passed over.
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let state = self.store.data();
            if !state.roots.contains_key(&id) && !state.contexts.contains_key(&id) {
                return id;
            }
        }
    }
}

fn wrong(module: &str, problem: String) -> HostError {
    HostError::Module {
        module: module.to_owned(),
        problem,
    }
}

fn explain(callback: &'static str, limit: Duration, error: &wasmtime::Error) -> HostError {
    match error.downcast_ref::<Stop>() {
        Some(Stop::Timeout) => HostError::Timeout {
            callback,
            limit_ms: limit.as_millis(),
        },
        Some(Stop::Unsupported(function)) => HostError::Unsupported {
            callback,
            function: function.clone(),
        },
        Some(Stop::Forbidden(what)) => HostError::Trap {
            callback,
            reason: (*what).to_owned(),
        },
        None => HostError::Trap {
            callback,
            reason: match error.downcast_ref::<wasmtime::Trap>() {
                Some(trap) => trap.to_string(),
                None => format!("{error:#}"),
            },
        },
    }
}

fn size(amount: usize) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}
