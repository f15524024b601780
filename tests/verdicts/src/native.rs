//! The policies themselves, asked in the order in which a gateway asks its filters, and nothing around them
//! but a table in memory. A new filter is one line in [`load`].

use crate::chains::{Chain, MAX_BODY};
use crate::echo::Seen;
use crate::gateways::Answer;
use crate::request::Request;
use crate::wire::Response;
use mesh_policy::host::MemoryHost;
use mesh_policy::{Decision, Fetch, Fetched, Filter, Refusal, RequestHead, Timestamp, Unreadable};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

fn load(name: &str, config: &Value) -> Box<dyn Policy> {
    match name {
        "jwt_auth" => policy::<mesh_policy::jwt::Policy>(config),
        "rate_limit" => policy::<mesh_policy::rate_limit::Policy>(config),
        "task_admission" => policy::<mesh_policy::admission::Policy>(config),
        "agent_router" => policy::<mesh_policy::routing::Policy>(config),
        _ => panic!("no native policy is called {name}: name it in tests/verdicts/src/native.rs"),
    }
}

/// One chain and the state that its requests share.
pub(crate) struct Native {
    policies: Vec<Box<dyn Policy>>,
    host: MemoryHost,
}

/// A compiled policy, whichever.
trait Policy {
    fn begin(&self) -> Box<dyn Life>;
    fn tick(&self, host: &MemoryHost) -> Vec<Fetch>;
    fn fetched(&self, id: u32, fetched: Fetched, host: &MemoryHost);
}

/// One request's life in one policy.
trait Life {
    fn decide(&mut self, head: &dyn RequestHead, host: &MemoryHost) -> Decision;
    fn wants_body(&self) -> bool;
    fn decide_body(&mut self, body: Option<&[u8]>, host: &MemoryHost) -> Decision;
    fn response_headers(&self) -> Vec<(&'static str, String)>;
    fn end(&mut self, host: &MemoryHost);
}

struct Compiled<F>(Rc<Option<F>>);

struct Began<F: Filter> {
    filter: Rc<Option<F>>,
    kept: F::Request,
}

fn policy<F: Filter>(config: &Value) -> Box<dyn Policy> {
    let filter = mesh_policy::filter::load::<F>(config.to_string().as_bytes());
    Box::new(Compiled(Rc::new(filter.ok().map(|(filter, _)| filter))))
}

impl<F: Filter> Policy for Compiled<F> {
    fn begin(&self) -> Box<dyn Life> {
        Box::new(Began {
            filter: Rc::clone(&self.0),
            kept: F::Request::default(),
        })
    }

    fn tick(&self, host: &MemoryHost) -> Vec<Fetch> {
        let filter = self.0.as_ref().as_ref();
        filter.map_or_else(Vec::new, |filter| filter.tick(host))
    }

    fn fetched(&self, id: u32, fetched: Fetched, host: &MemoryHost) {
        if let Some(filter) = self.0.as_ref() {
            filter.fetched(id, fetched, host);
        }
    }
}

impl<F: Filter> Life for Began<F> {
    fn decide(&mut self, head: &dyn RequestHead, host: &MemoryHost) -> Decision {
        match self.filter.as_ref() {
            Some(filter) => filter.decide(&mut self.kept, head, host),
            None => Refusal::misconfigured().into(),
        }
    }

    fn wants_body(&self) -> bool {
        let filter = self.filter.as_ref().as_ref();
        filter.is_some_and(|filter| filter.wants_body(&self.kept))
    }

    fn decide_body(&mut self, body: Option<&[u8]>, host: &MemoryHost) -> Decision {
        match self.filter.as_ref() {
            Some(filter) => filter.decide_body(&mut self.kept, body, host),
            None => Refusal::misconfigured().into(),
        }
    }

    fn response_headers(&self) -> Vec<(&'static str, String)> {
        let filter = self.filter.as_ref().as_ref();
        filter.map_or_else(Vec::new, |filter| filter.response_headers(&self.kept))
    }

    fn end(&mut self, host: &MemoryHost) {
        if let Some(filter) = self.filter.as_ref() {
            filter.end(&mut self.kept, host);
        }
    }
}

/// A request that has been decided on and has not ended.
pub(crate) struct Inside {
    lives: Vec<Box<dyn Life>>,
    host: MemoryHost,
    pub(crate) answer: Answer,
}

impl Inside {
    pub(crate) fn end(mut self) -> Answer {
        for life in &mut self.lives {
            life.end(&self.host);
        }
        self.answer
    }
}

impl Native {
    /// With one tick, whose calls are made.
    pub(crate) async fn start(chain: &Chain) -> Self {
        let filters = chain.filters.iter();
        let native = Self {
            policies: filters.map(|(name, config)| load(name, config)).collect(),
            host: MemoryHost::at(Timestamp::from_millis(0)),
        };
        let host = native.host_now();
        for policy in &native.policies {
            for fetch in policy.tick(&host) {
                policy.fetched(fetch.id, fetched(&fetch).await, &host);
            }
        }
        native
    }

