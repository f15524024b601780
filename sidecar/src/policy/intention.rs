//! Who may call: intentions, compiled so that a request is decided without allocating.

use super::path::{Prefix, plain};
use crate::config::{self, Action, Callers, From, ServiceName};
use http::Method;
use mesh_protocol::assertion::Claims;

/// One intention.
#[derive(Debug)]
struct Intention {
    /// Every service when `None`.
    from: Option<Box<[ServiceName]>>,
    denies: bool,
    /// All when empty.
    methods: Box<[Method]>,
    /// All when empty.
    paths: Box<[Prefix]>,
    callers: Option<Callers>,
}

/// All that lead to this service.
#[derive(Debug)]
pub(super) struct Intentions(Box<[Intention]>);

/// What the intentions say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// One allows it and none denies it.
    Allowed,
    /// The one with this number denies it.
    Denied(usize),
    /// None speaks of it.
    Nothing,
    /// The one with this number speaks of paths, and readers differ on what this path means.
    Unclear(usize),
}

/// Which intentions hold of an originator as far as their `callers` go, by number; found out once for an assertion.
pub(super) type Held = Box<[bool]>;

impl Intentions {
    /// # Errors
    /// A method that is none; `config.check` refuses such before.
    pub(super) fn new(list: &[config::Intention]) -> Result<Self, String> {
        list.iter()
            .enumerate()
            .map(compiled)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Which hold of `claims`.
    pub(super) fn held(&self, claims: &Claims) -> Held {
        let holds = |i: &Intention| {
            i.callers
                .as_ref()
                .is_none_or(|callers| callers.hold_of(claims))
        };
        self.0.iter().map(holds).collect()
    }

    /// Decides on `method` and `path`, asked by `from` on behalf of whom `held` holds.
    pub(super) fn decide(
        &self,
        from: &ServiceName,
        method: &Method,
        path: &str,
        held: Option<&Held>,
    ) -> Decision {
        // Only rules that speak of paths have to read it.
        let mut read = None;
        let mut allowed = false;
        let mut unclear = None;
        let mut unclear_denial = None;
        for (number, intention) in self.0.iter().enumerate() {
            if !intention.speaks_of(from, method) || !intention.holds(number, held) {
                continue;
            }
            if !intention.paths.is_empty() {
                match read.get_or_insert_with(|| plain(path)) {
                    Some(path) if intention.paths.iter().any(|prefix| prefix.holds(path)) => {}
                    Some(_) => continue,
                    None if intention.denies => {
                        unclear_denial.get_or_insert(number);
                        continue;
                    }
                    None => {
                        unclear.get_or_insert(number);
                        continue;
                    }
                }
            }
            if intention.denies {
                return Decision::Denied(number);
            }
            allowed = true;
        }
        // A way that is open anyway needs no further rule that opens it; one that may close it always matters.
        match (unclear_denial, allowed, unclear) {
            (Some(number), _, _) | (None, false, Some(number)) => Decision::Unclear(number),
            (None, true, _) => Decision::Allowed,
            (None, false, None) => Decision::Nothing,
        }
    }
}

fn compiled((number, raw): (usize, &config::Intention)) -> Result<Intention, String> {
    let method = |text: &String| {
        let fault = || format!("policy.intentions[{number}].methods: `{text}` is no method");
        text.parse::<Method>().map_err(|_| fault())
    };
    Ok(Intention {
        from: match &raw.from {
            From::Any => None,
            From::Services(services) => Some(services.clone().into()),
        },
        denies: raw.action == Action::Deny,
        methods: raw.methods.iter().map(method).collect::<Result<_, _>>()?,
        paths: raw.paths.iter().map(|path| Prefix::new(path)).collect(),
        callers: raw.callers.clone(),
    })
}

impl Intention {
    fn speaks_of(&self, from: &ServiceName, method: &Method) -> bool {
        self.from
            .as_ref()
            .is_none_or(|services| services.contains(from))
            && (self.methods.is_empty() || self.methods.contains(method))
    }

    fn holds(&self, number: usize, held: Option<&Held>) -> bool {
        self.callers.is_none()
            || held
                .and_then(|held| held.get(number))
                .copied()
                .unwrap_or(false)
    }
}

#[cfg(test)]
mod tests;
