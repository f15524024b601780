//! Consuming: a channel per consumer, opened again whenever it ends.
//!
//! A broker tells a consumer that its queue is gone, once: where that is lost, in a crash of its node or on the way, the
//! consumer would wait for ever. So each looks now and then whether it is still one.
//!
//! And it tells so only where nobody has declared the queue anew meanwhile, be it some milliseconds after. Else RabbitMQ
//! takes the queue for one that moved, attaches the consumers of the old one to the new one by itself, and loses what it
//! hands to them. (On classic queues `x-cancel-on-ha-failover` would forbid it, quorum queues refuse that.) So whoever finds
//! a queue gone waits for [`super::HEARD`] before it declares it.

use super::acks::{Acks, Tag};
use super::connection::{self, Link, Session};
use super::fault;
use super::held::Held;
use super::properties::{self, short};
use super::{HEARD, PATIENCE, declare};
use crate::{BusError, Deliveries, Delivery, Depth, Message};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, Channel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Between two looks whether the broker still knows of the consumer; each costs some declarations that find everything in
/// its place.
const LOOK: Duration = Duration::from_secs(20);
/// A look that finds nobody is believed when another one does, so much later: the first may have come in the middle of
/// something.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Begins to consume, waiting for the broker as long as a publish would.
pub(super) async fn consume(
    link: &Arc<Link>,
    tasks: &TaskTracker,
    queue: &str,
    prefetch: u16,
) -> Result<Deliveries, BusError> {
    let deadline = Instant::now() + PATIENCE;
    let keeper = Keeper {
        link: link.clone(),
        queue: queue.to_owned(),
        prefetch,
        stop: link.closed.child_token(),
    };
    let mut pauses = connection::pauses();
    let first = loop {
        let session = link.session(deadline).await?;
        match tokio::time::timeout_at(deadline, keeper.open(&session)).await {
            Ok(Ok(opened)) => break opened,
            Ok(Err(BusError::Unavailable { .. })) => session.pause(&mut pauses).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(link.why_down()),
        }
    };
    // One: there is never more than one channel to consume from.
    let (hand_over, intakes) = mpsc::channel(1);
    let feed = Feed {
        link: link.clone(),
        queue: queue.to_owned(),
        intakes,
        intake: None,
        stop: keeper.stop.clone(),
    };
    let stop = keeper.stop.clone();
    let span = tracing::info_span!("consumer", queue);
    tasks.spawn(keeper.run(first, hand_over).instrument(span));
    let stream = futures_util::stream::unfold(feed, |mut feed| async move {
        feed.next().await.map(|delivery| (delivery, feed))
    });
    Ok(Deliveries {
        stream: stream.boxed(),
        stop,
    })
}

/// A consumer on its channel.
#[derive(Clone)]
struct Opened {
    channel: Channel,
    consumer: lapin::Consumer,
}

/// What the keeper hands to the stream for each channel.
struct Intake {
    consumer: lapin::Consumer,
    /// Takes deliveries that were dropped unsettled. Every delivery holds a clone: when the last is
    /// gone, the channel can be closed.
    dropped: mpsc::Sender<(Tag, Acker)>,
    acks: Arc<Acks>,
    /// Whether the stream waits for a delivery.
    listens: Arc<AtomicBool>,
    ended: CancellationToken,
}

/// Keeps one consumer going; the task behind the stream.
struct Keeper {
    link: Arc<Link>,
    queue: String,
    prefetch: u16,
    stop: CancellationToken,
}

