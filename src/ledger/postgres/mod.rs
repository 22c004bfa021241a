//! The ledger in a PostgreSQL database, for any number of workers: everything that waits shares a transaction of two
//! round trips.
//!
//! A transaction locks the accounts that it is about, so that workers judge each account one after the other. Nothing is
//! kept in the server's session between transactions, no prepared statement, no setting and no lock: a proxy that pools
//! transactions may stand in between.

mod connection;
mod memory;
mod reader;
mod rows;
mod schema;
mod target;
mod trail;
mod url;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;

#[cfg(test)]
pub use connection::begin_statement;
pub use connection::{OpenError, Trouble};
pub use reader::Reader;
pub use target::Target;
pub use url::PostgresUrl;

use super::record::Holder;
use super::request::{BATCH, Decision, Errand, Request, answer_all, count_ended, decide_all, keys_of, part};
use super::sheet::{Keys, Sheet, Terms};
use super::{LedgerError, Settings};
use crate::metrics::Metrics;
use connection::{Connection, PATIENCE, TIME_LIMIT};
use schema::Form;

/// How often a transaction is tried that another worker's got in the way of.
const TRIES: u32 = 5;

/// Connects, brings the database to this version's form, and answers requests until nobody can ask any more. Answers who
/// this ledger is.
pub async fn start(
    url: &PostgresUrl,
    settings: &Settings,
    metrics: Arc<Metrics>,
    queue: mpsc::UnboundedReceiver<Request>,
) -> Result<String, OpenError> {
    if url.is_exposed() {
        tracing::warn!(ledger = %url, "the connection to the ledger's database is not encrypted; `?sslmode=require` in its URL makes it so");
    }
    let mut connection = Connection::new(url.clone());
    let id = prepare(&mut connection).await?;
    let holder = super::random_name();
    let (errands, errand_queue) = mpsc::unbounded_channel();
    let clerk = Clerk { connection: Connection::new(url.clone()), settings: settings.clone(), holder: holder.clone() };
    tokio::spawn(clerk.run(errand_queue));
    let writer = Writer { connection, settings: settings.clone(), holder, metrics, id: id.clone(), errands };
    tokio::spawn(writer.run(queue));
    Ok(id)
}

async fn prepare(connection: &mut Connection) -> Result<String, OpenError> {
    let place = connection.url().clone();
    let unusable = |trouble| OpenError::Unusable(place.clone(), trouble);
    bring_to_form(connection).await?;
    let identity = "SELECT ledger_id, move IS NULL, current_setting('synchronous_commit') FROM kf_worker.identity";
    let rows = connection.query(identity, &[]).await.map_err(unusable)?;
    let Some(row) = rows.first().filter(|row| row.get(1)) else { return Err(OpenError::Filling(place)) };
    if row.get::<_, &str>(2) == "off" {
        tracing::warn!("the database's `synchronous_commit` is off: a crash of it may lose outcomes that were acknowledged; turn it on");
    }
    // A copy of a database may come without the places of its sequences.
    let used = "SELECT setval('kf_worker.position', used) FROM (SELECT max(position) AS used FROM kf_worker.command) AS command
        WHERE used > (SELECT last_value FROM kf_worker.position)";
    connection.query(used, &[]).await.map_err(unusable)?;
    Ok(row.get(0))
}

/// Makes the tables where there are none, and brings older ones to this version's form.
async fn bring_to_form(connection: &mut Connection) -> Result<(), OpenError> {
    let place = connection.url().clone();
    let unusable = |trouble| OpenError::Unusable(place.clone(), trouble);
    let encoding = connection.query("SELECT current_setting('server_encoding')", &[]).await.map_err(unusable)?;
    let encoding = encoding.first().map(|row| row.get::<_, String>(0)).unwrap_or_default();
    if encoding != "UTF8" {
        return Err(OpenError::Encoding { place, encoding });
    }
    match migrate(connection).await.map_err(unusable)? {
        Form::Current => Ok(()),
        Form::Newer(found) => Err(OpenError::Newer { place, found, known: schema::known() }),
    }
}

async fn migrate(connection: &mut Connection) -> Result<Form, Trouble> {
    let limit = connection.limit();
    let client = connection.client().await?;
    let migrated = async {
        let found = tokio::time::timeout(limit, schema::begin(client)).await.map_err(|_| Trouble::Silent)?.map_err(Trouble::Failed)?;
        // A new index on a large ledger takes its time; the tables of a new one do not.
        let limit = if (1..schema::known()).contains(&found) { PATIENCE } else { limit };
        tokio::time::timeout(limit, schema::migrate(client, found)).await.map_err(|_| Trouble::Silent)?.map_err(Trouble::Failed)
    };
    let migrated = migrated.await;
    if migrated.is_err() {
        // Its transaction is still open.
        connection.give_up();
    }
    migrated
}

