//! What a mesh is made of, as mesh.yaml says it.

use super::audit;
use crate::server::free_port;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What a mesh is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Agents of ours, by what `agent NAME` calls them, and how many instances of each run. A task type of the
    /// same name leads to each.
    pub agents: Vec<(&'static str, usize)>,
    /// Agents that the test itself serves, by id and by port on 127.0.0.1: one instance each, with a sidecar and a
    /// task type like the others.
    pub served: Vec<(&'static str, u16)>,
    /// How many orchestrators share the runs.
    pub orchestrators: usize,
    /// The broker's URL; a virtual host of the shared one where it is left out.
    pub broker: Option<String>,
    /// The store's URL; a database of the shared one where it is left out.
    pub store: Option<String>,
    /// Environment of every program.
    pub environment: Vec<(&'static str, String)>,
    /// Environment of one program, by its name, beside that of all.
    pub environment_of: Vec<(&'static str, &'static str, String)>,
    /// Fields of mesh.yaml, laid over the usual ones: `intentions`, `traffic`, `identity`, …
    pub fields: Map<String, Value>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            agents: vec![
                ("general-agent", 1),
                ("data-processor", 1),
                ("hardware-optimizer", 1),
            ],
            served: Vec::new(),
            orchestrators: 1,
            broker: None,
            store: None,
            environment: Vec::new(),
            environment_of: Vec::new(),
            fields: Map::new(),
        }
    }
}

/// The task type that leads to every agent, one step each.
const EVERYONE: &str = "everyone";

impl Setup {
    /// The same with one more field of mesh.yaml.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.fields.insert(field.to_owned(), value);
        self
    }

    /// Every agent's id.
    fn ids(&self) -> Vec<&'static str> {
        let ours = self.agents.iter().map(|(agent, _)| *agent);
        let served = self.served.iter().map(|(agent, _)| *agent);
        ours.chain(served).collect()
    }

    pub(super) fn machines(&self) -> usize {
        let instances = self.agents.iter().map(|(_, instances)| *instances);
        instances.max().unwrap_or(1).max(self.orchestrators)
    }

    /// mesh.yaml as it stands on the machine of this number: JSON, which is YAML too.
    pub(super) fn mesh_yaml(
        &self,
        place: &Place,
        machine: usize,
        consul: &str,
        base: &Path,
    ) -> String {
        let orchestrator = place.orchestrator_on(machine);
        let listen = |port: u16| format!("127.0.0.1:{port}");
        let ids = self.ids();
        let agents = ids.iter().map(|agent| {
            let here = place.on(agent, machine);
            json!({
                "id": agent,
                "capabilities": [agent],
                "endpoint": format!("http://127.0.0.1:{}", here.endpoint),
                "sidecar": {
                    "listen": listen(here.listen),
                    "outbound": listen(here.outbound),
                    "admin_listen": listen(here.admin),
                },
            })
        });
        let mut rules: Map<String, Value> = ids
            .iter()
            .map(|id| ((*id).to_owned(), json!([id])))
            .collect();
        rules.insert(EVERYONE.to_owned(), json!(ids));
        let named = json!({"rules": [{"to": {"named": {"header": "x-agent"}}}]});
        let mut mesh = json!({
            "version": 1,
            "mesh": "whole",
            "gateway": {
                "listen": listen(place.gateway),
                "auth": {"development": true},
                "sidecar": {
                    "outbound": listen(place.gateway_outbound),
                    "admin_listen": listen(place.gateway_admin),
                },
                "filters": {"task_admission": {"priority": {"otherwise": 10}, "load": {}}},
                "routes": [
                    {"name": "orchestrate", "paths": ["/ai/orchestrate"], "methods": ["POST"]},
                    {"name": "tasks", "paths": ["/task", "/tasks"], "methods": ["GET"], "strip_path": false,
                     "filters": {"task_admission": false}},
                    {"name": "agents", "paths": ["/agents"], "methods": ["GET"], "strip_path": false,
                     "filters": {"task_admission": false}},
                    {"name": "messages", "paths": ["/ws"], "methods": ["GET"], "strip_path": false,
                     "filters": {"task_admission": false}},
                    {"name": "direct", "paths": ["/agent"], "to": "agents",
                     "filters": {"task_admission": false, "agent_router": named}},
                ],
            },
            "orchestrator": {
                "listen": listen(orchestrator.api),
                "sidecar": {
                    "listen": listen(orchestrator.listen),
                    "admin_listen": listen(orchestrator.admin),
                },
                "planner": {"rules": rules},
            },
            "identity": {"source": "consul"},
            "registry": {"backend": "consul", "url": consul},
            "messaging": {"backend": "rabbitmq", "url": {"file": "secrets/broker"}},
            "store": {"backend": "redis", "url": {"file": "secrets/store"}},
            "audit": audit(base),
            "agents": agents.collect::<Vec<_>>(),
        });
        for (field, value) in self.fields.clone() {
            lay_over(&mut mesh[field], value);
        }
        let fields = mesh.as_object_mut().expect("an object");
        if let Some(identity) = fields.get_mut("identity")
            && identity["source"] == "development"
        {
            // Each program has a working directory of its own here, and all of them one authority.
            identity["directory"] = json!(base.join("ca"));
        }
        format!("{mesh:#}\n")
    }
}

