//! Changes of a broker, one resource at a time; each can be made again.

use super::{BINDING, EXCHANGE, LEDGER, QUEUE, Rabbit, VHOST};
use crate::live::resource::{Action, Change, text};
use anyhow::bail;
use mesh_bus::BusError;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Rabbit {
    /// Notes what is going to be the mesh's besides what is already: an apply that is killed has forgotten nothing.
    pub async fn begin(&self) -> anyhow::Result<()> {
        let mut all = self.to_note();
        for (field, _) in LEDGER {
            let old = self
                .held
                .ledger
                .as_ref()
                .and_then(|l| l.get(field)?.as_array());
            let old = old.into_iter().flatten().filter_map(Value::as_str);
            let new = all
                .get(field)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let names: BTreeSet<&str> = new.iter().filter_map(Value::as_str).chain(old).collect();
            let names = json!(names);
            if let Some(place) = all.get_mut(field) {
                *place = names;
            }
        }
        self.note_down(all).await
    }

    /// Notes what is the mesh's now that everything stands.
    pub async fn finish(&self) -> anyhow::Result<()> {
        self.note_down(self.to_note()).await
    }

    async fn note_down(&self, names: Value) -> anyhow::Result<()> {
        let path = ["api", "global-parameters", &self.ledger];
        let held = self.api.get(&path, &[]).await?;
        if held.as_ref().and_then(|held| held.get("value")) == Some(&names) {
            return Ok(());
        }
        let body = json!({"name": self.ledger, "value": names});
        self.api
            .change(Method::PUT, &path, &[], Some(&body))
            .await?;
        Ok(())
    }

    /// Makes one change.
    pub async fn change(&self, change: &Change) -> anyhow::Result<()> {
        let key = &change.key;
        let v = self.vhost.as_str();
        let exists = change.action != Action::Created;
        match (key.kind, &change.after) {
            (kind, _) if kind == VHOST.1 => self.make_vhost().await,
            (kind, after) if kind == QUEUE.1 => {
                if exists {
                    self.delete_queue(change).await?;
                }
                let Some(after) = after else { return Ok(()) };
                self.declare_queue(&key.name, after).await?;
                if exists {
                    self.bind_again("destination", &key.name).await?;
                }
                Ok(())
            }
            (kind, after) if kind == EXCHANGE.1 => {
                if exists {
                    self.delete_exchange(&key.name, after.is_some()).await?;
                }
                let Some(after) = after else { return Ok(()) };
                let path = ["api", "exchanges", v, &key.name];
                self.api
                    .change(Method::PUT, &path, &[], Some(after))
                    .await?;
                if exists {
                    self.bind_again("source", &key.name).await?;
                }
                Ok(())
            }
            (kind, Some(after)) if kind == BINDING.1 => self.bind(after).await,
            (kind, None) if kind == BINDING.1 => {
                let before = change.before.as_ref().unwrap_or(&Value::Null);
                let (from, to) = (text(before, "source"), text(before, "destination"));
                let Some(properties) = self.held.properties.get(key) else {
                    bail!("the binding was not read");
                };
                let path = ["api", "bindings", v, "e", from, "q", to, properties];
                self.api.change(Method::DELETE, &path, &[], None).await?;
                Ok(())
            }
            (_, Some(after)) => {
                let path = ["api", "policies", v, &key.name];
                self.api
                    .change(Method::PUT, &path, &[], Some(after))
                    .await?;
                Ok(())
            }
            (_, None) => {
                let path = ["api", "policies", v, &key.name];
                self.api.change(Method::DELETE, &path, &[], None).await?;
                Ok(())
            }
        }
    }

    async fn make_vhost(&self) -> anyhow::Result<()> {
        let path = ["api", "vhosts", &self.vhost];
        self.api
            .change(Method::PUT, &path, &[], Some(&json!({})))
            .await?;
        // Nobody may use a new one, neither who made it nor the mesh.
        let path = ["api", "permissions", &self.vhost, &self.user];
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.api.change(Method::PUT, &path, &[], Some(&all)).await?;
        Ok(())
    }

    async fn declare_queue(&self, name: &str, body: &Value) -> anyhow::Result<()> {
        let mut body = body.clone();
        let kind = text(&body, "type").to_owned();
        // Said as the parts say it: a queue that was declared without a type is the same queue as one declared
        // classic, and a virtual host may have another default.
        let said = self.wanted.queues.iter().find(|queue| queue.name == name);
        let says = said.is_some_and(|queue| queue.arguments.contains_key("x-queue-type"));
        if let Some(fields) = body.as_object_mut() {
            fields.remove("type");
            if let Some(arguments) = fields.get_mut("arguments").and_then(Value::as_object_mut)
                && says
            {
                arguments.insert("x-queue-type".to_owned(), kind.into());
            }
        }
        let path = ["api", "queues", &self.vhost, name];
        self.api
            .change(Method::PUT, &path, &[], Some(&body))
            .await?;
        Ok(())
    }

    /// Deletes a queue that holds nothing, or any with leave.
    async fn delete_queue(&self, change: &Change) -> anyhow::Result<()> {
        let name = change.key.name.as_str();
        let path = ["api", "queues", &self.vhost, name];
        let mut query = Vec::new();
        if !self.force {
            self.is_idle(name).await?;
            // The broker looks again itself, in the same moment; quorum queues cannot be asked to.
            let kind = change.before.as_ref().map(|before| text(before, "type"));
            if kind == Some("classic") {
                query = vec![("if-empty", "true"), ("if-unused", "true")];
            }
        }
        self.api.change(Method::DELETE, &path, &query, None).await?;
        Ok(())
    }

    /// The queue itself knows exactly what waits in it, and how many take from it; of messages that somebody has taken
    /// and not settled, its totals know.
    async fn is_idle(&self, name: &str) -> anyhow::Result<()> {
        const LEAVE: &str =
            "with --delete-queues-with-messages it goes all the same, and they are lost";
        let seen = self.total(name).await?;
        let bus = mesh_bus::connect(&self.bus).await?;
        let depth = bus.depth(name).await;
        bus.close().await;
        let (messages, consumers) = match depth {
            Ok(depth) => (u64::from(depth.messages).max(seen), depth.consumers),
            Err(BusError::NoQueue { .. }) => return Ok(()),
            Err(error) => bail!("whether it holds messages is not known: {error}"),
        };
        if messages > 0 {
            bail!("refused: queue {name} holds {messages} messages; empty it first, or {LEAVE}");
        }
        if consumers > 0 {
            bail!(
                "refused: queue {name} has {consumers} consumers, who may hold messages; stop them first, or {LEAVE}"
            );
        }
        Ok(())
    }

    /// How many messages a queue has, those among them that somebody has taken and not settled.
    ///
    /// The page of one queue shows statistics, which are up to some seconds old; totals of a list are of this moment
    /// (3.10 and 4.0, tried).
    async fn total(&self, name: &str) -> anyhow::Result<u64> {
        let exactly: String = name
            .chars()
            .flat_map(|c| {
                let escaped = c.is_ascii() && !c.is_ascii_alphanumeric();
                escaped.then_some('\\').into_iter().chain([c])
            })
            .collect();
        let exactly = format!("^{exactly}$");
        let query = [
            ("disable_stats", "true"),
            ("enable_queue_totals", "true"),
            ("use_regex", "true"),
            ("name", exactly.as_str()),
            ("page", "1"),
            ("page_size", "10"),
        ];
        let path = ["api", "queues", &self.vhost];
        let found = self.api.get(&path, &query).await?.unwrap_or_default();
        let items = found.get("items").and_then(Value::as_array);
        let queue = items
            .into_iter()
            .flatten()
            .find(|queue| text(queue, "name") == name);
        let Some(queue) = queue else {
            // Gone meanwhile, which the broker itself says next.
            return Ok(0);
        };
        if let Some(total) = queue.get("messages").and_then(Value::as_u64) {
            return Ok(total);
        }
        // A release without totals.
        let path = ["api", "queues", &self.vhost, name];
        let seen = self.api.get(&path, &[("columns", "messages")]).await?;
        let seen = seen.and_then(|queue| queue.get("messages")?.as_u64());
        Ok(seen.unwrap_or(0))
    }

    /// An exchange takes the bindings to it along: others' are not made again by anybody.
    async fn delete_exchange(&self, name: &str, comes_back: bool) -> anyhow::Result<()> {
        if let Some(others) = self.held.foreign.get(name) {
            let others = others.join(", ");
            bail!(
                "refused: exchange {name} is bound to what is not the mesh's, and its bindings would go with it: {others}; unbind that first"
            );
        }
        let path = ["api", "exchanges", &self.vhost, name];
        // Its bindings are the mesh's, and were deleted before; what came since is somebody else's.
        let unused = [("if-unused", "true")];
        let query = if comes_back { &[] } else { &unused[..] };
        self.api.change(Method::DELETE, &path, query, None).await?;
        Ok(())
    }

    async fn bind(&self, body: &Value) -> anyhow::Result<()> {
        let (from, to) = (text(body, "source"), text(body, "destination"));
        let path = ["api", "bindings", &self.vhost, "e", from, "q", to];
        let own =
            json!({"routing_key": body.get("routing_key"), "arguments": body.get("arguments")});
        self.api
            .change(Method::POST, &path, &[], Some(&own))
            .await?;
        Ok(())
    }

    /// Makes anew the bindings that were there and went with one of their ends; those that were not come by
    /// themselves.
    async fn bind_again(&self, end: &str, name: &str) -> anyhow::Result<()> {
        let bindings = self.wanted.bindings.iter();
        let bindings = bindings
            .map(|b| super::binding(&b.source, &b.destination, &b.routing_key, &b.arguments));
        for body in bindings.filter(|body| text(body, end) == name) {
            let key = self.key(BINDING, &super::binding_name(&body));
            if self.held.resources.contains_key(&key) {
                self.bind(&body).await?;
            }
        }
        Ok(())
    }
}
