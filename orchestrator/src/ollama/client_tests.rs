//! One call after another, against the double.

use super::*;
use crate::double::{Answer, Ollama};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Semaphore;

const LONG: Duration = Duration::from_secs(60);

/// The lines of an answer until its end or first fault.
async fn lines(answer: Answer, until: Duration, idle: Duration) -> (Vec<Bytes>, Option<Fault>) {
    let server = Ollama::start(vec![answer]).await.unwrap();
    let client = Client::new(&config::Ollama::new(server.url(), "m")).unwrap();
    let question = json!({"model": "m", "prompt": "x"}).to_string();
    let response = client.ask("/api/generate", Some(question.into()), LONG);
    let response = response.await.unwrap();
    let mut lines = Lines::new(response, Instant::now() + until, idle);
    let mut read = Vec::new();
    loop {
        match lines.next().await {
            Ok(Some(line)) => read.push(line),
            Ok(None) => return (read, None),
            Err(fault) => return (read, Some(fault)),
        }
    }
}

#[tokio::test]
async fn a_stream_is_read_line_by_line_and_ends_with_what_it_cost() {
    let (read, fault) = lines(Answer::Text("one two".into()), LONG, LONG).await;
    assert_eq!((read.len(), fault), (3, None));
    assert!(!Part::read(&read[0]).unwrap().is_done());
    let last = Part::read(&read[2]).unwrap();
    assert!(last.is_done());
    let usage = last.usage();
    assert_eq!((usage.input, usage.output), (11, 18));
    assert_eq!(usage.eval_ns, Some(52_479_709));
    // Empty lines are none, and the last one needs no end.
    let raw = Answer::Raw(200, "\n  \r\n{\"a\":1}\r\n\n{\"b\":2}".to_owned());
    let (read, fault) = lines(raw, LONG, LONG).await;
    assert_eq!(
        (read, fault),
        (vec!["{\"a\":1}".into(), "{\"b\":2}".into()], None)
    );
}

#[tokio::test]
async fn a_stream_that_stops_breaks_or_never_ends_is_given_up() {
    let one_word = || {
        let words = ["one ", "two"].map(str::to_owned);
        Answer::Gated(Arc::new(Semaphore::new(1)), words.to_vec())
    };
    let brief = Duration::from_millis(50);
    let (read, fault) = lines(one_word(), LONG, brief).await;
    assert_eq!((read.len(), fault), (1, Some(Fault::Silent(brief))));
    let (_, fault) = lines(one_word(), brief, LONG).await;
    assert_eq!(fault, Some(Fault::Late));
    let (read, fault) = lines(Answer::CutOff, LONG, LONG).await;
    assert_eq!((read.len(), fault), (1, Some(Fault::Broken)));
    let (read, fault) = lines(Answer::Endless, LONG, LONG).await;
    assert_eq!((read.len(), fault), (0, Some(Fault::TooLarge(MAX_LINE))));
}

#[test]
fn what_is_there_in_another_form_counts_as_absent() {
    let part = Part::read(br#"{"eval_count": "many", "done": "yes", "error": {"a": 1}}"#).unwrap();
    assert_eq!(part.usage(), Usage::default());
    assert!(!part.is_done() && part.error().is_none());
    assert!(Part::read(b"[1]").is_none() && Part::read(b"").is_none());
    let error = Part::read("{\"error\": \"a\\nb\"}".as_bytes()).unwrap();
    assert_eq!(error.error().as_deref(), Some("a b"));
}

#[tokio::test]
async fn faults_tell_the_server_from_the_question() {
    let server = Ollama::start(vec![Answer::Raw(503, "{\"error\": \"busy\"}".into())])
        .await
        .unwrap();
    let client = Client::new(&config::Ollama::new(server.url(), "m")).unwrap();
    let question = |body: Value| {
        client.whole(
            "/api/generate",
            Some(body.to_string().into()),
            MAX_ANSWER,
            LONG,
        )
    };
    let busy = question(json!({"model": "m", "prompt": "x"}))
        .await
        .unwrap_err();
    assert_eq!(busy.to_string(), "answered 503: busy");
    assert!(busy.is_servers());
    let wrong = question(json!({})).await.unwrap_err();
    assert_eq!(wrong.to_string(), "answered 400: model is required");
    assert!(!wrong.is_servers());
    drop(server);
    assert!(Client::new(&config::Ollama::new("ftp://127.0.0.1", "m")).is_err());
}
