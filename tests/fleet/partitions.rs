//! Which kf account is in which partition, and who called for each partition when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, ExchangeKind};

use crate::members::Deed;
use crate::plan::{KF_ACCOUNTS, kf_account};
use crate::witness::Call;

pub const PARTITIONS: usize = 4;
/// Before something happens to a worker, its partitions are those for which it alone has called within this time.
const BEFORE: Duration = Duration::from_secs(4);

/// The partition of each kf account, as an exchange of the same kind with as many queues spreads them.
pub async fn of_accounts(url: &str) -> BTreeMap<String, usize> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker can be reached");
    let channel = connection.create_channel().await.expect("a channel");
    let (options, kind) = (ExchangeDeclareOptions { auto_delete: true, ..Default::default() }, "x-consistent-hash".to_owned());
    let declared = channel.exchange_declare("fleet.probe".into(), ExchangeKind::Custom(kind), options, FieldTable::default());
    declared.await.expect("the exchange is declared");
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    for number in 0..PARTITIONS {
        let queue = format!("fleet.probe.{number}");
        channel.queue_declare(queue.as_str().into(), exclusive, FieldTable::default()).await.expect("the queue is declared");
        let bound = channel.queue_bind(queue.into(), "fleet.probe".into(), "1".into(), QueueBindOptions::default(), FieldTable::default());
        bound.await.expect("the queue is bound");
    }
    for number in 0..KF_ACCOUNTS {
        let name = kf_account(number);
        let sent = channel.basic_publish("fleet.probe".into(), name.into(), Default::default(), b"", BasicProperties::default());
        sent.await.expect("it is sent");
    }
    let mut partitions = BTreeMap::new();
    for number in 0..PARTITIONS {
        let queue = format!("fleet.probe.{number}");
        while let Some(message) =
            channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.expect("the queue is read")
        {
            partitions.insert(message.routing_key.to_string(), number);
        }
    }
    assert_eq!(partitions.len(), KF_ACCOUNTS, "each kf account is in one partition");
    // Its queues go with it.
    connection.close(200, "known".into()).await.ok();
    partitions
}

/// How often a partition went from one worker to another: who made most of its calls in a second, against the second before.
pub fn handovers(calls: &[Call], partitions: &BTreeMap<String, usize>) -> usize {
    let mut made: BTreeMap<(usize, u64), BTreeMap<usize, usize>> = BTreeMap::new();
    for call in calls {
        let partition = partitions[&call.kf_account];
        *made.entry((partition, call.begun.as_secs())).or_default().entry(call.worker).or_default() += 1;
    }
    let most = |workers: &BTreeMap<usize, usize>| workers.iter().max_by_key(|(_, made)| **made).map(|(worker, _)| *worker);
    let owners: Vec<_> = made.iter().map(|((partition, _), workers)| (*partition, most(workers))).collect();
    owners.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1).count()
}

/// How long after something happened to a worker others had taken over its partitions.
pub struct TakenOver {
    /// A call for one of its partitions was ended by another worker…
    pub first: Option<Duration>,
    /// … and for the last one of them.
    pub last: Option<Duration>,
    pub partitions: usize,
    /// Until another worker called again for the kf accounts whose calls were in flight, at most.
    pub in_flight: Option<Duration>,
}

pub fn taken_over(calls: &[Call], partitions: &BTreeMap<String, usize>, from: Deed) -> TakenOver {
    let of = |call: &Call| partitions[&call.kf_account];
    let mut owners: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.begun <= from.at && call.begun + BEFORE >= from.at) {
        owners.entry(of(call)).or_default().insert(call.worker);
    }
    let others = || calls.iter().filter(|call| call.begun > from.at && call.worker != from.worker);
    let ended = |partition: usize| others().filter(|call| of(call) == partition).filter_map(|call| call.ended).min();
    let its: Vec<usize> =
        owners.iter().filter(|(_, owners)| owners.len() == 1 && owners.contains(&from.worker)).map(|(partition, _)| *partition).collect();
    let times = || its.iter().map(|partition| ended(*partition).map(|ended| ended - from.at));
    let cut_off = calls.iter().filter(|call| call.worker == from.worker && call.begun <= from.at);
    let cut_off = cut_off.filter(|call| call.ended.is_none_or(|ended| ended > from.at));
    let again = |kf_account: &str| others().find(|call| call.kf_account == kf_account).map(|call| call.begun - from.at);
    TakenOver {
        first: times().flatten().min(),
        last: times().collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().max()),
        partitions: its.len(),
        in_flight: cut_off.filter_map(|call| again(&call.kf_account)).max(),
    }
}