/// Makes decisions, and hands errands on.
struct Writer {
    connection: Connection,
    settings: Settings,
    holder: Holder,
    metrics: Arc<Metrics>,
    /// Who the ledger was when it was opened.
    id: String,
    errands: mpsc::UnboundedSender<Errand>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let (mut decisions, errands) = part(&mut batch);
            for errand in errands {
                // The clerk ends only after this task does.
                drop(self.errands.send(errand));
            }
            if !decisions.is_empty() {
                let committed = self.decide(&mut decisions).await;
                answer_all(decisions, &committed);
            }
        }
    }

    async fn decide(&mut self, decisions: &mut [Box<dyn Decision>]) -> Result<(), LedgerError> {
        let keys = keys_of(decisions);
        let mut tries = 1;
        loop {
            let transaction = self.transact(&keys, decisions);
            let ended = match tokio::time::timeout(2 * TIME_LIMIT, transaction).await {
                Ok(ended) => ended,
                Err(_) => Err(Undone { error: Trouble::Silent.into(), again: false }),
            };
            let Err(undone) = ended else { return Ok(()) };
            // Its transaction, if there still is one, must not be gone on with.
            self.connection.give_up();
            if !undone.again || tries == TRIES {
                return Err(undone.error);
            }
            tries += 1;
        }
    }

    async fn transact(&mut self, keys: &Keys, decisions: &mut [Box<dyn Decision>]) -> Result<(), Undone> {
        let was_open = self.connection.is_open();
        let client = self.connection.client().await.map_err(|trouble| Undone { error: trouble.into(), again: false })?;
        // Nothing is changed yet, so that it may be tried again where the connection turns out to be an old one.
        let loaded = rows::load(client, keys, &self.holder).await;
        let loaded = loaded.map_err(|error| Undone { again: was_open || gave_way(&error), error })?;
        if loaded.ledger_id != self.id || !loaded.in_use {
            return Err(Undone { error: LedgerError::Replaced, again: false });
        }
        let Settings { lease, patience, .. } = self.settings;
        let terms = Terms { holder: self.holder.clone(), now: loaded.now, lease, patience, shared: true };
        let mut sheet = Sheet::new(terms, loaded.records);
        decide_all(decisions, &mut sheet).map_err(|error| Undone { error, again: false })?;
        let stored = rows::store_and_commit(client, &sheet).await.map_err(|error| LedgerError::from(Trouble::Failed(error)));
        stored.map_err(|error| Undone { again: gave_way(&error), error })?;
        count_ended(&sheet, &self.metrics);
        Ok(())
    }
}

/// A transaction that came to nothing.
struct Undone {
    error: LedgerError,
    /// It was certainly not committed, and may go well the next time.
    again: bool,
}

/// Whether a transaction was rolled back since another worker's came first: the same id at the same time, or locks the
/// wrong way round.
fn gave_way(error: &LedgerError) -> bool {
    let LedgerError::Postgres(trouble) = error else { return false };
    let Trouble::Failed(error) = &**trouble else { return false };
    error.code().is_some_and(|code| {
        [SqlState::UNIQUE_VIOLATION, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code)
    })
}

/// Sees to everything besides commands, on a connection of its own, so that no command waits for it.
struct Clerk {
    connection: Connection,
    settings: Settings,
    holder: Holder,
}

impl Clerk {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Errand>) {
        while let Some(errand) = queue.recv().await {
            self.run_errand(errand).await;
        }
    }

    /// Who has stopped waiting needs no answer.
    async fn run_errand(&mut self, errand: Errand) {
        let (connection, holder) = (&mut self.connection, self.holder.as_str());
        match errand {
            Errand::Pauses(reply) => drop(reply.send(memory::pauses(connection).await)),
            Errand::KeepPause(pause, reply) => drop(reply.send(memory::keep_pause(connection, &pause).await)),
            Errand::ForgetPause(wechat_id, scope, reply) => {
                drop(reply.send(memory::forget_pause(connection, &wechat_id, scope).await));
            }
            Errand::Token(owner, reply) => drop(reply.send(memory::token(connection, &owner).await)),
            Errand::TokenTurn(fetcher, reply) => {
                drop(reply.send(memory::token_turn(connection, &fetcher, self.settings.lease).await));
            }
            Errand::EndTokenTurn(fetcher, reply) => drop(reply.send(memory::end_token_turn(connection, &fetcher).await)),
            Errand::SaveToken(token, reply) => drop(reply.send(memory::save_fetched_token(connection, &token).await)),
            Errand::Wanted(wechat_id, reply) => drop(reply.send(memory::wanted(connection, &wechat_id).await)),
            Errand::Prune(after, reply) => drop(reply.send(memory::prune(connection, after, self.settings.retention).await)),
            Errand::Probe(reply) => drop(reply.send(memory::probe(connection).await)),
            Errand::Attend(reply) => drop(reply.send(memory::attend(connection, holder).await)),
            Errand::Leave(reply) => drop(reply.send(memory::leave(connection, holder).await)),
            // What is committed is where it belongs.
            Errand::Close(reply) => drop(reply.send(Ok(()))),
        }
    }
}
