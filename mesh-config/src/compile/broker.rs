//! `messaging:` as far as it is the broker's, with defaults.

use super::value;
use crate::broker::{Binding, Broker, Exchange, Management, Policy, Queue};
use crate::schema::{self, At};
use serde_json::{Map, Value};
use std::path::PathBuf;

pub(super) fn broker(raw: schema::Broker) -> Broker {
    let management = value(raw.management).and_then(|raw| {
        Some(Management {
            url: value(raw.url)?,
            credentials: value(raw.credentials),
            ca: value(raw.ca).map(PathBuf::from),
        })
    });
    Broker {
        vhost: value(raw.vhost),
        management,
        exchanges: all(raw.exchanges, exchange),
        queues: all(raw.queues, queue),
        policies: all(raw.policies, policy),
    }
}

fn all<T, U>(raw: Vec<At<T>>, checked: impl Fn(T) -> Option<U>) -> Vec<U> {
    raw.into_iter().filter_map(|at| checked(at.value)).collect()
}

fn exchange(raw: schema::BrokerExchange) -> Option<Exchange> {
    Some(Exchange {
        name: value(raw.name)?,
        kind: value(raw.kind)?,
        durable: value(raw.durable).unwrap_or(true),
        auto_delete: value(raw.auto_delete).unwrap_or(false),
        internal: value(raw.internal).unwrap_or(false),
        arguments: map(raw.arguments),
    })
}

fn queue(raw: schema::BrokerQueue) -> Option<Queue> {
    Some(Queue {
        name: value(raw.name)?,
        durable: value(raw.durable).unwrap_or(true),
        auto_delete: value(raw.auto_delete).unwrap_or(false),
        arguments: map(raw.arguments),
        bindings: all(raw.bindings, |raw| {
            Some(Binding {
                exchange: value(raw.exchange)?,
                key: value(raw.key).unwrap_or_default(),
                arguments: map(raw.arguments),
            })
        }),
    })
}

fn policy(raw: schema::BrokerPolicy) -> Option<Policy> {
    Some(Policy {
        name: value(raw.name)?,
        pattern: value(raw.pattern)?,
        apply_to: value(raw.apply_to).unwrap_or_default(),
        priority: value(raw.priority).unwrap_or(0),
        definition: map(raw.definition),
    })
}

fn map(raw: Option<At<schema::Setting>>) -> Map<String, Value> {
    value(raw)
        .and_then(|setting| setting.config)
        .unwrap_or_default()
}
