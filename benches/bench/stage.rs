//! What all runs stand on: a broker and a database of their own, the queues that a worker declares, and one queue of events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer, Queue};
use tempfile::TempDir;

use crate::OFFICIAL_ACCOUNTS;
use crate::contender::{Contender, Running, Setting};
use crate::machine::Machine;
use crate::simulator::Simulator;
use crate::support::broker::Broker;
use crate::support::eventually;
use crate::support::postgres::{Database, OwnServer};
use crate::support::rabbitmq::OwnNode;

/// Every name at the broker begins with it.
pub const PREFIX: &str = "kf";
/// Where events go, as a consumer of theirs would have it: a quorum queue. Nobody takes them from it, since that would cost the
/// same for whoever is measured, and so hide what differs.
const EVENTS: &str = "bench-events";

/// Drop what runs on it first.
pub struct Stage {
    pub broker: Broker,
    /// For orders to the queues.
    channel: Channel,
    pub node: OwnNode,
    postgres: Option<OwnServer>,
    folder: TempDir,
}

impl Stage {
    pub async fn set(with_postgres: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("kf-bench-").tempdir().expect("a temporary folder");
        let node = OwnNode::start();
        let postgres = with_postgres.then(OwnServer::start);
        let broker = Broker::connect(node.url(), PREFIX.to_owned()).await;
        let channel = broker.channel().await;
        let stage = Self { broker, channel, node, postgres, folder };
        // A worker declares everything, and ends.
        let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
        let contender = Contender::Worker(stage.empty_ledger());
        let folder = stage.new_folder();
        let running = contender.start(&Setting { amqp_url: stage.node.url(), simulator: &simulator, concurrency: 64, folder: &folder });
        if let Running::Worker(mut worker) = running {
            worker.ready().await;
            assert_eq!(worker.terminate().await, Some(0), "the worker ends in order");
        }
        stage
    }

    pub fn machine(&self) -> Machine {
        let postgres = self.postgres.as_ref().map(|server| Database::at(server.url()).rows("SHOW server_version")[0][0].clone());
        Machine::new(self.node.control(&["version"]).trim().to_owned(), postgres)
    }

    /// A folder that nobody has used.
    pub fn new_folder(&self) -> PathBuf {
        tempfile::tempdir_in(self.folder.path()).expect("a folder").keep()
    }

    /// The URL of a ledger in SQLite that isn't there yet.
    pub fn empty_ledger(&self) -> String {
        ledger_at(&self.new_folder().join("ledger.db"))
    }

    /// The URL of an empty database in PostgreSQL.
    pub fn empty_database(&self) -> String {
        let server = self.postgres.as_ref().expect("PostgreSQL was started for what needs it");
        server.database().url().to_owned()
    }

    /// Takes all that is left of the last run away, once nobody reads the commands any more.
    pub async fn clear(&self) {
        let nobody = async || (self.look("commands").await.consumer_count() == 0).then_some(());
        eventually("nobody reads the commands", nobody).await;
        let commands = self.broker.name("commands");
        self.channel.queue_purge(commands, QueuePurgeOptions::default()).await.expect("the commands go");
        let events = self.broker.name(EVENTS);
        // There are none before the first run; the broker takes that as done.
        self.channel.queue_delete(events.clone(), QueueDeleteOptions::default()).await.expect("the events go");
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(events.clone(), durable, quorum).await.expect("a queue for the events");
        let (exchange, options) = (self.broker.name("events"), QueueBindOptions::default());
        self.channel.queue_bind(events, exchange, "#".into(), options, FieldTable::default()).await.expect("it is bound");
        // What the broker still writes of the last run is not the next one's concern.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// How many events there are since it was cleared.
    pub async fn events(&self) -> usize {
        self.look(EVENTS).await.message_count() as usize
    }

    /// The events from now on; they are taken away as they come.
    pub async fn consume_events(&self) -> Consumer {
        let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let channel = self.broker.channel().await;
        let consumer = channel.basic_consume(self.broker.name(EVENTS), "".into(), no_ack, FieldTable::default()).await;
        consumer.expect("the queue can be read")
    }

    async fn look(&self, queue: &str) -> Queue {
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = self.channel.queue_declare(self.broker.name(queue), passive, FieldTable::default()).await;
        queue.expect("the queue is there")
    }
}

pub fn ledger_at(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}