    fn host_now(&self) -> MemoryHost {
        let mut host = self.host.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = now.expect("a clock after 1970").as_nanos();
        host.set_now_ns(u64::try_from(now_ns).unwrap_or(u64::MAX));
        host
    }

    pub(crate) fn ask(&self, request: &Request) -> Inside {
        let host = self.host_now();
        let mut head = Head::of(request);
        let mut lives: Vec<_> = self.policies.iter().map(|policy| policy.begin()).collect();
        let mut refused = None;
        for (number, life) in lives.iter_mut().enumerate() {
            let decision = life.decide(&head, &host);
            if let Some(refusal) = head.apply(decision, &host) {
                refused = Some((number, refusal));
                break;
            }
        }
        if refused.is_none() {
            for (number, life) in lives.iter_mut().enumerate() {
                if !life.wants_body() {
                    continue;
                }
                // What a gateway cannot keep whole it does not show.
                let body = Some(head.body.as_slice()).filter(|body| body.len() <= MAX_BODY);
                let decision = life.decide_body(body, &host);
                if let Some(refusal) = head.apply(decision, &host) {
                    refused = Some((number, refusal));
                    break;
                }
            }
        }
        let mut response = Response {
            status: 200,
            ..Response::default()
        };
        let mut add = |name: &str, value: String| {
            let value = vec![value.into_bytes()];
            response.headers.insert(name.to_owned(), value);
        };
        if let Some((_, refusal)) = &refused {
            for (name, value) in &refusal.headers {
                add(name, value.clone());
            }
        }
        for (number, life) in lives.iter().enumerate().rev() {
            if refused.as_ref().is_some_and(|(by, _)| *by == number) {
                continue;
            }
            for (name, value) in life.response_headers() {
                add(name, value);
            }
        }
        let seen = match &refused {
            Some((_, refusal)) => {
                response.status = refusal.status;
                response.body = refusal.body.clone();
                Vec::new()
            }
            None => vec![head.seen(request)],
        };
        Inside {
            lives,
            host,
            answer: Answer { response, seen },
        }
    }
}

/// Makes a call that a filter asked for on its tick.
async fn fetched(fetch: &Fetch) -> Fetched {
    let Ok(address) = fetch.authority.parse() else {
        return Fetched::Failed;
    };
    let mut head = format!(
        "{} {} HTTP/1.1\r\nconnection: close\r\n",
        fetch.method, fetch.path
    );
    for (name, value) in &fetch.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", fetch.body.len()));
    let bytes = [head.as_bytes(), &fetch.body].concat();
    match crate::wire::send(address, &bytes).await {
        Ok(response) => Fetched::Answer {
            status: response.status,
            body: response.body,
        },
        Err(_) => Fetched::Failed,
    }
}

/// A request's head as filters change it.
struct Head {
    method: Vec<u8>,
    path: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Head {
    /// The head as Kong shows it: without names that have characters beyond letters, digits, `-` and `_`.
    fn of(request: &Request) -> Self {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let headers = request.headers.iter();
        Self {
            method: request.method.clone().into_bytes(),
            path: request.path.clone().into_bytes(),
            body: request.body.clone(),
            headers: headers
                .filter(|(name, _)| name.bytes().all(plain))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_ascii().to_vec()))
                .collect(),
        }
    }

    /// Does what was decided; a refusal is for the caller.
    fn apply(&mut self, decision: Decision, host: &MemoryHost) -> Option<Refusal> {
        match decision {
            Decision::Pass(pass) => {
                if let Some(body) = pass.set_body {
                    self.body = body;
                }
                for (name, value) in pass.set_headers {
                    self.headers.retain(|(own, _)| own != name);
                    self.headers.push((name.to_owned(), value.into_bytes()));
                }
                for (name, value) in pass.leave {
                    host.leave(name, value);
                }
                None
            }
            Decision::Refuse(refusal) => Some(refusal),
        }
    }

    /// What a gateway sends on: the path in its normal form.
    fn seen(self, request: &Request) -> Seen {
        let mut path = mesh_policy::path::plain(&self.path);
        if let Some(query) = self.path.iter().position(|b| *b == b'?') {
            path.extend(&self.path[query..]);
        }
        let path = String::from_utf8_lossy(&path);
        Seen::new(&request.method, &path, &self.headers, &self.body)
    }
}

impl RequestHead for Head {
    fn header(&self, name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
        let own = self.headers.iter().filter(|(own, _)| own == name);
        Ok(own.map(|(_, value)| value.clone()).collect())
    }

    fn method(&self) -> Result<Vec<u8>, Unreadable> {
        Ok(self.method.clone())
    }

    fn path(&self) -> Result<Vec<u8>, Unreadable> {
        Ok(self.path.clone())
    }

    fn peer(&self) -> Result<IpAddr, Unreadable> {
        Ok(Ipv4Addr::LOCALHOST.into())
    }
}
