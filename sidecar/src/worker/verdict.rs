//! Reads an agent's answer, within bounds, and decides what it means for its step.

use super::wire::check_json;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use mesh_protocol::outcome::StepError;
use std::error::Error;
use std::time::Duration;

/// Longest pause that an agent can ask for with `Retry-After`; it keeps its step's place meanwhile.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How much of a refusal is read, in bytes: enough for the part that is shown.
const REFUSAL: usize = 4096;
/// How much of an agent's answer an error shows, in characters.
const SHOWN: usize = 200;

/// What one call means for its step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Completed(Bytes),
    Failed(StepError),
    Again {
        error: StepError,
        /// What the agent asked for.
        pause: Option<Duration>,
    },
}

/// An answer as far as it was read.
pub(super) struct Read {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Result<Bytes, Unread>,
}

/// Why an answer was not read to its end.
pub(super) enum Unread {
    /// More than so many bytes.
    TooLong(usize),
    /// The connection ended first.
    Cut(String),
}

impl Read {
    /// Reads `response`: at most `max_answer` bytes of a success, the start of anything else.
    pub(super) async fn from(response: Response<Incoming>, max_answer: usize) -> Self {
        let (head, body) = response.into_parts();
        let body = if head.status.is_success() {
            read(body, max_answer, Longer::Refuse).await
        } else {
            read(body, REFUSAL, Longer::KeepStart).await
        };
        Self {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body,
        }
    }
}

/// Decides what an answer means for its step; with one of `unrecoverable` it has failed.
pub(super) fn judge(read: Read, unrecoverable: &[u16]) -> Verdict {
    let Read {
        status,
        retry_after,
        body,
    } = read;
    if status.is_success() {
        let answer = |why: String| {
            Verdict::Failed(StepError::new(
                "agent_answer",
                format!("agent answered {status}, but {why}"),
            ))
        };
        return match body {
            Err(Unread::TooLong(max)) => answer(format!("with more than {max} bytes")),
            Err(Unread::Cut(why)) => answer(format!("the answer was cut off: {why}")),
            Ok(body) if body.is_empty() => answer("with no body, JSON is wanted".to_owned()),
            Ok(body) => match check_json(&body) {
                Ok(()) => Verdict::Completed(body),
                Err(why) => answer(format!("not with JSON ({why}): {}", shown(&body))),
            },
        };
    }
    let mut detail = format!("agent answered {status}");
    if let Ok(body) = &body
        && !body.is_empty()
    {
        detail = format!("{detail}: {}", shown(body));
    }
    let error = StepError::new("agent_status", detail);
    let passing = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
    let again = passing && !unrecoverable.contains(&status.as_u16());
    if again {
        Verdict::Again {
            error,
            pause: retry_after,
        }
    } else {
        Verdict::Failed(error)
    }
}

/// The pause that the agent asks for, in seconds; a date is passed over, since two clocks may differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// What to do with a body that is longer than is read.
#[derive(PartialEq, Eq)]
enum Longer {
    Refuse,
    KeepStart,
}

/// Reads at most `limit` bytes.
async fn read(mut body: Incoming, limit: usize, longer: Longer) -> Result<Bytes, Unread> {
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if told > limit && longer == Longer::Refuse {
        return Err(Unread::TooLong(limit));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let data = match body.frame().await {
            None => break,
            Some(Err(error)) => return Err(Unread::Cut(root(&error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers say nothing here.
                Err(_) => continue,
            },
        };
        if first.len().max(rest.len()) + data.len() > limit {
            if longer == Longer::KeepStart {
                let part = if rest.is_empty() {
                    first
                } else {
                    rest.freeze()
                };
                return Ok(if part.is_empty() {
                    data.slice(..limit.min(data.len()))
                } else {
                    part
                });
            }
            return Err(Unread::TooLong(limit));
        }
        // Most answers come in one piece, which is then passed on without a copy.
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(told.min(limit).max(first.len() + data.len()));
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

/// The first characters of `text`, without control characters.
fn shown(text: &[u8]) -> String {
    let start = text.get(..SHOWN * 4).unwrap_or(text);
    String::from_utf8_lossy(start)
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect()
}

/// What lies at the bottom of an error, which is what a person can act on.
pub(super) fn root(error: &dyn Error) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    bottom.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &[u8]) -> Verdict {
        judged_with(status, body, &[])
    }

    fn judged_with(status: u16, body: &[u8], unrecoverable: &[u16]) -> Verdict {
        let read = Read {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body: Ok(Bytes::copy_from_slice(body)),
        };
        judge(read, unrecoverable)
    }

    fn again(status: u16) -> bool {
        matches!(judged(status, b""), Verdict::Again { .. })
    }

    #[test]
    fn which_answers_are_asked_for_again() {
        assert!([408, 429, 500, 502, 503, 504].into_iter().all(again));
        assert!(![301, 400, 401, 404, 409, 422].into_iter().any(again));
        let chosen = judged_with(501, b"", &[501]);
        assert!(matches!(chosen, Verdict::Failed(_)), "{chosen:?}");
    }

    #[test]
    fn an_error_names_the_status_and_the_first_characters() {
        let body = format!("no\u{7}pe\n{}", "ü".repeat(1000));
        let Verdict::Failed(error) = judged(422, body.as_bytes()) else {
            panic!("not failed")
        };
        assert_eq!(error.code, "agent_status");
        assert!(
            error
                .detail
                .starts_with("agent answered 422 Unprocessable Entity: nopeü")
        );
        assert!(error.detail.chars().count() < 260);
        assert!(!error.detail.contains(char::is_control));
    }

    #[test]
    fn success_without_json_is_no_result() {
        for (status, body) in [(200, &b"<html>"[..]), (204, b""), (200, b"{\"a\":")] {
            let Verdict::Failed(error) = judged(status, body) else {
                panic!("not failed")
            };
            assert_eq!(error.code, "agent_answer");
        }
    }

    #[test]
    fn retry_after_is_bounded() {
        let header = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(header("2"), Some(Duration::from_secs(2)));
        assert_eq!(header("86400"), Some(MAX_RETRY_AFTER));
        assert_eq!(header("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(header("-1"), None);
    }
}
