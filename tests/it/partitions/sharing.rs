//! Several workers' sessions at one broker: each takes its share of the partitions, whoever joins, leaves or dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kf_worker::broker::{BrokerUrl, Delivery, Session, Settings, Share, Topology};
use kf_worker::metrics::Metrics;
use kf_worker::tls::Tls;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::support::broker::{Broker, Message};
use crate::support::{DEADLINE, eventually, rabbitmq};

const PARTITIONS: u16 = 4;
/// What each member takes at once.
const WINDOW: u16 = 64;
/// So many that each partition has some.
const ACCOUNTS: usize = 40;
/// The places of two members.
const FIRST_OF_TWO: Share = Share { index: 0, of: 2 };
const SECOND_OF_TWO: Share = Share { index: 1, of: 2 };

/// A broker with its topology declared, and the messages that all members have taken, in the order in which they did.
struct Group {
    broker: Broker,
    taken: Arc<Mutex<Vec<Taken>>>,
    /// The accounts whose messages come to each partition.
    spread: Vec<BTreeSet<String>>,
    /// How many messages were published for each account.
    sent: usize,
}

struct Taken {
    member: &'static str,
    account: String,
    number: usize,
}

/// One session and the task that reads it.
struct Member {
    session: Session,
    /// Whether what is taken is acknowledged at once, or kept.
    acknowledges: watch::Sender<bool>,
    reader: tokio::task::JoinHandle<()>,
}

fn told(prefix: &str, topology: Topology, window: u16) -> Settings {
    let url = BrokerUrl::parse(rabbitmq::url()).expect("a URL");
    let (prefix, tls) = (prefix.to_owned(), Tls::default());
    Settings { url, tls, prefix, topology, partitions: PARTITIONS, alone: false, window, defer: Vec::new() }
}

async fn open(settings: &Settings) -> (Session, kf_worker::broker::Deliveries) {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    Session::open(settings, &metrics, &Arc::default()).await.expect("a session")
}

impl Group {
    async fn new() -> Self {
        let prefix = format!("kft-{:08x}", rand::random::<u32>());
        let broker = Broker::connect(rabbitmq::url(), prefix.clone()).await;
        let (declared, _) = open(&told(&prefix, Topology::Declare, 1)).await;
        declared.close().await;
        let spread = spread(&broker).await;
        Self { broker, taken: Arc::default(), spread, sent: 0 }
    }

    /// A new member, with a share of its own.
    async fn join(&self, name: &'static str, share: Share) -> Member {
        let (session, mut deliveries) = open(&told(&self.broker.prefix, Topology::None, WINDOW)).await;
        session.take_share(share);
        let (acknowledges, mut wanted) = watch::channel(true);
        let taken = Arc::clone(&self.taken);
        let reader = tokio::spawn(async move {
            let mut kept: Vec<Delivery> = Vec::new();
            loop {
                tokio::select! {
                    arrived = deliveries.next(256) => {
                        let Some(arrived) = arrived else { return };
                        for delivery in arrived {
                            taken.lock().expect("nobody has panicked with it").push(Taken::from(name, &delivery));
                            kept.push(delivery);
                        }
                    }
                    Ok(()) = wanted.changed() => {}
                }
                if *wanted.borrow() {
                    for delivery in kept.drain(..) {
                        delivery.acknowledge();
                    }
                }
            }
        });
        Member { session, acknowledges, reader }
    }

    /// Publishes the next message of each account.
    async fn send_round(&mut self) {
        self.broker.publish_all(round(self.sent)).await;
        self.sent += 1;
    }

    /// The accounts of the partitions that are this member's.
    fn accounts_of(&self, share: Share) -> BTreeSet<String> {
        let owned = (0..).zip(&self.spread).filter(|(partition, _)| share.owns(*partition));
        owned.flat_map(|(_, accounts)| accounts.clone()).collect()
    }

    /// Waits until all that was sent was taken by somebody.
    async fn all_taken(&self) {
        let all = async || {
            let taken = self.taken.lock().expect("nobody has panicked with it");
            let seen: BTreeSet<_> = taken.iter().map(|taken| (&taken.account, taken.number)).collect();
            (seen.len() == ACCOUNTS * self.sent).then_some(())
        };
        eventually("all is taken", all).await;
    }

