//! Hostile input over the wire: whatever comes is accounted for, and the good commands beside it are done.

mod answers;
mod flood;
mod lies;
mod properties;
mod replies;
mod words;

use crate::support::broker::Inbox;
use crate::support::raw_amqp::{Properties, RawProducer};
use crate::support::stage::{Stage, add};
use crate::support::worker::{Settings, Worker};

/// A worker, its dead letters, and a producer that sends whatever it likes.
struct Scene {
    /// It uses what the stage cleans up.
    worker: Worker,
    stage: Stage,
    dead: Inbox,
    producer: RawProducer,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut stage = Stage::new().await;
        let mut settings = stage.settings();
        change(&mut settings);
        let worker = stage.worker_with(&settings).await;
        let dead = stage.broker.dead().await;
        Self { worker, stage, dead, producer: RawProducer::connect().await }
    }

    /// Publishes a command of these properties, by hand.
    async fn publish(&mut self, properties: &Properties, body: &str) {
        let exchange = self.stage.broker.name("commands").to_string();
        self.producer.publish(&exchange, "anna@test", properties, body.as_bytes()).await;
    }

    /// The same process goes on over the same connections, does what is right, and has said and kept nothing else.
    async fn end(mut self) {
        self.stage.outcome(&add("good", "good@test", "好")).await.assert_succeeded("created");
        assert!(self.worker.is_running(), "the worker lives");
        assert_eq!(self.worker.logged("trying again"), 0, "it kept its connections");
        assert_eq!(self.dead.rest().await.len(), 0, "no other dead letter");
        assert_eq!(self.stage.settle(self.worker).await.len(), 0, "no other event");
    }
}
