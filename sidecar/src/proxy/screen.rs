//! Refuses what two readers of HTTP/1.1 could read differently, before hyper reads it.
//!
//! hyper frames a message by one reading and is consistent in it, but it is lenient where RFC 9112 lets it be: a
//! length beside `chunked` is dropped, a second equal length too, a line may end without CR. Whoever stands before
//! or behind may read the same bytes otherwise, and that is how a request is smuggled. So the bytes of a client's
//! connection pass here first: heads line by line, bodies by their length alone. Where a rule is broken, the
//! offending byte becomes a NUL, which no head may hold: hyper answers 400 and closes. The screen only ever refuses;
//! what it lets pass is still read by hyper as strictly as before.
//!
//! | refused here | why |
//! |---|---|
//! | `Content-Length` twice, or beside `Transfer-Encoding` | RFC 9112, section 6.3: one frames the body, and which one differs |
//! | `Content-Length` that is not digits alone | `+5`, `5,5`, `0x5` |
//! | `Transfer-Encoding` twice, or other than `chunked` | nothing else is decoded here |
//! | a line that ends without CR, or begins with a space | RFC 9112, sections 2.2 and 5.2 |

#[cfg(test)]
mod tests;

use super::client::Client;
use memchr::memchr;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of an incomplete line that are kept: enough for each header that counts here with any value it may have.
const KEPT: usize = 96;
/// Most digits of a length: 19 are more than any body has, and fit a `u64`.
const MAX_DIGITS: usize = 19;
/// Most digits of a chunk's size, so that it fits a `u64`.
const MAX_CHUNK_DIGITS: u8 = 15;

/// What comes after a broken rule: the end of any head, and of no chunk.
const SPOILT_END: &[u8] = b"\0\r\n\r\n";

/// Follows the messages of one connection.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    state: State,
    /// The beginning of a line that is not complete, and how long it is.
    kept: Vec<u8>,
    kept_of: usize,
    /// The last byte of it.
    last: u8,
    head: Head,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between messages, or within a head.
    #[default]
    Head,
    /// Bytes left of a body with a length.
    Content(u64),
    /// In the line that says how long a chunk is.
    Size { size: u64, digits: u8, done: bool },
    /// Bytes left of a chunk, its line end included.
    Chunk(u64),
    /// In the lines after the last chunk.
    Trailers,
    /// After a request that may have become something else than HTTP.
    Opaque,
    /// A rule was broken.
    Spoilt,
    /// That was made plain.
    Ended,
}

/// What a head has said so far.
#[derive(Debug, Default, Clone, Copy)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
}

/// A rule was broken.
struct Broken;

impl Screen {
    /// Whether part of a head has come, and not all of it.
    fn within_head(&self) -> bool {
        self.state == State::Head && (self.head.begun || self.kept_of > 0)
    }