    /// How many messages each member took so far.
    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for taken in self.taken.lock().expect("nobody has panicked with it").iter() {
            *counts.entry(taken.member).or_default() += 1;
        }
        counts
    }

    /// Which accounts' latest message each member took.
    fn latest(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut latest: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        for taken in self.taken.lock().expect("nobody has panicked with it").iter().filter(|taken| taken.number + 1 == self.sent) {
            latest.entry(taken.member).or_default().insert(taken.account.clone());
        }
        latest
    }

    /// Sends a round, and gives which accounts of it each member took.
    async fn next_round(&mut self) -> BTreeMap<&'static str, BTreeSet<String>> {
        self.send_round().await;
        self.all_taken().await;
        self.latest()
    }

    /// Sends round after round until each of these members takes messages, as many members as there are partitions or
    /// fewer, and gives which accounts each has.
    async fn until_shared(&mut self, members: &[&'static str]) -> BTreeMap<&'static str, BTreeSet<String>> {
        let end = Instant::now() + DEADLINE;
        loop {
            let latest = self.next_round().await;
            if members.iter().eq(latest.keys()) {
                return latest;
            }
            assert!(Instant::now() < end, "shared among {:?} only", latest.keys());
        }
    }

    /// The same until each of these two takes what is its own, all of it and nothing else: from then on nobody has to step
    /// back any more.
    async fn until_settled(&mut self, first: &'static str, second: &'static str) -> BTreeMap<&'static str, BTreeSet<String>> {
        let wanted = BTreeMap::from([(first, self.accounts_of(FIRST_OF_TWO)), (second, self.accounts_of(SECOND_OF_TWO))]);
        let end = Instant::now() + DEADLINE;
        loop {
            let latest = self.next_round().await;
            if latest == wanted {
                return wanted;
            }
            assert!(Instant::now() < end, "{latest:?} instead of {wanted:?}");
        }
    }

    /// Waits until one who acknowledges nothing has left its first place in line at the partitions of others and taken a new
    /// one: it takes more of each than the first place lets it hold.
    async fn until_stepped_back(&mut self, share: Share) {
        let before = self.taken.lock().expect("nobody has panicked with it").len();
        for _ in 0..12 {
            self.send_round().await;
        }
        let others: Vec<_> = (0..).zip(&self.spread).filter(|(partition, _)| !share.owns(*partition)).collect();
        let most = usize::from(Share::ALONE.prefetch(WINDOW, PARTITIONS));
        let more = async || {
            let taken = self.taken.lock().expect("nobody has panicked with it");
            let of = |accounts: &BTreeSet<String>| taken[before..].iter().filter(|taken| accounts.contains(&taken.account)).count();
            others.iter().all(|(_, accounts)| of(accounts) > most).then_some(())
        };
        eventually("it has taken new places in line", more).await;
    }

    /// The first sight of each message, in the order of all members together, follows the order of its account.
    fn assert_in_order(&self) {
        let mut next: BTreeMap<String, usize> = BTreeMap::new();
        for taken in self.taken.lock().expect("nobody has panicked with it").iter() {
            let next = next.entry(taken.account.clone()).or_default();
            assert!(taken.number <= *next, "{} {} was taken by {} before {next}", taken.account, taken.number, taken.member);
            *next = (*next).max(taken.number + 1);
        }
    }

    /// Nothing is left, and nothing comes again once all have gone.
    async fn end(self, members: Vec<Member>) {
        self.assert_in_order();
        for member in members {
            member.session.stop_consuming().await;
            member.session.close().await;
            member.reader.await.expect("the reader ends well");
        }
        for number in 0..PARTITIONS {
            assert_eq!(self.broker.ready(&format!("commands.{number}")).await, Some(0), "all is acknowledged");
        }
        self.broker.remove_now(&[]);
    }
}

/// The message of each account that comes after so many others of it.
fn round(number: usize) -> Vec<Message> {
    let message = |account| Message { key: format!("a{account}@test"), ..Message::raw(format!("{account} {number}")) };
    (0..ACCOUNTS).map(message).collect()
}

/// Finds out to which partition the broker gives each account, before any member is there.
async fn spread(broker: &Broker) -> Vec<BTreeSet<String>> {
    broker.publish_all(round(0)).await;
    let channel = broker.channel().await;
    let mut consumers = Vec::new();
    for number in 0..PARTITIONS {
        let (queue, options) = (broker.name(&format!("commands.{number}")), BasicConsumeOptions::default());
        let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await.expect("it can be read");
        consumers.push(consumer.map(move |delivery| (usize::from(number), delivery.expect("the channel lives"))));
    }
    let mut spread = vec![BTreeSet::new(); usize::from(PARTITIONS)];
    let mut all = stream::select_all(consumers).take(ACCOUNTS);
    while let Some((partition, delivery)) = timeout(DEADLINE, all.next()).await.expect("all of them come") {
        let text = String::from_utf8(delivery.data.clone()).expect("text");
        spread[partition].insert(text.split(' ').next().expect("a word").to_owned());
        delivery.ack(BasicAckOptions::default()).await.expect("the channel lives");
    }
    drop(all);
    channel.close(200, "".into()).await.expect("it was open");
    spread
}

