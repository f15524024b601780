//! `mesh render compose` and `mesh render kubernetes`: the mesh in containers, with what they mount.

use crate::args::Render;
use crate::load::{Loaded, environment};
use mesh_config::deploy::{Part, Place};
use mesh_config::render::{Rendered, compose, kubernetes};
use mesh_local::identity::secrets_in_containers;

/// docker-compose.yml, and with `--secrets` every file that it mounts as one.
pub fn compose(args: &Render, loaded: &Loaded) -> anyhow::Result<Vec<Rendered>> {
    let mesh = &loaded.mesh;
    let open = |name: &str, text: String| Rendered {
        name: name.to_owned(),
        text,
        secret: false,
    };
    let file = compose::compose(mesh, &args.root)?;
    let mut files = vec![open("docker-compose.yml", file.to_yaml()?)];
    let parts = &mesh.deploy.parts;
    if let (Some(loki), true) = (parts.get(&Part::Loki), parts.contains_key(&Part::Promtail)) {
        files.push(open("promtail.yml", compose::promtail(&loki.name)?));
    }
    if args.secrets {
        let base = &loaded.base;
        let secrets = secrets_in_containers(mesh, Place::Compose, base, &environment)?;
        files.extend(compose::secret_files(mesh, &secrets)?);
        files.push(open(".env", owner()));
    }
    Ok(files)
}

/// Objects of Kubernetes, and with `--secrets` the files that their Secrets are made of.
pub fn kubernetes(args: &Render, loaded: &Loaded) -> anyhow::Result<Vec<Rendered>> {
    let mesh = &loaded.mesh;
    let mut files = kubernetes::kubernetes(mesh)?;
    if args.secrets {
        let base = &loaded.base;
        let secrets = secrets_in_containers(mesh, Place::Kubernetes, base, &environment)?;
        files.extend(kubernetes::secret_files(mesh, &secrets)?);
    }
    Ok(files)
}

/// Who runs this owns the secret files, and the containers that read them run as the same user.
fn owner() -> String {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    format!("MESH_UID={}\nMESH_GID={}\n", user.as_raw(), group.as_raw())
}
