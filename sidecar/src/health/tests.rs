//! A program of every kind of health, asked in all three ways.

use super::{Probe, ProgramHealth, Verdict};
use crate::config::{self, App, HealthCheck, Place};
use crate::registry::Health;
use mesh_tests::{server::directory, wait_for, within};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

#[test]
fn the_first_answer_counts_and_later_ones_in_a_row() {
    for (healthy_after, unhealthy_after, answers, expected) in [
        (1, 2, "+--+-+--", "++-++++-"),
        (1, 2, "-+-", "-++"),
        (3, 1, "-++-+++", "------+"),
        (2, 3, "+--+---+-++", "++++++----+"),
    ] {
        let mut verdict = Verdict::new(healthy_after, unhealthy_after);
        let said: String = answers
            .chars()
            .map(|answer| {
                if verdict.take(answer == '+') {
                    '+'
                } else {
                    '-'
                }
            })
            .collect();
        assert_eq!(said, expected, "{answers}");
    }
}

/// A program that answers every connection with the same bytes, and closes it or not.
struct Program {
    place: Place,
    answer: Arc<Mutex<(String, bool)>>,
    asked: Arc<Mutex<Vec<String>>>,
    _stop: DropGuard,
}

impl Program {
    async fn start(answer: &str, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = place(listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new((answer.to_owned(), closes)));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let stop = CancellationToken::new();
        let (says, heard) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            let connections = TaskTracker::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, closes) = says.lock().unwrap().clone();
                let heard = Arc::clone(&heard);
                connections.spawn(async move {
                    let mut request = vec![0; 4096];
                    let read = stream.read(&mut request).await.unwrap();
                    let request = String::from_utf8_lossy(&request[..read]).into_owned();
                    heard.lock().unwrap().push(request);
                    while stream.write_all(answer.as_bytes()).await.is_ok() && !closes {
                        // A program without an answer holds the connection and says nothing.
                        if answer.is_empty() && stream.read(&mut [0]).await.is_ok() {
                            return;
                        }
                    }
                });
            }
        }));
        Self {
            place,
            answer,
            asked,
            _stop: stop.drop_guard(),
        }
    }

    fn answers(&self, answer: &str) {
        *self.answer.lock().unwrap() = (answer.to_owned(), true);
    }
}

fn place(address: std::net::SocketAddr) -> Place {
    let app = App {
        url: format!("http://{address}/base"),
        health: config::Health::default(),
    };
    Place {
        process_uri: app.url.parse().unwrap(),
        address,
        base_path: "/base".to_owned(),
    }
}

fn config(check: HealthCheck) -> config::Health {
    config::Health {
        check,
        interval_ms: 10,
        timeout_ms: 300,
        healthy_after: 1,
        unhealthy_after: 2,
    }
}

fn http() -> HealthCheck {
    HealthCheck::Http {
        path: "/health?deep=1".to_owned(),
    }
}

fn run(config: &config::Health, place: &Place) -> (ProgramHealth, DropGuard) {
    let probe = Probe::new(config, place);
    let (health, stop) = (probe.health(), CancellationToken::new());
    assert_eq!(health.reason().as_deref(), Some("agent was not asked yet"));
    tokio::spawn(probe.run(stop.clone()));
    (health, stop.drop_guard())
}

async fn is_well(health: &ProgramHealth) {
    let mut watch = health.watch();
    let well = watch.wait_for(|health| *health == Health::Passing);
    within("the program to be well", well).await.unwrap();
    assert_eq!(health.reason(), None);
}

