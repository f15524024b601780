//! One request over one connection: written as bytes, since a client library would refuse to write most
//! of what is worth sending.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer; far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(20);
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

/// Sends `bytes` and reads one whole response.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> Result<Response, String> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let (mut reader, mut writer) = stream.into_split();
        // The other side may answer and close before it has read everything; it may also not close at
        // once when it has answered.
        let writing = async {
            let _ = writer.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            read = read_whole(&mut reader) => read,
            () = writing => unreachable!("it never ends"),
        }
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok((Some(response), _))) => Ok(response),
        Ok(Ok((None, all))) => {
            let text = String::from_utf8_lossy(&all).into_owned();
            Err(format!("no response: {text:?}"))
        }
        Ok(Err(error)) => Err(format!("no response: {error}")),
        Err(_) => Err("no response in time".to_owned()),
    }
}

/// One response, or what came in its place.
async fn read_whole(
    reader: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<(Option<Response>, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let end = match reader.read_buf(&mut all).await {
            Ok(size) => size == 0,
            Err(error) if all.is_empty() => return Err(error),
            Err(_) => true,
        };
        let response = read(&all, end);
        if end || response.is_some() {
            return Ok((response, all));
        }
    }
}

/// The response in `bytes`, if it is whole; `end`: nothing more comes.
fn read(bytes: &[u8], end: bool) -> Option<Response> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else {
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
    let rest = bytes.get(length..)?;
    if (100..200).contains(&status) {
        return read(rest, end);
    }
    let first = |name: &str| response.headers.get(name).and_then(|values| values.first());
    let said = first("content-length").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
    response.body = match (first("transfer-encoding"), said) {
        (Some(_), _) => dechunked(rest)?,
        (None, Some(length)) => rest.get(..length)?.to_vec(),
        (None, None) if end => rest.to_vec(),
        (None, None) => return None,
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