    /// Looks at bytes that came. Where a rule is broken, the rest becomes NUL.
    pub(crate) fn look(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(taken) => at += taken,
                Err((taken, Broken)) => {
                    self.state = State::Spoilt;
                    if let Some(rest) = bytes.get_mut(at + taken..) {
                        rest.fill(0);
                    }
                    return;
                }
            }
        }
    }

    /// Takes some of `bytes`, which are not empty: how many, or where a rule is broken.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, (usize, Broken)> {
        let len = bytes.len();
        match &mut self.state {
            State::Opaque | State::Spoilt | State::Ended => Ok(len),
            State::Content(left) | State::Chunk(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(len);
                *left -= taken as u64;
                if *left == 0 {
                    self.state = match self.state {
                        State::Chunk(_) => State::size(),
                        _ => State::Head,
                    };
                }
                Ok(taken)
            }
            State::Size { .. } => self.size(bytes),
            State::Head | State::Trailers => {
                let Some(end) = memchr(b'\n', bytes) else {
                    self.keep(bytes);
                    return Ok(len);
                };
                let (line, _) = bytes.split_at(end);
                let checked = if self.kept_of == 0 {
                    self.line(line, line.len())
                } else {
                    self.keep(line);
                    let kept = std::mem::take(&mut self.kept);
                    let of = std::mem::take(&mut self.kept_of);
                    // What was cut off ends as the line does.
                    let checked = if self.last == b'\r' {
                        self.line(&kept, of)
                    } else {
                        Err(Broken)
                    };
                    self.kept = kept;
                    self.kept.clear();
                    checked
                };
                match checked {
                    Ok(()) => Ok(end + 1),
                    Err(broken) => Err((end, broken)),
                }
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let room = KEPT.saturating_sub(self.kept.len()).min(part.len());
        self.kept
            .extend_from_slice(part.get(..room).unwrap_or(part));
        self.kept_of += part.len();
        if let Some(last) = part.last() {
            self.last = *last;
        }
    }

    /// A whole line without its LF, or the beginning of one that is `of` bytes long.
    fn line(&mut self, line: &[u8], of: usize) -> Result<(), Broken> {
        let whole = line.len() == of;
        let text = match line.split_last() {
            Some((b'\r', text)) if whole => text,
            _ if whole => return Err(Broken),
            _ => line,
        };
        let trailers = self.state == State::Trailers;
        let Some(first) = text.first() else {
            if trailers {
                self.state = State::Head;
            } else if self.head.begun {
                self.end_of_head();
            }
            // Else an empty line before a request, which counts for nothing (RFC 9112, section 2.2).
            return Ok(());
        };
        if !trailers && !self.head.begun {
            self.head = Head {
                begun: true,
                ..Head::default()
            };
            return Ok(());
        }
        if matches!(first, b' ' | b'\t') {
            return Err(Broken);
        }
        if trailers || !matches!(first | 0x20, b'c' | b't' | b'u') {
            return Ok(());
        }
        let value = |name: &str| {
            let (head, rest) = text.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            head.eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.trim_ascii())
        };
        if let Some(length) = value("content-length") {
            if !whole || self.head.chunked || self.head.length.is_some() {
                return Err(Broken);
            }
            self.head.length = Some(number(length).ok_or(Broken)?);
        } else if let Some(coding) = value("transfer-encoding") {
            let plain = coding.eq_ignore_ascii_case(b"chunked");
            if !whole || !plain || self.head.chunked || self.head.length.is_some() {
                return Err(Broken);
            }
            self.head.chunked = true;
        } else if let Some(protocols) = value("upgrade") {
            if !whole {
                return Err(Broken);
            }
            let mut named = protocols.split(|b| *b == b',');
            self.head.websocket |= named.any(|p| p.trim_ascii().eq_ignore_ascii_case(b"websocket"));
        }
        Ok(())
    }

    fn end_of_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.state = match head.length {
            _ if head.chunked => State::size(),
            Some(length @ 1..) => State::Content(length),
            // Whoever asks for a WebSocket and gets none is shown out, so nothing else comes of this.
            _ if head.websocket => State::Opaque,
            _ => State::Head,
        };
    }

    fn size(&mut self, bytes: &[u8]) -> Result<usize, (usize, Broken)> {
        let State::Size { size, digits, done } = &mut self.state else {
            return Ok(0);
        };
        for (at, byte) in bytes.iter().copied().enumerate() {
            let digit = char::from(byte).to_digit(16).filter(|_| !*done);
            match digit {
                Some(digit) => {
                    *digits += 1;
                    if *digits > MAX_CHUNK_DIGITS {
                        return Err((at, Broken));
                    }
                    *size = *size << 4 | u64::from(digit);
                }
                None if *digits == 0 => return Err((at, Broken)),
                None if byte == b'\n' => {
                    if self.last != b'\r' {
                        return Err((at, Broken));
                    }
                    self.state = match *size {
                        0 => State::Trailers,
                        size => State::Chunk(size + 2),
                    };
                    return Ok(at + 1);
                }
                // What follows the size is hyper's to judge.
                None => *done = true,
            }
            self.last = byte;
        }
        Ok(bytes.len())
    }
}

impl State {
    fn size() -> Self {
        Self::Size {
            size: 0,
            digits: 0,
            done: false,
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MAX_DIGITS || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A client's connection of HTTP/1.1, screened.
#[derive(Debug)]
pub(crate) struct Screened<S> {
    inner: S,
    screen: Screen,
    client: Arc<Client>,
}

impl<S> Screened<S> {
    /// `client` learns whether part of a head has come.
    pub(crate) fn new(inner: S, client: Arc<Client>) -> Self {
        Self {
            inner,
            screen: Screen::default(),
            client,
        }
    }

    /// The connection below.
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Screened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.screen.state {
            State::Spoilt => {
                // hyper looks at a head that came in part only when its end is there.
                this.screen.state = State::Ended;
                let end = SPOILT_END.get(..buffer.remaining()).unwrap_or(SPOILT_END);
                buffer.put_slice(end);
                return Poll::Ready(Ok(()));
            }
            State::Ended => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            _ => {}
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        if let Some(new) = buffer.filled_mut().get_mut(before..) {
            this.screen.look(new);
        }
        this.client.within_head(this.screen.within_head());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Screened<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