/// Waits until it is unwell for a reason with these words.
async fn is_unwell(health: &ProgramHealth, words: &str) {
    let mut watch = health.watch();
    let unwell = watch.wait_for(|health| match health {
        Health::Passing => false,
        Health::Critical(why) => why.contains(words),
    });
    within(&format!("the program to be unwell: {words}"), unwell)
        .await
        .unwrap();
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn a_program_is_as_well_as_it_says_over_http() {
    let program = Program::start(OK, true).await;
    let (health, _stop) = run(&config(http()), &program.place);
    is_well(&health).await;
    let asked = program.asked.lock().unwrap()[0].clone();
    assert!(
        asked.starts_with("GET /base/health?deep=1 HTTP/1.1\r\n"),
        "{asked}"
    );
    let host = format!("host: {}\r\n", program.place.address);
    assert!(asked.contains(&host), "{asked}");
    for (answer, words) in [
        ("HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\nno", "with 503"),
        ("HTTP/1.1 302 X\r\nlocation: /\r\n\r\n", "with 302"),
        ("SSH-2.0-x\r\n", "does not answer /base/health"),
        ("", "does not answer /base/health"),
    ] {
        program.answers(answer);
        is_unwell(&health, words).await;
        program.answers(OK);
        is_well(&health).await;
    }
}

#[tokio::test]
async fn a_program_that_has_no_page_of_its_health_is_well_when_it_answers() {
    const NONE: &str = "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n";
    let program = Program::start(NONE, true).await;
    let (health, _stop) = run(&config(HealthCheck::Usual), &program.place);
    is_well(&health).await;
    assert!(program.asked.lock().unwrap()[0].starts_with("GET /base/health HTTP/1.1\r\n"));
    program.answers("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
    is_unwell(&health, "with 500").await;
    // A page that was named has to be there.
    program.answers(NONE);
    let (named, _stop) = run(&config(http()), &program.place);
    is_unwell(&named, "with 404").await;
}

#[tokio::test]
async fn a_program_that_hangs_is_not_well() {
    let program = Program::start("", false).await;
    let (health, _stop) = run(&config(http()), &program.place);
    is_unwell(&health, "within 300 ms").await;
}

#[tokio::test]
async fn an_answer_without_end_is_an_answer() {
    let program = Program::start("HTTP/1.1 200 OK\r\n\r\nwell, well, ", false).await;
    let (health, _stop) = run(&config(http()), &program.place);
    is_well(&health).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_cannot_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = place(listener.local_addr().unwrap());
    let (health, _stop) = run(&config(HealthCheck::Tcp), &place);
    is_well(&health).await;
    drop(listener);
    is_unwell(&health, "cannot be reached").await;
    let (health, _stop) = run(&config(http()), &place);
    is_unwell(&health, "cannot be reached").await;
}

#[tokio::test]
async fn who_has_a_reason_has_it_asked_at_once() {
    let program = Program::start("HTTP/1.1 500 X\r\n\r\n", true).await;
    let seldom = config::Health {
        interval_ms: 86_400_000,
        ..config(http())
    };
    let (health, _stop) = run(&seldom, &program.place);
    is_unwell(&health, "with 500").await;
    program.answers(OK);
    health.look();
    is_well(&health).await;
}

fn shell(script: &str) -> HealthCheck {
    HealthCheck::Command {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
    }
}

/// Where nothing is, so that only the command can tell.
fn nowhere() -> Place {
    place("127.0.0.1:1".parse().unwrap())
}

#[tokio::test]
async fn a_command_tells_by_its_end() {
    let (health, _stop) = run(&config(shell("yes | head -c 1000000")), &nowhere());
    is_well(&health).await;
    for (script, words) in [
        (
            "echo no disk >&2; echo x; exit 3",
            "exit status: 3: no disk",
        ),
        ("echo said; exit 1", "exit status: 1: said"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let (health, _stop) = run(&config(shell(script)), &nowhere());
        is_unwell(&health, words).await;
    }
    let missing = HealthCheck::Command {
        command: vec!["/nowhere/at/all".to_owned()],
    };
    let (health, _stop) = run(&config(missing), &nowhere());
    is_unwell(&health, "cannot be started").await;
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_what_it_started() {
    let home = directory("health");
    let file = home.path().join("pid");
    let script = format!(
        "sleep 600 & echo $! > {}.new; mv {0}.new {0}; wait",
        file.display()
    );
    let (health, stop) = run(&config(shell(&script)), &nowhere());
    is_unwell(&health, "does not end within 300 ms").await;
    // And one that is under way when the sidecar leaves.
    drop(stop);
    let pid = || std::fs::read_to_string(&file).unwrap().trim().to_owned();
    wait_for("the commands to be gone", || async {
        !Path::new(&format!("/proc/{}", pid())).exists()
            || std::fs::read_to_string(format!("/proc/{}/stat", pid()))
                .is_ok_and(|s| s.contains(") Z"))
    })
    .await;
}

#[tokio::test]
async fn a_command_that_leaves_somebody_behind_has_ended() {
    let (health, _stop) = run(&config(shell("sleep 5 & exit 0")), &nowhere());
    is_well(&health).await;
}
