//! Dashboards and the provisioning that puts them, and what they ask, into a Grafana.
//!
//! Grafana is configured by files alone: `provisioning/` goes to its provisioning directory, `dashboards/` to where
//! `telemetry.grafana.dashboards` says.

mod boards;
mod model;
mod provisioning;

use super::targets::{json, yaml};
use super::{RenderError, Rendered};
use crate::mesh::Mesh;
use crate::secret::Secrets;

/// Renders `dashboards/NAME.json`, `provisioning/dashboards/mesh.yml` and `provisioning/datasources/mesh.yml`.
///
/// # Errors
/// [`RenderError::Write`] for what YAML or JSON cannot hold.
pub fn grafana(mesh: &Mesh, _: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let boards = boards::boards(mesh).into_iter().map(|board| {
        let name = format!("dashboards/{}.json", board.uid);
        Ok(Rendered::open(name, json("dashboard", &board)?))
    });
    let mut files = boards.collect::<Result<Vec<_>, RenderError>>()?;
    let providers = yaml("dashboards/mesh.yml", &provisioning::providers(mesh))?;
    files.push(Rendered::open(
        "provisioning/dashboards/mesh.yml",
        providers,
    ));
    let sources = yaml("datasources/mesh.yml", &provisioning::sources(mesh))?;
    files.push(Rendered::open("provisioning/datasources/mesh.yml", sources));
    Ok(files)
}
