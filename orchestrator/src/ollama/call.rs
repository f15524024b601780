//! One call to the model that has its turn, and the books that are kept of it.

use super::breaker::Permit;
use super::client::{Client, Fault, Part, Usage};
use super::turn::Turn;
use super::{Consumer, Models};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of a question that are a token: some four of English text, and of the JSON around it.
const BYTES_PER_TOKEN: u64 = 4;

/// A call that has its turn. Dropped without [`Call::ended`], it was given up.
#[derive(Debug)]
pub struct Call {
    models: Arc<Models>,
    consumer: Consumer,
    model: String,
    permit: Permit,
    ended: bool,
    /// Tokens of the question, as far as that can be told: how many are known comes with the end of the answer.
    asked: u64,
    /// Tokens that came so far, as far as that can be told: lines of a stream.
    pub seen: u64,
    _turn: Turn,
}

impl Call {
    pub(super) fn new(
        models: &Arc<Models>,
        consumer: Consumer,
        model: &str,
        turn: Turn,
        permit: Permit,
    ) -> Self {
        Self {
            models: Arc::clone(models),
            consumer,
            model: model.to_owned(),
            permit,
            ended: false,
            asked: 0,
            seen: 0,
            _turn: turn,
        }
    }

    /// The client to ask with.
    pub fn client(&self) -> &Client {
        &self.models.client
    }

    /// Says what is asked, so that whoever gives the call up pays for it: the model has read it.
    pub fn asks(&mut self, question: &Bytes) {
        let bytes = u64::try_from(question.len()).unwrap_or(u64::MAX);
        self.asked = bytes / BYTES_PER_TOKEN;
    }

    /// Asks `path` and reads the answer whole; the call is over then. `limit` is the time for it, and a server
    /// that does not keep to it is only at fault where it had at least `enough`.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn whole(
        mut self,
        path: &str,
        body: Bytes,
        most: usize,
        limit: Duration,
        enough: Duration,
    ) -> Result<Bytes, Fault> {
        self.asks(&body);
        let answer = self.client().whole(path, Some(body), most, limit).await;
        let outcome = match &answer {
            Ok(answer) => Ok(Part::read(answer).map_or(Usage::default(), |p| p.usage())),
            Err(fault) => Err(fault),
        };
        self.ended(outcome, limit >= enough).await;
        answer
    }

    /// Says what came of the call, and frees its turn. `blame` is whether a fault of the server counts as one.
    pub async fn ended(mut self, outcome: Result<Usage, &Fault>, blame: bool) {
        self.ended = true;
        let models = Arc::clone(&self.models);
        let class = models.class(&self.consumer);
        let mut doubtful = false;
        let (word, failed, usage) = match outcome {
            Ok(usage) => ("ok", false, usage),
            Err(fault) => {
                if let Fault::Status { status: 404, .. } = fault {
                    models.readiness.gone(&self.model);
                }
                let used = Usage {
                    output: self.seen,
                    ..Usage::default()
                };
                // What the orchestrator itself asks is known to be a question.
                doubtful = fault.is_doubtful() && self.consumer != Consumer::Planner;
                (fault.as_str(), fault.is_servers(), used)
            }
        };
        models.metrics.called(class, word);
        models.metrics.used(class, &usage);
        if !failed || blame {
            let now = Instant::now();
            if failed && doubtful {
                self.permit.report_doubtful(self.consumer.name(), now);
            } else {
                self.permit.report(failed, now);
            }
            models.metrics.breaker(models.breaker.state());
        }
        let tokens = usage.input.saturating_add(usage.output);
        let consumer = self.consumer.clone();
        // The turn is another's before the books are written.
        drop(self);
        models.count(consumer.name(), tokens).await;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let models = &self.models;
        let class = models.class(&self.consumer);
        models.metrics.called(class, "given_up");
        let usage = Usage {
            input: self.asked,
            output: self.seen,
            ..Usage::default()
        };
        models.metrics.used(class, &usage);
        let tokens = self.asked.saturating_add(self.seen);
        let told = (self.consumer.name().to_owned(), tokens);
        if tokens > 0 && models.given_up.try_send(told).is_err() {
            models.metrics.budgets_unavailable.inc();
        }
    }
}
