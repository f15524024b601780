//! Bytes by hand, where a client or a program is to do what no library does.

use mesh_tests::within;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Writes a text whose line ends are written as `\n`.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    let bytes = text.replace('\n', "\r\n");
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads until `end` has come; everything that came.
pub async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut part = [0; 4096];
        loop {
            if String::from_utf8_lossy(&all).contains(end) {
                return;
            }
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "ended after {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&part[..read]);
        }
    };
    within(end, reading).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until the other side closes; everything that came.
pub async fn to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut part = [0; 4096];
        // A reset is an end, too.
        while let Ok(read @ 1..) = stream.read(&mut part).await {
            all.extend_from_slice(&part[..read]);
        }
    };
    within("the end of the connection", reading).await;
    String::from_utf8_lossy(&all).into_owned()
}
