//! A service, checked.

use crate::balance::{self, Pool};
use mesh_declarative::{Service, Target};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Most connections that one request may try, as in Kong.
const MAX_RETRIES: u32 = 32_767;

/// A service, checked: addresses and no name.
#[derive(Debug, Clone)]
pub(crate) struct ServicePlan {
    pub name: Arc<str>,
    pub pool: Arc<Pool>,
    /// The service's own path.
    pub path: String,
    /// Whether it speaks HTTP/2.
    pub h2: bool,
    pub retries: usize,
    pub connect_timeout: Duration,
    pub write_timeout: Duration,
    pub read_timeout: Duration,
}

impl ServicePlan {
    /// Checks a service; what is wrong with it goes into `problems`.
    pub(crate) fn read(
        service: &Service,
        pools: &[(String, Arc<Pool>)],
        problems: &mut Vec<String>,
    ) -> Option<Self> {
        let target = match service.target() {
            Ok(target) => target,
            Err(error) => {
                problems.push(error.to_string());
                return None;
            }
        };
        let name = &service.name;
        let mut wrong = |text: String| problems.push(format!("service {name}: {text}"));
        if target.tls {
            wrong("https to a service is not supported".to_owned());
        }
        if service.tls_verify.is_some() || service.tls_verify_depth.is_some() {
            wrong("tls_verify and tls_verify_depth are not supported".to_owned());
        }
        if service.retries > MAX_RETRIES {
            wrong(format!("retries is more than {MAX_RETRIES}"));
        }
        for (field, value) in [
            ("connect_timeout", service.connect_timeout),
            ("write_timeout", service.write_timeout),
            ("read_timeout", service.read_timeout),
        ] {
            if value == 0 {
                wrong(format!("{field} is 0"));
            }
        }
        let pool = match pool(name, &target, pools) {
            Ok(pool) => pool,
            Err(problem) => {
                wrong(problem);
                return None;
            }
        };
        let milliseconds = |ms: u32| Duration::from_millis(ms.into());
        Some(Self {
            name: name.as_str().into(),
            pool,
            path: target.path,
            h2: target.h2,
            retries: usize::try_from(service.retries).unwrap_or(usize::MAX),
            connect_timeout: milliseconds(service.connect_timeout),
            write_timeout: milliseconds(service.write_timeout),
            read_timeout: milliseconds(service.read_timeout),
        })
    }
}

fn pool(name: &str, target: &Target, pools: &[(String, Arc<Pool>)]) -> Result<Arc<Pool>, String> {
    if let Some((_, pool)) = pools.iter().find(|(name, _)| *name == target.host) {
        return Ok(Arc::clone(pool));
    }
    // Nothing here asks a name server: a name that could change hands is no address.
    let address = balance::address(&target.host).ok_or_else(|| {
        let host = &target.host;
        format!("host {host} is no address and no upstream")
    })?;
    if target.port == 0 {
        return Err("port 0 is no port".to_owned());
    }
    let host = match target.port {
        80 => target.host.clone(),
        port => format!("{}:{port}", target.host),
    };
    Pool::one(name, SocketAddr::new(address, target.port), &host).map(Arc::new)
}
