//! The containers of agents and services.

use super::{Container, Part, Tier};
use crate::fronted::Service;
use crate::mesh::{Agent, Builtin, Mesh, Run};

const MIB: u64 = 1024 * 1024;

impl Mesh {
    /// The container of an agent: what mesh.yaml says, or ours for one of ours. None for an agent that runs
    /// elsewhere.
    ///
    /// # Errors
    /// For an agent that `mesh up` starts by a command, and that no image is named for: in words.
    pub fn container_of(&self, agent: &Agent) -> Result<Option<Container>, String> {
        if let Some(said) = &agent.container {
            // Closed like ours until mesh.yaml opens it.
            let usual = Container {
                user: Some("65532:65532".to_owned()),
                tmpfs: vec!["/tmp".to_owned()],
                memory: 512 * MIB,
                ..named(agent.id.as_str())
            };
            return Ok(Some(usual.with(said.clone())));
        }
        match &agent.run {
            Some(Run::Builtin(builtin)) => Ok(self.built_in(agent, *builtin)),
            Some(Run::Command { .. }) => Err(format!(
                "agent {} is a command of this machine; name what holds it: \
                 `container: {{image: NAME:VERSION}}` or `container: {{build: DIRECTORY}}`",
                agent.id
            )),
            None => Ok(None),
        }
    }

    fn built_in(&self, agent: &Agent, builtin: Builtin) -> Option<Container> {
        let port = agent
            .endpoint
            .as_ref()
            .and_then(url::Url::port_or_known_default);
        let named = Builtin::ALL.iter().find(|(_, known)| *known == builtin);
        let usual = self.deploy.parts.get(&Part::Agent)?;
        Some(Container {
            name: agent.id.to_string(),
            command: vec![
                named.map(|(name, _)| (*name).to_owned())?,
                "--listen".to_owned(),
                format!("127.0.0.1:{}", port.unwrap_or(super::placed::AGENT_PORT)),
            ],
            ..usual.clone()
        })
    }
}

impl Service {
    /// The container of a service, if the mesh runs it. It is somebody else's image: it keeps its own user, its
    /// own files and what its start needs, unless mesh.yaml says otherwise.
    pub fn contained(&self) -> Option<Container> {
        let said = self.container.clone()?;
        let usual = Container {
            open: true,
            writable: true,
            memory: 1024 * MIB,
            ..named(self.host())
        };
        Some(usual.with(said))
    }
}

/// One that only its name is known of.
pub(crate) fn named(name: &str) -> Container {
    Container {
        name: name.to_owned(),
        networks: [Tier::Mesh.name().to_owned()].into(),
        replicas: 1,
        cpus: 1000,
        ..Container::default()
    }
}
