//! One agent's connection, from its welcome to its end.
//!
//! Everything happens in one task, one after the other: so what an agent sends is stored in its order, and is
//! acknowledged in its order. A receiver that does not read holds up nobody but itself: writing has a time limit.

use super::end::{End, broken, code, lasting};
use super::frame::{self, Fault, Said};
use super::pace::Pace;
use super::{Place, Settings, Sockets};
use crate::coordination::hub::{Cursor, Hold, HubError, Letter, PAGE, Posted, Receivers, Taken};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use mesh_protocol::{AgentId, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

/// Time for one message to be taken by the kernel; a receiver that is slower is cut off, and loses nothing.
const WRITE: Duration = Duration::from_secs(10);
/// Time for the other side to say that it closes too.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who says that a letter has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledge {
    /// The agent, by `ack`. It has everything up to this place already.
    Agent(Option<Cursor>),
    /// Its WebSocket library, by the pong to a ping that was sent after the letter: for the plan's clients, which
    /// know nothing of acknowledging.
    Pong,
}

/// Serves one connection until it ends.
pub async fn run(
    socket: WebSocket,
    sockets: Arc<Sockets>,
    hold: Hold,
    acknowledge: Acknowledge,
    place: Place,
) {
    let tracked = sockets.tasks.token();
    sockets.metrics.connections.inc();
    let (number, bell) = sockets.enter(&hold.agent);
    let (sink, stream) = socket.split();
    let (by_pong, last) = match acknowledge {
        Acknowledge::Pong => (true, None),
        Acknowledge::Agent(last) => (false, last),
    };
    let presence = (!by_pong).then(|| {
        let mut presence = sockets.presence.subscribe();
        presence.mark_changed();
        presence
    });
    let mut session = Session {
        pace: Pace::new(sockets.settings.messages_per_s),
        sockets: Arc::clone(&sockets),
        hold,
        sink,
        mailbox: String::new(),
        delivered: 0,
        acknowledged: 0,
        by_pong,
        told: Presence::default(),
    };
    let mut stream = stream;
    let end = match sockets.hub.take(&session.hold, last.as_ref()).await {
        Ok(taken) => {
            let served = session.serve(&mut stream, &bell, presence, taken);
            let Err(end) = served.await;
            end
        }
        Err(error) => {
            tracing::warn!(%error, "an agent cannot be connected");
            End::Close(code::TRY_LATER, "unavailable")
        }
    };
    sockets.exit(&session.hold.agent, number);
    // Before the farewell: others need not wait for it.
    if let Err(error) = sockets.hub.leave(&session.hold).await {
        tracing::debug!(%error, "a presence is not given up, and runs out by itself");
    }
    let (End::Close(_, reason) | End::Gone(reason)) = end;
    tracing::debug!(agent = %session.hold.agent, reason, "an agent's connection ended");
    sockets.metrics.closed(reason);
    sockets.metrics.connections.dec();
    if let End::Close(code, reason) = end {
        session.farewell(&mut stream, code, reason).await;
    }
    drop((place, tracked));
}

struct Session {
    sockets: Arc<Sockets>,
    hold: Hold,
    sink: SplitSink<WebSocket, Message>,
    mailbox: String,
    /// The last letter that was written.
    delivered: u64,
    /// The last one that has come.
    acknowledged: u64,
    by_pong: bool,
    /// Who is there, as it was told.
    told: Presence,
    pace: Pace,
}

type Presence = Arc<BTreeSet<AgentId>>;

/// Never: a session ends by its [`End`].
enum Never {}

impl Session {
    fn settings(&self) -> &Settings {
        &self.sockets.settings
    }

