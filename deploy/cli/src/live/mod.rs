//! `mesh diff` and `mesh apply`: what mesh.yaml renders against what Kong, RabbitMQ and Consul hold.
//!
//! ```text
//!  mesh.yaml ─▶ rendered ─▶ normal form ─┐
//!                                        ├─▶ changes ─▶ shown ─▶ (apply: lock, leave) ─▶ made one by one
//!  Kong, RabbitMQ, Consul ─▶ normal form ┘
//! ```

mod apply;
mod consul;
mod http;
mod kong;
mod lock;
mod rabbitmq;
mod resource;
mod shown;

pub use apply::{Apply, apply};

use crate::args::Output;
use crate::load::{Loaded, environment, load};
use crate::screen::{self, Screen};
use anyhow::{Context, bail};
use consul::Consul;
use http::{Api, Auth};
use kong::Kong;
use mesh_bus::{BrokerUrl, BusConfig};
use mesh_config::broker_url::Place;
use mesh_config::render;
use mesh_config::secret::Secrets;
use rabbitmq::Rabbit;
use resource::{Change, Part, Resources, changes};
use serde_json::json;
use shown::{Mask, counts};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// There is a difference.
const DIFFERS: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Only these; every one that mesh.yaml says the address of when left out
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// What is compared.
#[derive(Default)]
struct Live {
    rabbit: Option<Rabbit>,
    consul: Option<Consul>,
    kong: Option<Kong>,
    secrets: Secrets,
}

pub async fn diff(args: &Diff) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let mut live = Live::new(&loaded, &args.only, false)?;
    let changes = live.read().await?;
    let mask = Mask(&live.secrets);
    let mut screen = Screen::stdout();
    match args.output {
        Output::Json => {
            let all: Vec<_> = changes.iter().map(|change| mask.json(change)).collect();
            let report = json!({"same": all.is_empty(), "parts": live.parts(), "changes": all});
            screen.line(screen::json(&report)?)?;
        }
        Output::Text => live.print(&mut screen, &changes)?,
    }
    Ok(if changes.is_empty() {
        ExitCode::SUCCESS
    } else {
        DIFFERS.into()
    })
}

impl Live {
    /// Finds out what there is to compare; asks nobody yet.
    fn new(loaded: &Loaded, only: &[Part], force: bool) -> anyhow::Result<Self> {
        let mesh = &loaded.mesh;
        let there = [
            (
                Part::Rabbitmq,
                mesh.messaging.rabbitmq.is_some() && mesh.messaging.broker.management.is_some(),
            ),
            (Part::Consul, mesh.trust.registry.consul.is_some()),
            (Part::Kong, mesh.gateway.admin.is_some()),
        ];
        let wants = |part: Part| {
            let there = there.iter().any(|(known, there)| *known == part && *there);
            let asked = only.is_empty() || only.contains(&part);
            if asked && !there && !only.is_empty() {
                bail!(
                    "{part}: mesh.yaml does not say where it is; add {}",
                    address(part)
                );
            }
            Ok(asked && there)
        };
        let (rabbit, consul, kong) = (
            wants(Part::Rabbitmq)?,
            wants(Part::Consul)?,
            wants(Part::Kong)?,
        );
        if !rabbit && !consul && !kong {
            let all = [Part::Rabbitmq, Part::Consul, Part::Kong]
                .map(address)
                .join(", or ");
            bail!("mesh.yaml does not say where anything is managed; add {all}");
        }
        let own = [(rabbit, "messaging."), (consul, "registry.")];
        let own = own.iter().filter_map(|(asked, own)| asked.then_some(*own));
        let own: Vec<&str> = own.collect();
        let secrets = if kong {
            // Its filters have keys of every kind.
            mesh_local::identity::secrets(&loaded.mesh, &loaded.base, &environment)?
        } else {
            secrets(loaded, &own)?
        };
        Ok(Self {
            rabbit: rabbit
                .then(|| self::rabbit(loaded, &secrets, force))
                .transpose()?,
            consul: consul.then(|| self::consul(loaded, &secrets)).transpose()?,
            kong: kong.then(|| self::kong(loaded, &secrets)).transpose()?,
            secrets,
        })
    }

    /// Reads everything, and says what is different.
    async fn read(&mut self) -> anyhow::Result<Vec<Change>> {
        let mut all = (Resources::new(), Resources::new());
        let mut add = |(wanted, held): (Resources, Resources)| {
            all.0.extend(wanted);
            all.1.extend(held);
        };
        if let Some(rabbit) = &mut self.rabbit {
            add(rabbit.read().await?);
        }
        if let Some(consul) = &mut self.consul {
            add(consul.read().await?);
        }
        if let Some(kong) = &mut self.kong {
            add(kong.read().await?);
        }
        let mut changes = changes(&all.0, &all.1);
        for change in &mut changes {
            change.note = match (change.key.part, &self.rabbit, &self.consul) {
                (Part::Rabbitmq, Some(rabbit), _) => rabbit.note(change),
                (Part::Consul, _, Some(consul)) => consul.note(change),
                _ => None,
            };
        }
        Ok(changes)
    }

