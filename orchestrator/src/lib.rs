//! Plans a task, runs the plan as a DAG over the bus, keeps its state.

pub mod api;
mod app;
pub mod assign;
pub mod config;
pub mod coordination;
pub mod intake;
pub mod load;
pub mod metrics;
pub mod ollama;
pub mod planner;
pub mod quota;
mod redis_link;
pub mod resources;
pub mod run;
pub mod store;
pub mod submission;

#[cfg(any(test, feature = "contract"))]
pub mod double;

pub use app::{Bound, BuildError, Deps, build};
