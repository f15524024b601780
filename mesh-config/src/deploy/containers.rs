//! The containers of agents.

use super::{Container, Part};
use crate::mesh::{Agent, Builtin, Mesh, Run};

impl Mesh {
    /// The container of an agent: what mesh.yaml says, or ours for one of ours. None for an agent that runs
    /// elsewhere.
    ///
    /// # Errors
    /// For an agent that `mesh up` starts by a command, and that no image is named for: in words.
    pub fn container_of(&self, agent: &Agent) -> Result<Option<Container>, String> {
        if let Some(container) = &agent.container {
            return Ok(Some(container.clone()));
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
