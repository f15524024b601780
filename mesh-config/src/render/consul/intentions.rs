//! Who may call whom, as Consul has it: for each callee one list of callers.
//!
//! The sidecars refuse what no intention allows, Consul allows what none denies; so every callee has a last entry for
//! everybody else. A caller is judged by its most exact entry alone, so what mesh.yaml says of `any` stands in the
//! entry of each caller as well.

use super::{own, owner};
use crate::mesh::Mesh;
use crate::render::{RenderError, sidecar};
use mesh_sidecar::config::{self, Action, From, ServiceName};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everybody who has no entry of its own.
const ANYONE: &str = "*";

/// Config entry `service-intentions`, from Consul 1.9 on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceIntentions {
    /// `service-intentions`.
    pub kind: &'static str,
    /// The callee.
    pub name: String,
    /// The callers.
    pub sources: Vec<Intention>,
    /// Whose it is.
    pub meta: BTreeMap<&'static str, String>,
}

/// What one caller may: `action` for all of it, or `permissions`, the first that matches.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Intention {
    /// The caller; `*` is everybody who has no entry of its own.
    pub name: String,
    /// Whether it may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Decision>,
    /// What it may ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
}

/// Whether a way is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It is.
    Allow,
    /// It is not.
    Deny,
}

/// Requests of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Permission {
    /// Whether they pass.
    pub action: Decision,
    /// Which ones.
    #[serde(rename = "HTTP")]
    pub http: HttpMatch,
}

/// Requests by path and method.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HttpMatch {
    /// The path itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_exact: Option<String>,
    /// What the path begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Methods; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

/// A way from one service to another as Consul before 1.9 has it: open or closed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The caller.
    pub source: String,
    /// The callee.
    pub destination: String,
    /// Whether it is open.
    pub open: bool,
}

impl ServiceIntentions {
    /// The same for a Consul that knows services alone: a way is open where anything on it is.
    pub fn ways(&self) -> Vec<Way> {
        let open = |i: &Intention| {
            i.action == Some(Decision::Allow)
                || i.permissions.iter().any(|p| p.action == Decision::Allow)
        };
        let way = |i: &Intention| Way {
            source: i.name.clone(),
            destination: self.name.clone(),
            open: open(i),
        };
        self.sources.iter().map(way).collect()
    }
}

/// Renders who may call each of the mesh's services.
///
/// # Errors
/// [`RenderError`] as the sidecars' configurations have it.
pub fn intentions(mesh: &Mesh) -> Result<Vec<ServiceIntentions>, RenderError> {
    let callees = own(mesh).into_iter();
    callees.map(|callee| to(mesh, &callee)).collect()
}

fn to(mesh: &Mesh, callee: &ServiceName) -> Result<ServiceIntentions, RenderError> {
    let all = sidecar::intentions(mesh, callee)?;
    let callers: BTreeSet<&ServiceName> = all
        .iter()
        .flat_map(|i| match &i.from {
            From::Any => &[],
            From::Services(services) => services.as_slice(),
        })
        .collect();
    let named = callers.into_iter().map(|caller| {
        let of = all.iter().filter(|i| match &i.from {
            From::Any => true,
            From::Services(services) => services.contains(caller),
        });
        intention(caller.as_str(), of.collect())
    });
    let anyone = all.iter().filter(|i| i.from == From::Any).collect();
    Ok(ServiceIntentions {
        kind: "service-intentions",
        name: callee.as_str().to_owned(),
        sources: named.chain([intention(ANYONE, anyone)]).collect(),
        meta: owner(mesh),
    })
}

/// One that denies wins over those that allow, so denials stand first. One that asks whom the assertion names can be
/// told only where it allows.
fn intention(caller: &str, of: Vec<&config::Intention>) -> Intention {
    let whole = |i: &&config::Intention| i.methods.is_empty() && i.paths.is_empty();
    let denials = of
        .iter()
        .filter(|i| i.action == Action::Deny && i.callers.is_none());
    let denials: Vec<_> = denials.copied().collect();
    let allowed: Vec<_> = of
        .iter()
        .filter(|i| i.action == Action::Allow)
        .copied()
        .collect();
    let decided = |action| Intention {
        name: caller.to_owned(),
        action: Some(action),
        permissions: Vec::new(),
    };
    if denials.iter().any(whole) || allowed.is_empty() {
        return decided(Decision::Deny);
    }
    let open = allowed.iter().any(whole);
    if denials.is_empty() && open {
        return decided(Decision::Allow);
    }
    let mut permissions = Vec::new();
    for denial in denials {
        permissions.extend(of_one(denial, Decision::Deny));
    }
    for allowed in allowed {
        permissions.extend(of_one(allowed, Decision::Allow));
    }
    if !open {
        // What none of them speaks of is decided by Consul's default otherwise.
        permissions.push(Permission {
            action: Decision::Deny,
            http: HttpMatch {
                path_prefix: Some("/".to_owned()),
                ..HttpMatch::default()
            },
        });
    }
    Intention {
        name: caller.to_owned(),
        action: None,
        permissions,
    }
}

/// Its requests. A prefix here is one of whole segments (`/a` is not `/ab`), so it becomes two.
fn of_one(intention: &config::Intention, action: Decision) -> Vec<Permission> {
    let permission = |path_exact: Option<String>, path_prefix: Option<String>| Permission {
        action,
        http: HttpMatch {
            path_exact,
            path_prefix,
            methods: intention.methods.clone(),
        },
    };
    if intention.paths.is_empty() {
        return vec![permission(None, Some("/".to_owned()))];
    }
    let paths = intention.paths.iter().flat_map(|path| {
        let bare = path.trim_end_matches('/');
        let exact = (!bare.is_empty()).then(|| permission(Some(bare.to_owned()), None));
        exact
            .into_iter()
            .chain([permission(None, Some(format!("{bare}/")))])
    });
    paths.collect()
}
