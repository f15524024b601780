//! The ways in and out.

mod balance;
mod breaker;
mod outlier;
mod retry;
mod window;