impl Taken {
    fn from(member: &'static str, delivery: &Delivery) -> Self {
        let text = String::from_utf8(delivery.message.body.clone()).expect("text");
        let (account, number) = text.split_once(' ').expect("two words");
        Self { member, account: account.to_owned(), number: number.parse().expect("a number") }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_gets_its_share_and_whoever_dies_is_replaced_at_once() {
    let mut group = Group::new().await;
    let ann = group.join("ann", Share::ALONE).await;
    assert_eq!(group.until_shared(&["ann"]).await["ann"].len(), ACCOUNTS);

    // The newcomer is in line before the others hear of it.
    let bob = group.join("bob", SECOND_OF_TWO).await;
    ann.session.take_share(FIRST_OF_TWO);
    let two = group.until_settled("ann", "bob").await;
    // Told the same again and again, nothing moves.
    for _ in 0..3 {
        ann.session.take_share(FIRST_OF_TWO);
        bob.session.take_share(SECOND_OF_TWO);
        assert_eq!(group.next_round().await, two);
    }

    // The third one is told of before it is in line.
    ann.session.take_share(Share { index: 0, of: 3 });
    bob.session.take_share(Share { index: 1, of: 3 });
    let carl = group.join("carl", Share { index: 2, of: 3 }).await;
    group.until_shared(&["ann", "bob", "carl"]).await;

    // Dead with what it holds; nobody is told.
    carl.acknowledges.send_replace(false);
    group.send_round().await;
    group.all_taken().await;
    carl.session.close().await;
    carl.reader.await.expect("the reader ends well");
    group.until_shared(&["ann", "bob"]).await;

    bob.session.take_share(SECOND_OF_TWO);
    ann.session.take_share(FIRST_OF_TWO);
    group.until_settled("ann", "bob").await;
    group.end(vec![ann, bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_comes_late_gets_its_share_all_the_same() {
    let mut group = Group::new().await;
    let ann = group.join("ann", Share::ALONE).await;
    ann.acknowledges.send_replace(false);
    ann.session.take_share(FIRST_OF_TWO);
    // She steps back while nobody stands behind her, and is the first in line again.
    group.until_stepped_back(FIRST_OF_TWO).await;
    ann.acknowledges.send_replace(true);
    assert_eq!(group.until_shared(&["ann"]).await["ann"].len(), ACCOUNTS);
    let bob = group.join("bob", SECOND_OF_TWO).await;
    group.until_settled("ann", "bob").await;
    group.end(vec![ann, bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_waits_for_what_the_other_one_has_taken_last() {
    let mut group = Group::new().await;
    let ann = group.join("ann", FIRST_OF_TWO).await;
    let bob = group.join("bob", SECOND_OF_TWO).await;
    let hers = group.until_settled("ann", "bob").await["ann"].len();
    ann.acknowledges.send_replace(false);
    group.send_round().await;
    group.all_taken().await;
    let before = group.counts()["bob"];
    // Some of them may be his before the closing has come to its end.
    let closing = Instant::now();
    ann.session.close().await;
    let first = async || (group.counts()["bob"] > before).then(|| closing.elapsed());
    let waited = eventually("he takes what she held", first).await;
    assert!(waited > Duration::from_millis(900), "he hands nothing on for a second: {waited:?}");
    eventually("all of it", async || (group.counts()["bob"] == before + hers).then_some(())).await;
    ann.reader.await.expect("the reader ends well");
    group.end(vec![bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_takes_at_once_comes_to_its_window() {
    let mut group = Group::new().await;
    let ann = group.join("ann", Share::ALONE).await;
    let bob = group.join("bob", SECOND_OF_TWO).await;
    ann.session.take_share(FIRST_OF_TWO);
    group.until_settled("ann", "bob").await;
    let before = group.counts();
    ann.acknowledges.send_replace(false);
    bob.acknowledges.send_replace(false);
    for _ in 0..12 {
        group.send_round().await;
    }
    let full = async || {
        let now = group.counts();
        let taken: Vec<usize> = ["ann", "bob"].map(|name| now[name] - before[name]).into();
        assert!(taken.iter().all(|taken| *taken <= usize::from(WINDOW)), "{taken:?}");
        (taken == [usize::from(WINDOW); 2]).then_some(())
    };
    eventually("both windows are full", full).await;
    ann.acknowledges.send_replace(true);
    bob.acknowledges.send_replace(true);
    group.all_taken().await;
    group.end(vec![ann, bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_before_stepping_back_stays_ours_and_is_acknowledged() {
    let mut group = Group::new().await;
    let ann = group.join("ann", Share::ALONE).await;
    ann.acknowledges.send_replace(false);
    group.send_round().await;
    group.all_taken().await;
    let bob = group.join("bob", SECOND_OF_TWO).await;
    ann.session.take_share(FIRST_OF_TWO);
    let shared = group.until_shared(&["ann", "bob"]).await;
    assert_eq!(shared["ann"].len() + shared["bob"].len(), ACCOUNTS, "the next one began at once");
    // Nothing of what she holds was given to him.
    let again = |name| {
        group.taken.lock().expect("nobody has panicked with it").iter().filter(|taken| taken.number == 0 && taken.member == name).count()
    };
    assert_eq!((again("ann"), again("bob")), (ACCOUNTS, 0));
    ann.acknowledges.send_replace(true);
    group.send_round().await;
    group.all_taken().await;
    let in_all = group.taken.lock().expect("nobody has panicked with it").len();
    assert_eq!(in_all, ACCOUNTS * group.sent, "each was taken once");
    group.end(vec![ann, bob]).await;
}
