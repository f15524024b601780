//! The load: cheap HTTP clients on keep-alive connections, the same for ours and for every peer.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What is sent, again and again.
#[derive(Debug, Clone)]
pub struct Call {
    /// To whom.
    pub address: SocketAddr,
    /// How.
    pub method: Method,
    /// Where.
    pub path: String,
    /// Beside `host` and `content-type`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON.
    pub body: Bytes,
    /// The answer is right if its status is 2xx and this text is in it.
    pub expect: &'static str,
}

impl Call {
    /// A GET of `path`; any 2xx is right.
    pub fn get(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            method: Method::GET,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            expect: "",
        }
    }

    /// A POST of `body` to `path`; right is a 2xx with `expect` in its body.
    pub fn post(
        address: SocketAddr,
        path: &str,
        body: &serde_json::Value,
        expect: &'static str,
    ) -> Self {
        Self {
            method: Method::POST,
            body: Bytes::from(body.to_string()),
            expect,
            ..Self::get(address, path)
        }
    }

    /// The same with one more header.
    ///
    /// # Errors
    /// When the value cannot be one.
    pub fn with_header(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.headers
            .push((HeaderName::from_static(name), HeaderValue::from_str(value)?));
        Ok(self)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.body.clone()))?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }

    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<()> {
        let wanted = self.expect.as_bytes();
        let found = wanted.is_empty() || body.windows(wanted.len()).any(|part| part == wanted);
        let right = status.is_success() && found;
        ensure!(
            right,
            "{} answered {status}: {}",
            self.path,
            String::from_utf8_lossy(body.get(..500.min(body.len())).unwrap_or_default())
        );
        Ok(())
    }
}

/// One keep-alive connection.
pub struct Line {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Line {
    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender or with the peer; what went wrong is heard at the next request.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// One request and its whole answer.
    ///
    /// # Errors
    /// When the answer is not the wanted one; with its beginning.
    pub async fn call(&mut self, call: &Call) -> Result<Bytes> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(call.request()?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        call.judge(status, &body)?;
        Ok(body)
    }
}

/// What a closed loop reached.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Requests per second.
    pub per_s: f64,
    /// Of each request, in milliseconds.
    pub millis: Vec<f64>,
}

/// A closed loop: each of `connections` sends its next request when its last one was answered.
///
/// What ends in the first `warm_up` is not counted.
///
/// # Errors
/// When one request fails.
pub async fn closed_loop(
    call: &Call,
    connections: usize,
    warm_up: Duration,
    duration: Duration,
) -> Result<Reached> {
    let begin = Instant::now() + warm_up;
    let end = begin + duration;
    let mut lines = JoinSet::new();
    for _ in 0..connections {
        let call = call.clone();
        lines.spawn(async move {
            let mut line = Line::open(call.address).await?;
            let mut millis = Vec::new();
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return Ok::<_, anyhow::Error>(millis);
                }
                line.call(&call).await?;
                let answered = Instant::now();
                if answered >= begin && answered < end {
                    millis.push((answered - sent).as_secs_f64() * 1000.0);
                }
            }
        });
    }
    let mut millis = Vec::new();
    while let Some(line) = lines.join_next().await {
        millis.extend(line??);
    }
    ensure!(!millis.is_empty(), "no request ended in {duration:?}");
    #[allow(clippy::cast_precision_loss)] // counts stay far below 2^52
    let per_s = millis.len() as f64 / duration.as_secs_f64();
    Ok(Reached { per_s, millis })
}

/// Makes `count` calls over `connections`, each line the next when its last one was answered, and hands back the
/// answers.
///
/// # Errors
/// When one request fails.
pub async fn times(call: &Call, connections: usize, count: usize) -> Result<Vec<Bytes>> {
    let mut lines = JoinSet::new();
    for place in 0..connections {
        let call = call.clone();
        let share = count / connections + usize::from(place < count % connections);
        lines.spawn(async move {
            let mut line = Line::open(call.address).await?;
            let mut answers = Vec::with_capacity(share);
            for _ in 0..share {
                answers.push(line.call(&call).await?);
            }
            Ok::<_, anyhow::Error>(answers)
        });
    }
    let mut answers = Vec::with_capacity(count);
    while let Some(line) = lines.join_next().await {
        answers.extend(line??);
    }
    Ok(answers)
}

/// An open loop: a request every `1/per_s` seconds, whether or not earlier ones were answered.
///
/// Answers the milliseconds of each request, from when it was to be sent: a request that waits for the client or
/// for a connection waits within its time. It takes an idle connection, or a new one.
///
/// # Errors
/// When one request fails.
pub async fn open_loop(call: &Call, per_s: u32, duration: Duration) -> Result<Vec<f64>> {
    let mut due = pace(per_s, duration);
    let idle: Rc<RefCell<Vec<Line>>> = Rc::default();
    let local = tokio::task::LocalSet::new();
    let all = local.run_until(async {
        let mut requests = JoinSet::new();
        while let Some(due) = due.recv().await {
            let (call, idle) = (call.clone(), Rc::clone(&idle));
            requests.spawn_local(async move {
                let line = idle.borrow_mut().pop();
                let mut line = match line {
                    Some(line) => line,
                    None => Line::open(call.address).await?,
                };
                line.call(&call).await?;
                let millis = due.elapsed().as_secs_f64() * 1000.0;
                idle.borrow_mut().push(line);
                Ok::<_, anyhow::Error>(millis)
            });
        }
        let mut millis = Vec::new();
        while let Some(request) = requests.join_next().await {
            millis.push(request??);
        }
        Ok::<_, anyhow::Error>(millis)
    });
    all.await.context("open loop")
}

/// Says when a request is due, `per_s` times a second. By a thread, whose sleep is exact to less than 0.1 ms: the
/// runtime's timer has a grain of a millisecond.
fn pace(per_s: u32, duration: Duration) -> mpsc::Receiver<Instant> {
    // A second's worth: a client that is further behind measures itself.
    let (sender, receiver) = mpsc::channel(usize::try_from(per_s).unwrap_or(1).max(1));
    std::thread::spawn(move || {
        let begin = Instant::now();
        let gap = Duration::from_secs(1) / per_s;
        let dues = (1..).map(|number| gap * number);
        for due in dues.take_while(|due| *due <= duration) {
            let due = begin + due;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Nobody listens any more when a request failed.
            if sender.blocking_send(due).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Repeats `call` until it succeeds: the mesh behind it is ready.
///
/// # Errors
/// The last failure, when `limit` has passed.
pub async fn until_right(call: &Call, limit: Duration) -> Result<Bytes> {
    let until = Instant::now() + limit;
    loop {
        let tried = async { Line::open(call.address).await?.call(call).await };
        match tried.await {
            Ok(body) => return Ok(body),
            Err(error) if Instant::now() > until => {
                bail!("not ready after {limit:?}: {error:#}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_due_at_an_even_pace() {
        let mut due = pace(1_000, Duration::from_millis(20));
        let mut dues = Vec::new();
        while let Some(due) = due.recv().await {
            assert!(due <= Instant::now(), "said before it was due");
            dues.push(due);
        }
        assert_eq!(dues.len(), 20);
        let gap = Duration::from_millis(1);
        assert!(dues.is_sorted_by(|one, next| *next - *one == gap));
    }
}
