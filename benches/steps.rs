//! `make steps`: the steps of a command by themselves, in time: reading it, its lane, the ledger, its event.
//!
//! They tell where time has gone when `make bench` has become slower; what counts is there.

#![expect(clippy::expect_used, clippy::panic, reason = "in a benchmark a panic is the verdict")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use futures_util::future::{join_all, try_join_all};
use kf_worker::command::{Command, Decoded, Message, decode};
use kf_worker::event::{Conclusion, History, Identity, conclude, now};
use kf_worker::lanes::Lanes;
use kf_worker::ledger::{Acceptance, Arrival, Arrived, Claim, Ledger, Origin, Place, Settings, Ticket};
use kf_worker::metrics::Metrics;
use kf_worker::outcome::{Effect, Outcome};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Commands that share the transactions of the ledger.
const TOGETHER: usize = 64;

fn main() {
    divan::main();
}

fn plain(number: usize) -> Message {
    let body = format!(
        r#"{{"command_id":"hr-2026-11-30-{number:08}","action":"add","kf_account":"kf{}@oa0","nickname":"客服{number}","meta":{{"ticket":"HR-{number}","team":"客服"}}}}"#,
        number % 90
    );
    Message { body: body.into_bytes(), message_id: Some(format!("hr-2026-11-30-{number:08}")), ..Message::default() }
}

fn structured() -> Message {
    let body = r#"{"specversion":"1.0","id":"hr-2026-11-30-1","source":"hr","type":"kf.add","time":"2026-11-30T08:00:00Z","data":{"kf_account":"kf1@oa0","nickname":"客服1","meta":{"ticket":"HR-1"}}}"#;
    Message { body: body.into(), content_type: Some("application/cloudevents+json".to_owned()), ..Message::default() }
}

fn command(number: usize) -> Command {
    let Decoded::Command(command) = decode(&plain(number)) else { panic!("it is a command") };
    command
}

fn conclusion(command: &Command) -> Conclusion {
    let history = History { attempts: 1, received_at: now(), finished_at: now() };
    conclude(&command.given, Identity::Generation(0), &Outcome::Succeeded(Effect::Created.into()), history)
}

#[divan::bench]
fn decode_plain_json(bencher: Bencher<'_, '_>) {
    let message = plain(1);
    bencher.bench(|| decode(black_box(&message)));
}

#[divan::bench]
fn decode_a_structured_cloudevent(bencher: Bencher<'_, '_>) {
    let message = structured();
    bencher.bench(|| decode(black_box(&message)));
}

/// In and out again, each account with a lane of its own.
#[divan::bench]
fn lanes(bencher: Bencher<'_, '_>) {
    let lanes = Lanes::new();
    let accounts: Vec<String> = (0..TOGETHER).map(|number| format!("kf{number}@oa0")).collect();
    bencher.counter(ItemsCount::new(TOGETHER)).bench_local(|| {
        let turns: Vec<_> = accounts.iter().filter_map(|account| lanes.push(account, 1, Box::new(()))).collect();
        turns.iter().map(|turn| std::iter::from_fn(|| turn.next()).count()).sum::<usize>()
    });
}

#[divan::bench]
fn the_event_of_an_outcome(bencher: Bencher<'_, '_>) {
    let command = command(1);
    bencher.bench(|| conclusion(black_box(&command)).event().expect("an event"));
}

/// A ledger in SQLite, with every commit on disk, and the runtime in which it answers.
struct Books {
    ledger: Ledger,
    runtime: Runtime,
    /// How many commands there were.
    numbers: AtomicUsize,
    _folder: TempDir,
}

impl Books {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::Sqlite(folder.path().join("ledger.db"));
        let day = Duration::from_secs(86_400);
        let settings = Settings { place, retention: day, patience: day, lease: Duration::from_secs(15) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ledger = runtime.block_on(Ledger::open(&settings, Arc::new(Metrics::new().expect("metrics")))).expect("a ledger");
        Self { ledger, runtime, numbers: AtomicUsize::new(0), _folder: folder }
    }

    /// The next commands, accepted.
    async fn accept(&self) -> Vec<(Arc<Command>, Ticket)> {
        let first = self.numbers.fetch_add(TOGETHER, Ordering::Relaxed);
        let commands: Vec<_> = (first..first + TOGETHER).map(|number| Arc::new(command(number))).collect();
        let arrival = |command: &Arc<Command>| {
            let message = Arrived::Command(Arc::clone(command));
            Arrival { message, received_at: now(), origin: Origin::Producer }
        };
        let accepted = self.ledger.accept(commands.iter().map(arrival).collect()).await.expect("they are accepted");
        let tickets = accepted.into_iter().map(|accepted| match accepted {
            Acceptance::Unfinished(ticket) => ticket,
            other => panic!("{other:?}"),
        });
        commands.into_iter().zip(tickets).collect()
    }

    /// Each is claimed, and its outcome recorded.
    async fn carry_out(&self, accepted: Vec<(Arc<Command>, Ticket)>) {
        let claims = join_all(accepted.iter().map(|(_, ticket)| self.ledger.begin(ticket.position, false))).await;
        let records = accepted.into_iter().zip(claims).map(async |((command, ticket), claim)| {
            let Ok(Claim::Begun(begun)) = claim else { panic!("{claim:?}") };
            self.ledger.finish(ticket.position, Some(begun.epoch), conclusion(&command), false).await
        });
        try_join_all(records).await.expect("they are recorded");
    }
}

#[divan::bench(sample_count = 50)]
fn the_ledger_accepts_claims_and_records(bencher: Bencher<'_, '_>) {
    let books = Books::open();
    bencher.counter(ItemsCount::new(TOGETHER)).bench_local(|| {
        let accepted = books.runtime.block_on(books.accept());
        books.runtime.block_on(books.carry_out(accepted));
    });
}

#[divan::bench(sample_count = 50)]
fn the_ledger_claims_and_records(bencher: Bencher<'_, '_>) {
    let books = Books::open();
    bencher
        .counter(ItemsCount::new(TOGETHER))
        .with_inputs(|| books.runtime.block_on(books.accept()))
        .bench_local_values(|accepted| books.runtime.block_on(books.carry_out(accepted)));
}
