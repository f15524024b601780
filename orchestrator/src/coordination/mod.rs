//! Agents that work together: who they are, what they tell one another, and tasks that several of them share.
//!
//! ```text
//!  POST /register ─▶ Agents ──────────────┐
//!  GET /ws/{agent} ─▶ session ─▶ hub: Connections, Mailboxes ─▶ session ─▶ the other agent
//!                                 (memory, Redis: another replica's agents hear as well)
//!  POST /coordinate ─▶ draft (client, model or rules) ─▶ check ─▶ Plan ─▶ executor, as every task
//! ```
//!
//! A message is acknowledged once it is in the mailbox of each receiver, and leaves the mailbox when its receiver
//! acknowledges it. What is in between survives connections, and replicas where Redis keeps it.

pub mod hub;
pub mod plan;
pub mod socket;
