//! What goes wrong in the host, and how it travels through the guest's stack.

/// Why a module cannot run, or why a call did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The engine cannot be set up on this machine.
    #[error("wasm engine: {0}")]
    Engine(String),
    /// The module is none that this host can run.
    #[error("module {module}: {problem}")]
    Module {
        /// Name of the module.
        module: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The filter said no to its configuration.
    #[error("module {module} refused its configuration in {callback}")]
    Refused {
        /// Name of the module.
        module: String,
        /// The callback that said no.
        callback: &'static str,
    },
    /// The guest trapped: a panic, an access outside its memory, an argument that the ABI forbids.
    #[error("trap in {callback}: {reason}")]
    Trap {
        /// The callback that ran.
        callback: &'static str,
        /// What happened.
        reason: String,
    },
    /// The guest used up its CPU time.
    #[error("{callback} was stopped after {limit_ms} ms of cpu time")]
    Timeout {
        /// The callback that ran.
        callback: &'static str,
        /// The limit, in milliseconds.
        limit_ms: u128,
    },
    /// The guest called a function that this host does not support.
    #[error("{callback} called {function}, which is not supported")]
    Unsupported {
        /// The callback that ran.
        callback: &'static str,
        /// Name of the function.
        function: String,
    },
    /// An earlier call into this VM failed.
    #[error("the vm is spent after an earlier failure")]
    Spent,
}

/// What a host function or the time limit ends a call with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("cpu time is used up")]
    Timeout,
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("{0}")]
    Forbidden(&'static str),
}

/// Ends the call, because the guest did `what` the ABI forbids.
pub(crate) fn forbidden<T>(what: &'static str) -> wasmtime::Result<T> {
    Err(wasmtime::Error::new(Stop::Forbidden(what)))
}

/// Ends the call, because the guest called `function`.
pub(crate) fn unsupported<T>(function: impl Into<String>) -> wasmtime::Result<T> {
    Err(wasmtime::Error::new(Stop::Unsupported(function.into())))
}
