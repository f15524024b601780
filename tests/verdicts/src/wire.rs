//! One request over one connection: written as bytes, since a client library would refuse to write most
//! of what is worth sending.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer; far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most headers of a response.
const MAX_HEADERS: usize = 256;

/// A response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Values by name in lower case.
    pub(crate) headers: BTreeMap<String, Vec<Vec<u8>>>,
    pub(crate) body: Vec<u8>,
}

/// Sends `bytes` and reads until the other side closes.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> Result<Response, String> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let (mut reader, mut writer) = stream.into_split();
        let mut all = Vec::new();
        // The other side may answer and close before it has read everything.
        let (_, read) = tokio::join!(writer.write_all(bytes), reader.read_to_end(&mut all));
        match read {
            Err(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(all)) => read(&all).ok_or_else(|| {
            let text = String::from_utf8_lossy(&all).into_owned();
            format!("no response: {text:?}")
        }),
        Ok(Err(error)) => Err(format!("no response: {error}")),
        Err(_) => Err("no response in time".to_owned()),
    }
}

fn read(bytes: &[u8]) -> Option<Response> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(end) = head.parse(bytes).ok()? else {
        return None;
    };
    let status = head.code?;
    let mut response = Response {
        status,
        ..Response::default()
    };
    for line in head.headers.iter() {
        let values = response.headers.entry(line.name.to_ascii_lowercase());
        values.or_default().push(line.value.to_vec());
    }
    let rest = bytes.get(end..)?;
    if (100..200).contains(&status) {
        return read(rest);
    }
    let chunked = response.headers.get("transfer-encoding");
    response.body = match chunked {
        Some(_) => dechunked(rest)?,
        None => rest.to_vec(),
    };
    Some(response)
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((begin, size)) = httparse::parse_chunk_size(rest).ok()?
        else {
            return None;
        };
        if size == 0 {
            return Some(body);
        }
        let end = begin + usize::try_from(size).ok()?;
        body.extend(rest.get(begin..end)?);
        rest = rest.get(end + 2..)?;
    }
}