    async fn serve(
        &mut self,
        stream: &mut SplitStream<WebSocket>,
        bell: &Notify,
        mut presence: Option<watch::Receiver<Presence>>,
        taken: Taken,
    ) -> Result<Never, End> {
        let settings = self.settings().clone();
        self.mailbox.clone_from(&taken.cursor.mailbox);
        self.delivered = taken.cursor.letter;
        self.acknowledged = taken.cursor.letter;
        if !self.by_pong {
            let (agent, most) = (&self.hold.agent, settings.max_message_bytes);
            self.text(frame::welcome(agent, &taken, settings.ping_ms, most))
                .await?;
        }
        self.deliver().await?;
        let stopping = self.sockets.stopping.clone();
        let mut pings = tokio::time::interval(settings.ping());
        let mut renewals = tokio::time::interval(settings.renewal());
        for ticks in [&mut pings, &mut renewals] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Err(End::Close(code::RESTART, "stopping")),
                frame = stream.next() => {
                    heard = Instant::now();
                    self.hear(frame).await?;
                    self.pace.wait().await;
                }
                () = bell.notified() => self.deliver().await?,
                now = next(&mut presence) => self.tell(now).await?,
                _ = pings.tick() => {
                    // What lies in the kernel has been heard, and is read next: `select!` takes turns.
                    if heard.elapsed() > settings.silence() {
                        return Err(End::Gone("silent"));
                    }
                    self.ping().await?;
                }
                _ = renewals.tick() => {
                    let renewed = self.sockets.hub.renew(&self.hold).await;
                    lasting(renewed)?;
                    self.deliver().await?;
                }
            }
        }
    }

    /// Tells who came and who went, since this was told last: at first, who is there.
    async fn tell(&mut self, now: Presence) -> Result<(), End> {
        let before = std::mem::replace(&mut self.told, Arc::clone(&now));
        let came = now.difference(&before).map(|agent| (agent, true));
        let went = before.difference(&now).map(|agent| (agent, false));
        for (agent, there) in came.chain(went) {
            if *agent != self.hold.agent {
                self.text(frame::presence(agent, there)).await?;
            }
        }
        Ok(())
    }

    /// Writes what is in the mailbox and was not written yet.
    async fn deliver(&mut self) -> Result<(), End> {
        let begun = self.delivered;
        loop {
            let read = self.sockets.hub.read(&self.hold, self.delivered).await;
            let Some(page) = lasting(read)? else { break };
            let whole = page.len() == PAGE;
            for (letter, body) in page {
                let cursor = Cursor {
                    mailbox: self.mailbox.clone(),
                    letter,
                };
                self.text(frame::letter(&cursor, &body)).await?;
                self.delivered = letter;
                self.sockets.metrics.delivered.inc();
            }
            if !whole {
                break;
            }
        }
        if self.by_pong && self.delivered > begun {
            self.ping().await?;
        }
        Ok(())
    }

    /// Hears one frame.
    async fn hear(&mut self, frame: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        match frame {
            None => Err(End::Gone("cut_off")),
            Some(Err(error)) => Err(broken(error)),
            Some(Ok(Message::Close(_))) => Err(End::Gone("by_agent")),
            Some(Ok(Message::Binary(_))) => Err(End::Close(code::UNSUPPORTED, "binary")),
            Some(Ok(Message::Ping(_))) => Ok(()),
            Some(Ok(Message::Pong(told))) => {
                let told = <[u8; 8]>::try_from(&told[..]).map(u64::from_be_bytes);
                match told {
                    Ok(upto) if self.by_pong => self.acknowledged(upto.min(self.delivered)).await,
                    _ => Ok(()),
                }
            }
            Some(Ok(Message::Text(text))) => {
                if text.len() > self.settings().max_message_bytes {
                    return Err(End::Close(code::TOO_LARGE, "too_large"));
                }
                self.said(&text).await
            }
        }
    }

    async fn said(&mut self, text: &str) -> Result<(), End> {
        let now = Timestamp::now();
        match frame::read(text, &self.hold.agent, now) {
            Ok(Said::Letter(letter)) => self.post(&letter).await,
            Ok(Said::Nothing { id }) => {
                self.sockets.metrics.message("to_nobody", "acknowledged");
                self.text(frame::ack(&id, Some(0), now)).await
            }
            Ok(Said::Ping) => self.text(r#"{"type":"pong"}"#.to_owned()).await,
            Ok(Said::Ack(cursor))
                if cursor.mailbox == self.mailbox && cursor.letter <= self.delivered =>
            {
                self.acknowledged(cursor.letter).await
            }
            Ok(Said::Ack(_)) => {
                let detail = "cursor must be that of a message that came over this connection";
                self.refuse("ack", &Fault::new("bad_cursor", detail, None))
                    .await
            }
            Err(fault) => self.refuse("unread", &fault).await,
        }
    }

    async fn acknowledged(&mut self, upto: u64) -> Result<(), End> {
        if upto <= self.acknowledged {
            return Ok(());
        }
        let left = self.sockets.hub.acknowledge(&self.hold, upto).await;
        // Where the store is away they stay, and go with a later acknowledgement.
        if lasting(left)?.is_some() {
            self.acknowledged = upto;
            self.sockets.metrics.message("ack", "stored");
        }
        Ok(())
    }

    async fn post(&mut self, letter: &Letter) -> Result<(), End> {
        let kind = match letter.to {
            Receivers::One(_) => "direct",
            Receivers::Others => "broadcast",
        };
        let posted = match self.sockets.hub.post(&self.hold, letter).await {
            Ok(posted) => posted,
            Err(HubError::Unavailable { detail }) => {
                tracing::warn!(detail, "an agent's message cannot be kept");
                let detail = "it cannot be kept at the moment: send it again, with the same id";
                let fault = Fault::new("unavailable", detail, Some(&letter.id));
                return self.refuse(kind, &fault).await;
            }
            Err(error) => return lasting::<()>(Err(error)).map(|_| ()),
        };
        let fault = match posted {
            Posted::Stored { receivers, deepest } => {
                #[allow(clippy::cast_precision_loss)]
                self.sockets.metrics.depth.observe(deepest as f64);
                self.sockets.metrics.message(kind, "stored");
                let told = frame::ack(&letter.id, Some(receivers), Timestamp::now());
                return self.text(told).await;
            }
            Posted::Repeated => {
                self.sockets.metrics.message(kind, "repeated");
                let told = frame::ack(&letter.id, None, Timestamp::now());
                return self.text(told).await;
            }
            Posted::Full(agents) => {
                let names: Vec<&str> = agents.iter().map(|agent| agent.as_str()).collect();
                let detail = format!(
                    "nobody got it, since these have a full mailbox: {}; send it again later",
                    names.join(", ")
                );
                Fault::new("mailbox_full", detail, Some(&letter.id))
            }
            Posted::NoMailbox => self.nowhere(letter).await,
        };
        self.refuse(kind, &fault).await
    }

    /// Why there is no mailbox.
    async fn nowhere(&self, letter: &Letter) -> Fault {
        let Receivers::One(agent) = &letter.to else {
            return Fault::new("no_mailbox", "nobody is there", Some(&letter.id));
        };
        match self.sockets.knows(agent).await {
            Ok(false) => {
                let detail = format!("there is no agent {agent}: see GET /agents");
                Fault::new("unknown_agent", detail, Some(&letter.id))
            }
            Ok(true) | Err(_) => {
                let detail =
                    format!("{agent} was not connected of late, and nothing is kept for it");
                Fault::new("no_mailbox", detail, Some(&letter.id))
            }
        }
    }

    async fn refuse(&mut self, kind: &str, fault: &Fault) -> Result<(), End> {
        self.sockets.metrics.message(kind, fault.code);
        self.text(fault.text()).await
    }

    async fn ping(&mut self) -> Result<(), End> {
        let told = self.delivered.to_be_bytes().to_vec();
        self.send(Message::Ping(told.into())).await
    }

    async fn text(&mut self, text: String) -> Result<(), End> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(WRITE, self.sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone("cut_off")),
            Err(_) => Err(End::Gone("slow")),
        }
    }

    /// Says why, and hears the other side out: a connection that is closed over unread bytes is reset, and the
    /// reason with it.
    async fn farewell(&mut self, stream: &mut SplitStream<WebSocket>, code: u16, reason: &str) {
        let reason = Utf8Bytes::from(reason);
        let close = Message::Close(Some(CloseFrame { code, reason }));
        let said = async {
            if self.sink.send(close).await.is_ok() {
                while let Some(Ok(_)) = stream.next().await {}
            }
        };
        // It has heard, or it never will.
        let _heard = tokio::time::timeout(FAREWELL, said).await;
    }
}

/// Who is there now, once that has changed; never, for who does not ask.
async fn next(presence: &mut Option<watch::Receiver<Presence>>) -> Presence {
    if let Some(presence) = presence
        && presence.changed().await.is_ok()
    {
        return Arc::clone(&presence.borrow_and_update());
    }
    std::future::pending().await
}
