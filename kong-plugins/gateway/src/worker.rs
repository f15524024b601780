//! Workers: threads that accept, answer and drain.
//!
//! All workers accept from one socket, so a connection goes to a worker that is free. Within a worker
//! everything is local to its thread; what it spawns is a task per connection (`tasks`, waited for while
//! draining), one that takes new configurations (`takes`), and the tasks of each configuration (ticks, and
//! on the first worker questions about health), which end when it is replaced.

use crate::config::RunError;
use crate::connection::connection;
use crate::filters::Set;
use crate::generation::{Generation, Process};
use crate::local::{Local, Worker};
use crate::reload::Next;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

/// Stack of a worker, in bytes: a filter may use 512 KiB of it.
const STACK: usize = 4 * 1024 * 1024;
/// Pause after a failed accept: the process has no descriptors left, and asking again at once helps
/// nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for what filters ask for before a new configuration is taken.
const WARM: Duration = Duration::from_secs(5);

/// Runs the workers until `shutdown`, or until one ends.
pub(crate) async fn run(
    listener: std::net::TcpListener,
    process: &Arc<Process>,
    generation: &Arc<Generation>,
    workers: Vec<(Set, mpsc::Receiver<Next>)>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    // A child: when one worker fails, the others end, and the rest of the process does not.
    let shutdown = shutdown.child_token();
    let _end_all = shutdown.clone().drop_guard();
    let mut ends = JoinSet::new();
    for (number, (set, next)) in workers.into_iter().enumerate() {
        let listener = listener.try_clone().map_err(RunError::Worker)?;
        let (process, generation) = (Arc::clone(process), Arc::clone(generation));
        let shutdown = shutdown.clone();
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("gateway-{number}"))
            .stack_size(STACK)
            .spawn(move || {
                let start = move |first| {
                    Local::new(&process, generation, Rc::new(RefCell::new(set)), first)
                };
                let result = work(listener, number == 0, start, next, shutdown);
                // Nobody listens any more when the whole run was dropped.
                let _ = ended.send(result);
            })
            .map_err(RunError::Worker)?;
        ends.spawn(async move { (number, end.await) });
    }
    drop(listener);
    let mut outcome = Ok(());
    while let Some(end) = ends.join_next().await {
        let failed = match end {
            Ok((_, Ok(Ok(())))) if shutdown.is_cancelled() => None,
            Ok((_, Ok(Err(error)))) => Some(RunError::Worker(error)),
            Ok((number, _)) => Some(RunError::Ended(number)),
            Err(_) => Some(RunError::Ended(0)),
        };
        if let Some(error) = failed {
            shutdown.cancel();
            outcome = Err(error);
        }
    }
    outcome
}

fn work(
    listener: std::net::TcpListener,
    first: bool,
    start: impl FnOnce(bool) -> Local,
    mut next: mpsc::Receiver<Next>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::from_std(listener)?;
        let worker = Rc::new(Worker::new(start(first)));
        let taker = Rc::clone(&worker);
        let takes = tokio::task::spawn_local(async move {
            while let Some(next) = next.recv().await {
                let process = Arc::clone(&taker.local().process);
                let set = Rc::new(RefCell::new(next.set));
                warm(&set).await;
                taker.replace(Local::new(&process, next.generation, set, first));
                // Whoever asked may have gone; the configuration has been taken all the same.
                let _ = next.taken.send(());
            }
        });
        serve(&listener, &worker, &shutdown).await;
        takes.abort();
        worker.local().retire();
        Ok(())
    })
}

/// Runs the filters' ticks and makes the calls that come of them; all end with it.
pub(crate) async fn tick(set: Rc<RefCell<Set>>) {
    let mut calls = JoinSet::new();
    loop {
        while calls.try_join_next().is_some() {}
        // Nothing is awaited while the set is borrowed, so that it is always free here.
        let (next, asked) = match set.try_borrow_mut() {
            Ok(mut set) => (set.tick(Instant::now()), set.take_calls()),
            Err(_) => (Instant::now() + ACCEPT_PAUSE, Vec::new()),
        };
        for asked in asked {
            let set = Rc::clone(&set);
            calls.spawn_local(async move {
                let answer = crate::calls::make(&asked.call).await;
                if let Ok(mut set) = set.try_borrow_mut() {
                    set.answered(&asked, answer);
                }
            });
        }
        tokio::time::sleep_until(next.into()).await;
    }
}

/// Lets filters ask what they need to know before requests meet them: keys that are fetched, loads and
/// quotas. What does not come in time comes later, as at a start.
async fn warm(set: &Rc<RefCell<Set>>) {
    let now = Instant::now();
    let begin = |set: &mut Set| {
        set.hurry(now);
        set.tick(now);
    };
    if let Ok(mut set) = set.try_borrow_mut() {
        begin(&mut set);
    }
    let learn = async {
        let mut calls = JoinSet::new();
        loop {
            let asked = set.try_borrow_mut().map(|mut set| set.take_calls());
            for asked in asked.unwrap_or_default() {
                calls.spawn_local(async move {
                    let answer = crate::calls::make(&asked.call).await;
                    (asked, answer)
                });
            }
            match calls.join_next().await {
                None => return,
                Some(Ok((asked, answer))) => {
                    if let Ok(mut set) = set.try_borrow_mut() {
                        set.answered(&asked, answer);
                    }
                }
                Some(Err(_)) => {}
            }
        }
    };
    if tokio::time::timeout(WARM, learn).await.is_err() {
        tracing::warn!("filters did not learn in time what they asked for");
    }
}

async fn serve(listener: &TcpListener, worker: &Rc<Worker>, shutdown: &CancellationToken) {
    let mut tasks = JoinSet::new();
    let connections = Arc::clone(&worker.local().process.connections);
    loop {
        // Connections that have ended are taken out as others come.
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(listener, &connections) => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                tasks.spawn_local(connection(
                    Rc::clone(worker),
                    stream,
                    permit,
                    shutdown.clone(),
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let drained = async { while tasks.join_next().await.is_some() {} };
    let longest = worker.local().generation.config.drain;
    if tokio::time::timeout(longest, drained).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections are cut off");
        tasks.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}
