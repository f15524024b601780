//! From the gateway to a service.

use super::{Way, tunnel};
use crate::answer::Problem;
use crate::body::Body;
use crate::hygiene::{self, Forwarded};
use crate::local::Local;
use crate::path;
use crate::upstream::{Outgoing, Payload};
use http::header::HeaderValue;
use http::{Response, StatusCode};
use std::time::Instant;

impl Local {
    /// Sends the request to its service; the answer is as the client gets it, before filters see it.
    pub(super) async fn forward(
        &self,
        mut parts: http::request::Parts,
        payload: Payload,
        way: &Way<'_>,
    ) -> Result<Response<Body>, Problem> {
        let subject = way.subject;
        let plan = &way.upstream.plan;
        let strip = way.destination.strip_path;
        let mut target = path::join(&plan.path, &subject.path, way.prefix, strip);
        let sent = parts.uri.path().to_owned();
        if let Some(query) = parts.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        let target = target
            .try_into()
            .map_err(|_| Problem::BadRequest("the path cannot be passed on"))?;
        // Filters may have added what belongs to one hop or frames a body.
        hygiene::strip_hop_by_hop(&mut parts.headers);
        hygiene::strip_framing(&mut parts.headers);
        let host = if way.destination.preserve_host {
            let host = HeaderValue::from_str(&subject.authority);
            Some(host.map_err(|_| Problem::BadRequest("the host cannot be passed on"))?)
        } else {
            None
        };
        let forwarded = Forwarded {
            client: way.client,
            local_port: self.process.local_port,
            host: &subject.host,
            path: &sent,
            prefix: Some(way.prefix).filter(|p| strip && !p.is_empty() && *p != "/"),
        };
        hygiene::add_forwarded(&mut parts.headers, &forwarded);
        if way.upgrades {
            tunnel::set(&mut parts.headers);
        }
        if plan.h2 {
            // The one word of this header that HTTP/2 knows, and that services of gRPC ask for.
            parts
                .headers
                .insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
        let outgoing = Outgoing {
            parts,
            target,
            host,
            body: payload,
            parent: way.notes.place.borrow().clone(),
        };
        let start = way.notes.wanted.then(Instant::now);
        let answer = way.upstream.send(&plan.pool, outgoing).await;
        way.notes.upstream.set(start.map(|s| s.elapsed()));
        let mut response = answer?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !way.upgrades {
                return Err(Problem::BadGateway);
            }
            let end = hyper::upgrade::on(&mut response);
            way.notes.tunnel.replace(Some(end));
        }
        Ok(super::exchange::cleaned(response, way))
    }
}