/// Lays `value` over what is there: mappings are laid over field by field, everything else is replaced.
fn lay_over(there: &mut Value, value: Value) {
    match (there, value) {
        (Value::Object(there), Value::Object(fields)) => {
            for (field, value) in fields {
                lay_over(there.entry(field).or_insert(Value::Null), value);
            }
        }
        (there, value) => *there = value,
    }
}

/// Where one instance of an agent is, and its sidecar.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub agent: &'static str,
    /// From 1; the first instances of all agents are on the first machine.
    pub machine: usize,
    /// Whether the test itself serves it.
    pub served: bool,
    pub endpoint: u16,
    pub listen: u16,
    pub outbound: u16,
    pub admin: u16,
}

impl Instance {
    pub(super) fn name(&self) -> String {
        numbered(self.agent, self.machine)
    }
}

/// What the instance of `name` on a machine is called.
pub(super) fn numbered(name: &str, machine: usize) -> String {
    match machine {
        1 => name.to_owned(),
        machine => format!("{name}-{machine}"),
    }
}

/// Where one orchestrator is, and its sidecar; the first is on the first machine, and so on.
#[derive(Debug, Clone)]
pub(super) struct Orchestrator {
    pub api: u16,
    pub listen: u16,
    pub admin: u16,
}

/// The ports of a mesh.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub gateway: u16,
    pub gateway_status: u16,
    pub gateway_outbound: u16,
    pub gateway_admin: u16,
    pub orchestrators: Vec<Orchestrator>,
    pub instances: Vec<Instance>,
}

impl Place {
    pub(super) fn new(setup: &Setup) -> Self {
        let instance = |agent, machine, served: Option<u16>| Instance {
            agent,
            machine,
            served: served.is_some(),
            endpoint: served.unwrap_or_else(free_port),
            listen: free_port(),
            outbound: free_port(),
            admin: free_port(),
        };
        let ours = setup.agents.iter().flat_map(|(agent, instances)| {
            (1..=*instances).map(move |machine| instance(*agent, machine, None))
        });
        let served = setup.served.iter();
        let served = served.map(|(agent, port)| instance(*agent, 1, Some(*port)));
        Self {
            gateway: free_port(),
            gateway_status: free_port(),
            gateway_outbound: free_port(),
            gateway_admin: free_port(),
            orchestrators: (0..setup.orchestrators)
                .map(|_| Orchestrator {
                    api: free_port(),
                    listen: free_port(),
                    admin: free_port(),
                })
                .collect(),
            instances: ours.chain(served).collect(),
        }
    }

    pub fn first_orchestrator(&self) -> &Orchestrator {
        self.orchestrator_on(1)
    }

    /// The orchestrator on a machine; where there is none, the first one.
    fn orchestrator_on(&self, machine: usize) -> &Orchestrator {
        let here = self.orchestrators.get(machine - 1);
        here.or(self.orchestrators.first())
            .expect("an orchestrator")
    }

    /// The instance of `agent` on a machine; where there is none, the first one.
    fn on(&self, agent: &str, machine: usize) -> &Instance {
        let of = |wanted: usize| {
            let mut all = self.instances.iter();
            all.find(|instance| instance.agent == agent && instance.machine == wanted)
        };
        of(machine).or_else(|| of(1)).expect("an instance")
    }
}