    fn parts(&self) -> Vec<Part> {
        let each = [
            (Part::Rabbitmq, self.rabbit.is_some()),
            (Part::Consul, self.consul.is_some()),
            (Part::Kong, self.kong.is_some()),
        ];
        each.into_iter()
            .filter_map(|(part, there)| there.then_some(part))
            .collect()
    }

    fn print(&self, screen: &mut Screen, changes: &[Change]) -> std::io::Result<()> {
        let mask = Mask(&self.secrets);
        for change in changes {
            mask.print(screen, change)?;
        }
        let parts: Vec<String> = self.parts().iter().map(Part::to_string).collect();
        let parts = parts.join(", ");
        screen.line(if changes.is_empty() {
            format!("no difference ({parts})")
        } else {
            format!("{} ({parts})", counts(changes))
        })
    }
}

/// What of mesh.yaml says where a part is managed.
fn address(part: Part) -> &'static str {
    match part {
        Part::Rabbitmq => "`messaging: {backend: rabbitmq, url: …, management: {url: …}}`",
        Part::Consul => "`registry: {backend: consul, url: …}`",
        Part::Kong => "`gateway: {admin: {url: …}}`",
    }
}

/// The secrets of the sections of mesh.yaml that begin so.
fn secrets(loaded: &Loaded, own: &[&str]) -> anyhow::Result<Secrets> {
    let wanted = loaded.mesh.sources().into_iter();
    let wanted = wanted.filter(|(path, _)| own.iter().any(|own| path.starts_with(own)));
    Secrets::resolve(wanted, &loaded.base, &environment).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(all.join("\n"))
    })
}

fn rabbit(loaded: &Loaded, secrets: &Secrets, force: bool) -> anyhow::Result<Rabbit> {
    let mesh = &loaded.mesh;
    let management = mesh.messaging.broker.management.as_ref();
    let management = management.context("messaging.management is missing")?;
    let url = mesh
        .messaging
        .rabbitmq
        .as_ref()
        .and_then(|url| secrets.value(url));
    let url = url.context("messaging.url has no value")?.to_owned();
    let place = Place::of(&url).context("messaging.url is no amqp:// or amqps:// URL")?;
    let (user, password) = match &management.credentials {
        None => (place.user.clone(), place.password),
        Some(source) => {
            let text = secrets.value(source).unwrap_or_default();
            let (user, password) = text
                .split_once(':')
                .context("messaging.management.credentials must be user:password")?;
            (user.to_owned(), password.to_owned())
        }
    };
    let client = crate::check::client(ca(loaded, management.ca.as_deref()).as_deref());
    let client = client.map_err(|why| anyhow::anyhow!("messaging.management: {why}"))?;
    let auth = Auth::Basic { user, password };
    let api = Api::new(
        client,
        management.url.clone(),
        auth,
        "RabbitMQ's management API",
    );
    let bus = BrokerUrl::try_from(url).map_err(|why| anyhow::anyhow!("messaging.url: {why}"))?;
    let bus = BusConfig::Rabbitmq { url: bus };
    let wanted = render::rabbitmq(mesh, secrets)?;
    Ok(Rabbit::new(api, bus, place.user, &mesh.name, wanted, force))
}

fn consul(loaded: &Loaded, secrets: &Secrets) -> anyhow::Result<Consul> {
    let mesh = &loaded.mesh;
    let api = consul_api_with(loaded, secrets)?;
    Ok(Consul::new(
        api.context("registry is missing")?,
        &mesh.name,
        render::consul::fronted_services(mesh),
        render::consul::service_defaults(mesh),
        render::consul::intentions(mesh)?,
    ))
}

/// Consul's API, where there is a Consul.
fn consul_api(loaded: &Loaded) -> anyhow::Result<Option<Api>> {
    consul_api_with(loaded, &secrets(loaded, &["registry."])?)
}

fn consul_api_with(loaded: &Loaded, secrets: &Secrets) -> anyhow::Result<Option<Api>> {
    let Some(registry) = &loaded.mesh.trust.registry.consul else {
        return Ok(None);
    };
    let client = crate::check::client(ca(loaded, registry.ca.as_deref()).as_deref());
    let client = client.map_err(|why| anyhow::anyhow!("registry: {why}"))?;
    let token = registry
        .token
        .as_ref()
        .and_then(|token| secrets.value(token));
    let auth = token.map_or(Auth::None, |token| Auth::Consul(token.to_owned()));
    Ok(Some(Api::new(client, registry.url.clone(), auth, "Consul")))
}

fn kong(loaded: &Loaded, secrets: &Secrets) -> anyhow::Result<Kong> {
    let mesh = &loaded.mesh;
    let url = mesh
        .gateway
        .admin
        .clone()
        .context("gateway.admin is missing")?;
    let client = crate::check::client(None).map_err(anyhow::Error::msg)?;
    let api = Api::new(client, url, Auth::None, "Kong's admin API");
    let config = render::kong(mesh, secrets)?;
    Ok(Kong::new(
        api,
        serde_json::to_value(&config)?,
        config.to_yaml()?,
    ))
}

fn ca(loaded: &Loaded, ca: Option<&Path>) -> Option<PathBuf> {
    ca.map(|ca| loaded.base.join(ca))
}
