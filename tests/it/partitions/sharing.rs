//! Several workers' sessions at one broker: each takes its share of the partitions, whoever joins, leaves or dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kf_worker::broker::{Delivery, Session, Settings, Share, Topology};
use kf_worker::metrics::Metrics;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::broker::{Broker, Message};
use crate::support::{DEADLINE, eventually, rabbitmq};

const PARTITIONS: u16 = 4;
/// What each member takes at once.
const WINDOW: u16 = 64;
/// So many that each partition has some.
const ACCOUNTS: usize = 40;

/// A broker with its topology declared, and the messages that all members have taken, in the order in which they did.
struct Group {
    broker: Broker,
    taken: Arc<Mutex<Vec<Taken>>>,
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
    let uri = rabbitmq::url().parse().expect("a URL");
    Settings { uri, prefix: prefix.to_owned(), topology, partitions: PARTITIONS, alone: false, window, defer: Vec::new() }
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
        Self { broker, taken: Arc::default(), sent: 0 }
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
                        delivery.acknowledge().await;
                    }
                }
            }
        });
        Member { session, acknowledges, reader }
    }

    /// Publishes the next message of each account.
    async fn send_round(&mut self) {
        let messages = (0..ACCOUNTS).map(|account| {
            let message = Message::raw(format!("{account} {}", self.sent));
            Message { key: format!("a{account}@test"), ..message }
        });
        self.broker.publish_all(messages.collect::<Vec<_>>()).await;
        self.sent += 1;
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

    /// Sends round after round until each of these members takes messages, as many members as there are partitions or
    /// fewer, and gives which accounts each has.
    async fn until_shared(&mut self, members: &[&'static str]) -> BTreeMap<&'static str, BTreeSet<String>> {
        let end = Instant::now() + DEADLINE;
        loop {
            self.send_round().await;
            self.all_taken().await;
            let latest = self.latest();
            if members.iter().eq(latest.keys()) {
                return latest;
            }
            assert!(Instant::now() < end, "shared among {:?} only", latest.keys());
        }
    }

    /// The same, for longer than everybody takes to step back and for the next one to begin.
    async fn long_shared(&mut self, members: &[&'static str]) -> BTreeMap<&'static str, BTreeSet<String>> {
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            self.until_shared(members).await;
        }
        self.until_shared(members).await
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
    let bob = group.join("bob", Share { index: 1, of: 2 }).await;
    ann.session.take_share(Share { index: 0, of: 2 });
    let two = group.long_shared(&["ann", "bob"]).await;
    // Told the same again and again, nothing moves.
    for _ in 0..3 {
        ann.session.take_share(Share { index: 0, of: 2 });
        bob.session.take_share(Share { index: 1, of: 2 });
        assert_eq!(group.until_shared(&["ann", "bob"]).await, two);
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

    bob.session.take_share(Share { index: 1, of: 2 });
    ann.session.take_share(Share { index: 0, of: 2 });
    group.until_shared(&["ann", "bob"]).await;
    group.end(vec![ann, bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_comes_late_gets_its_share_all_the_same() {
    let mut group = Group::new().await;
    let ann = group.join("ann", Share::ALONE).await;
    ann.session.take_share(Share { index: 0, of: 2 });
    // She steps back while nobody stands behind her, and is the first in line again.
    assert_eq!(group.long_shared(&["ann"]).await["ann"].len(), ACCOUNTS);
    let bob = group.join("bob", Share { index: 1, of: 2 }).await;
    group.until_shared(&["ann", "bob"]).await;
    group.end(vec![ann, bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_waits_for_what_the_other_one_has_taken_last() {
    let mut group = Group::new().await;
    let ann = group.join("ann", Share { index: 0, of: 2 }).await;
    let bob = group.join("bob", Share { index: 1, of: 2 }).await;
    let hers = group.long_shared(&["ann", "bob"]).await["ann"].len();
    ann.acknowledges.send_replace(false);
    group.send_round().await;
    group.all_taken().await;
    let before = group.counts()["bob"];
    ann.session.close().await;
    let closed = Instant::now();
    // The broker gives him her messages within milliseconds.
    let first = async || (group.counts()["bob"] > before).then(|| closed.elapsed());
    let waited = eventually("he takes what she held", first).await;
    assert!(waited > Duration::from_millis(800), "{waited:?}");
    eventually("all of it", async || (group.counts()["bob"] == before + hers).then_some(())).await;
    ann.reader.await.expect("the reader ends well");
    group.end(vec![bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_takes_at_once_comes_to_its_window() {
    let mut group = Group::new().await;
    let ann = group.join("ann", Share::ALONE).await;
    let bob = group.join("bob", Share { index: 1, of: 2 }).await;
    ann.session.take_share(Share { index: 0, of: 2 });
    group.long_shared(&["ann", "bob"]).await;
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
    let bob = group.join("bob", Share { index: 1, of: 2 }).await;
    ann.session.take_share(Share { index: 0, of: 2 });
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
