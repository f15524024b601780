//! The peer of the step lane: lapin and hyper, and nothing of ours.
//!
//! It keeps the lane's promises and no more: prefetch, one POST per delivery with its idempotency key,
//! the answer published persistent and mandatory with a confirm, under the key and the task it belongs
//! to, the delivery acknowledged after that confirm. It reads and writes no JSON, keeps no metrics, sets
//! no time limits, and does not survive a lost connection.

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use mesh_protocol::message::HEADER_IDEMPOTENCY_KEY;
use mesh_protocol::names::{EXCHANGE_COORDINATION, ORCHESTRATOR};
use std::rc::Rc;
use tokio::task::LocalSet;

/// Queue to agent to queue, without our code.
#[derive(Debug, Clone, clap::Args)]
pub struct BareLoop {
    /// The broker
    #[arg(long)]
    pub broker: String,
    /// Queue to drain
    #[arg(long)]
    pub queue: String,
    /// Where to POST each message
    #[arg(long)]
    pub agent: http::Uri,
    /// Most deliveries in hand
    #[arg(long)]
    pub prefetch: u16,
}

struct Ends {
    client: Client<HttpConnector, Full<Bytes>>,
    agent: http::Uri,
    channel: Channel,
}

impl BareLoop {
    /// Drains the queue until the process is ended.
    ///
    /// # Errors
    /// At the first thing that goes wrong outside of a step.
    pub async fn run(self) -> Result<()> {
        let connection = Connection::connect(&self.broker, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        channel
            .basic_qos(self.prefetch, BasicQosOptions::default())
            .await?;
        let mut deliveries = channel
            .basic_consume(
                self.queue.as_str().into(),
                "bare".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let ends = Rc::new(Ends {
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(usize::from(self.prefetch))
                .build(connector),
            agent: self.agent,
            channel,
        });
        LocalSet::new()
            .run_until(async move {
                while let Some(delivery) = deliveries.next().await {
                    let (delivery, ends) = (delivery?, Rc::clone(&ends));
                    // The prefetch bounds how many there are.
                    tokio::task::spawn_local(async move { ends.step(delivery).await });
                }
                Ok(())
            })
            .await
    }
}

impl Ends {
    async fn step(&self, delivery: Delivery) -> Result<()> {
        let asked = &delivery.properties;
        let headers = asked.headers().clone().unwrap_or_default();
        let key = match headers.inner().get(HEADER_IDEMPOTENCY_KEY) {
            Some(AMQPValue::LongString(key)) => HeaderValue::from_bytes(key.as_bytes())?,
            _ => anyhow::bail!("a delivery without a key"),
        };
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_headers(headers);
        if let Some(task) = asked.correlation_id() {
            properties = properties.with_correlation_id(task.clone());
        }
        let request = Request::post(&self.agent)
            .header(header::CONTENT_TYPE, "application/json")
            .header(HEADER_IDEMPOTENCY_KEY, key)
            .body(Full::new(Bytes::from(delivery.data.clone())))?;
        let answer = self.client.request(request).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        let confirm = self
            .channel
            .basic_publish(
                EXCHANGE_COORDINATION.into(),
                ORCHESTRATOR.into(),
                BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                },
                &body,
                properties,
            )
            .await?
            .await?;
        anyhow::ensure!(confirm.is_ack(), "the broker refused a result");
        delivery
            .ack(BasicAckOptions::default())
            .await
            .context("cannot acknowledge")?;
        Ok(())
    }
}