impl Keeper {
    async fn open(&self, session: &Session) -> Result<Opened, BusError> {
        let failed = |error: lapin::Error| fault::of("consuming", &error);
        let channel = session.connection.create_channel().await.map_err(failed)?;
        channel
            .basic_qos(self.prefetch, BasicQosOptions::default())
            .await
            .map_err(failed)?;
        let opened = channel
            .basic_consume(
                short(self.queue.as_str())?,
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await;
        match opened {
            Ok(consumer) => Ok(Opened { channel, consumer }),
            Err(error) if fault::is_absence(&error) => Err(BusError::NoQueue {
                queue: self.queue.clone(),
            }),
            Err(error) => Err(failed(error)),
        }
    }

    async fn run(self, first: Opened, hand_over: mpsc::Sender<Intake>) {
        let mut opened = first;
        loop {
            // As many as can be unsettled, so a send never fails for lack of room.
            let (dropped, mut returns) = mpsc::channel(usize::from(self.prefetch));
            let ended = CancellationToken::new();
            let acks = Arc::new(Acks::default());
            let listens = Arc::new(AtomicBool::new(false));
            let intake = Intake {
                consumer: opened.consumer.clone(),
                dropped,
                acks: acks.clone(),
                listens: listens.clone(),
                ended: ended.clone(),
            };
            if hand_over.send(intake).await.is_err() {
                self.stop.cancel();
            }
            let deaf = self.deaf(&acks, &listens);
            tokio::pin!(deaf);
            loop {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => {
                        return self.finish(opened, hand_over, returns).await;
                    }
                    () = ended.cancelled() => break,
                    () = &mut deaf => {
                        tracing::warn!("the broker knows nothing of this consumer");
                        ended.cancel();
                        self.abandon(&opened).await;
                        break;
                    }
                    Some((tag, acker)) = returns.recv() => {
                        give_back_failed(&acker).await;
                        acks.closed(tag);
                    }
                }
            }
            tracing::warn!("consumer ended, consuming again");
            match self.stop.run_until_cancelled(self.reopen()).await {
                Some(Some(again)) => opened = again,
                _ => return,
            }
        }
    }

    /// Returns when the broker has forgotten this consumer: nobody consumes the queue, or something lies in it that does
    /// not come though nothing is in this one's way. Also sees to it that what was declared around the queue is there, for
    /// those who publish.
    async fn deaf(&self, acks: &Acks, listens: &AtomicBool) {
        let (mut doubtful, mut before) = (false, None);
        loop {
            tokio::time::sleep(if doubtful { LOOK_AGAIN } else { LOOK }).await;
            // A connection that is lost ends the consumer by itself.
            let Some(session) = self.link.current_session() else {
                doubtful = false;
                continue;
            };
            let deadline = Instant::now() + PATIENCE;
            let looked = tokio::time::timeout_at(deadline, self.look(&session, deadline)).await;
            let rests = acks.at_rest().filter(|_| listens.load(Ordering::Relaxed));
            let nothing_came = rests.is_some() && rests == before;
            before = rests;
            let forgotten = match looked {
                Ok(Ok(depth)) => depth.consumers == 0 || (depth.messages > 0 && nothing_came),
                Ok(Err(BusError::NoQueue { .. })) => true,
                _ => false,
            };
            if doubtful && forgotten {
                return;
            }
            doubtful = forgotten;
        }
    }

    async fn look(&self, session: &Session, deadline: Instant) -> Result<Depth, BusError> {
        let depth = declare::depth(&self.link, &self.queue, deadline).await?;
        for topology in self.link.around(&self.queue) {
            if let Err(error) = declare::on(session, &topology).await {
                tracing::debug!(%error, "what is around the queue cannot be declared");
            }
        }
        Ok(depth)
    }

