//! A request as its bytes: nothing is tidied up on the way.

use crate::corpus::{Content, Line, Step};
use crate::text::Filling;

/// Name of the header by which the echo tells requests apart.
pub(crate) const ID: &str = "x-verdicts-id";
/// Name of the header with which the echo holds a request.
pub(crate) const HOLD: &str = "x-verdicts-hold";

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// By which the echo knows it.
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    /// In their order, `host` and framing excluded.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) chunks: Option<usize>,
    /// What its placeholders stand for.
    pub(crate) filling: Filling,
}

impl Request {
    /// The request of `step`, as it is sent now. `hold`: the upstream keeps it back.
    pub(crate) fn of(step: &Step, defaults: &Step, fresh: &str, hold: bool) -> Self {
        let mut filling = Filling::now(fresh);
        let (own, base) = (&step.request, &defaults.request);
        let lines = || base.headers.iter().chain(&own.headers);
        if !step.without_token {
            let base = defaults.token.clone().unwrap_or_default();
            let token = step
                .token
                .as_ref()
                .or(defaults.token.as_ref())
                .map(|t| t.over(&base));
            if let Some(token) = token {
                filling
                    .tokens
                    .insert(String::new(), token.sign(&filling.clone()));
            }
            for (name, token) in &step.tokens {
                let token = token.over(&base).sign(&filling);
                filling.tokens.insert(name.clone(), token);
            }
        }
        let path = own.path.as_ref().or(base.path.as_ref());
        let path = path.map_or("/", String::as_str);
        let id = crate::text::fresh();
        let mut headers = vec![(ID.to_owned(), id.clone().into_bytes())];
        if hold {
            headers.push((HOLD.to_owned(), b"1".to_vec()));
        }
        let names_token = lines().any(Line::names_token) || path.contains("${token");
        if let (Some(token), false) = (filling.tokens.get(""), names_token) {
            headers.push((
                "authorization".to_owned(),
                format!("Bearer {token}").into_bytes(),
            ));
        }
        for line in lines() {
            line.write(&mut filling, &mut headers);
        }
        let method = own.method.as_ref().or(base.method.as_ref());
        let body = own.body.as_ref().or(base.body.as_ref());
        Self {
            id,
            method: method.cloned().unwrap_or_else(|| "GET".to_owned()),
            path: filling.text(path),
            headers,
            body: body.map(|body| filling.bytes(body)).unwrap_or_default(),
            chunks: own.chunks.or(base.chunks),
            filling,
        }
    }

    /// The values of the header `name`, in lower case.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
            .collect()
    }

    /// The request as it goes over the wire.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.path);
        let mut bytes = head.into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(name.as_bytes());
            bytes.extend(b": ");
            bytes.extend(value);
            bytes.extend(b"\r\n");
        }
        if let Some(chunks) = self.chunks {
            bytes.extend(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
            let size = self.body.len().div_ceil(chunks.max(1)).max(1);
            for chunk in self.body.chunks(size) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            return bytes;
        }
        if !self.body.is_empty() || ["POST", "PUT", "PATCH"].contains(&self.method.as_str()) {
            bytes.extend(format!("content-length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"connection: close\r\n\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

impl Line {
    fn names_token(&self) -> bool {
        match self {
            Self::One(_, Content::Text(text)) => text.contains("${token"),
            Self::One(_, Content::Repeat { before, after, .. }) => {
                before.contains("${token") || after.contains("${token")
            }
            Self::One(name, Content::Base64 { .. }) => name.eq_ignore_ascii_case("authorization"),
            Self::Many { value, .. } => value.contains("${token"),
        }
    }

    fn write(&self, filling: &mut Filling, headers: &mut Vec<(String, Vec<u8>)>) {
        match self {
            Self::One(name, value) => headers.push((filling.text(name), filling.bytes(value))),
            Self::Many { many, name, value } => {
                for number in 0..*many {
                    filling.number = Some(number);
                    headers.push((filling.text(name), filling.text(value).into_bytes()));
                }
                filling.number = None;
            }
        }
    }
}