    /// Closes the channel of a consumer that the broker has forgotten.
    async fn abandon(&self, opened: &Opened) {
        let close = opened.channel.close(200, "forgotten".into());
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, close).await {
            tracing::debug!(%error, "channel closed before");
        }
    }

    /// Opens the consumer again, however long it takes; `None` once the bus is closed.
    async fn reopen(&self) -> Option<Opened> {
        let mut pauses = connection::pauses();
        loop {
            let session = self.link.next_session().await.ok()?;
            // A broker that is coming back may leave a question unanswered.
            let opened = tokio::time::timeout(PATIENCE, self.open(&session)).await;
            match opened.unwrap_or_else(|_| Err(self.link.why_down())) {
                Ok(opened) => return Some(opened),
                Err(error) => {
                    tracing::warn!(%error, "cannot consume");
                    if matches!(error, BusError::NoQueue { .. }) {
                        tokio::time::sleep(HEARD).await;
                        self.link.restore(&session).await;
                    }
                }
            }
            tokio::time::sleep(pauses.next()?).await;
        }
    }

    /// Cancels the consumer, gives back what nobody took, and closes the channel once all that was
    /// handed out is settled.
    async fn finish(
        &self,
        opened: Opened,
        hand_over: mpsc::Sender<Intake>,
        mut returns: mpsc::Receiver<(Tag, Acker)>,
    ) {
        drop(hand_over);
        let Opened {
            channel,
            mut consumer,
        } = opened;
        let leave = async {
            let tag = consumer.tag();
            if channel
                .basic_cancel(tag, BasicCancelOptions::default())
                .await
                .is_err()
            {
                // The channel is gone, and with it everything unsettled is back.
                return;
            }
            while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
                give_back(&delivery.acker).await;
            }
            while let Some((_, acker)) = returns.recv().await {
                give_back_failed(&acker).await;
            }
            if let Err(error) = channel.close(200, "settled".into()).await {
                tracing::debug!(%error, "channel closed before");
            }
        };
        self.link.closed.run_until_cancelled(leave).await;
    }
}

/// Gives back what was dropped unsettled: whoever held it failed. From RabbitMQ 4.3 on a quorum queue counts that, and
/// does not count a nack, by which it would come again for ever.
async fn give_back_failed(acker: &Acker) {
    if let Err(error) = acker.reject(BasicRejectOptions { requeue: true }).await {
        tracing::debug!(%error, "went back with its channel");
    }
}

/// Gives back what nobody looked at.
async fn give_back(acker: &Acker) {
    let options = BasicNackOptions {
        requeue: true,
        ..BasicNackOptions::default()
    };
    if let Err(error) = acker.nack(options).await {
        tracing::debug!(%error, "went back with its channel");
    }
}

/// The stream behind [`Deliveries`].
struct Feed {
    link: Arc<Link>,
    queue: String,
    intakes: mpsc::Receiver<Intake>,
    intake: Option<Intake>,
    stop: CancellationToken,
}

impl Feed {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            let Some(intake) = &mut self.intake else {
                let next = self.stop.run_until_cancelled(self.intakes.recv()).await??;
                self.intake = Some(next);
                continue;
            };
            intake.listens.store(true, Ordering::Relaxed);
            tokio::select! {
                biased;
                item = intake.consumer.next() => match item {
                    Some(Ok(delivery)) => {
                        intake.listens.store(false, Ordering::Relaxed);
                        intake.acks.opened(delivery.delivery_tag);
                        let (acks, dropped) = (intake.acks.clone(), intake.dropped.clone());
                        return Some(self.hand_out(delivery, acks, dropped));
                    }
                    Some(Err(_)) | None => {
                        intake.ended.cancel();
                        self.intake = None;
                    }
                },
                () = intake.ended.cancelled() => self.intake = None,
                () = self.stop.cancelled() => return None,
            }
        }
    }

    fn hand_out(
        &self,
        delivery: lapin::message::Delivery,
        acks: Arc<Acks>,
        dropped: mpsc::Sender<(Tag, Acker)>,
    ) -> Delivery {
        Delivery {
            message: Message {
                exchange: delivery.exchange.into(),
                routing_key: delivery.routing_key.into(),
                body: Bytes::from(delivery.data),
                mandatory: false,
                properties: properties::read(&delivery.properties),
            },
            queue: self.queue.clone(),
            redelivered: delivery.redelivered,
            crashes: properties::crashes(&delivery.properties, delivery.redelivered),
            settle: Box::new(Held {
                link: self.link.clone(),
                tag: delivery.delivery_tag,
                acker: delivery.acker,
                properties: delivery.properties,
                acks,
                dropped,
                settled: AtomicBool::new(false),
            }),
        }
    }
}
