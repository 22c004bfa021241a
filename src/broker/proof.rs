//! Looks at the broker before a worker runs: whether it can be reached, what is there, and what the user may do. Nothing that
//! exists is changed, and no message is taken or sent to anybody.

use lapin::options::{
    BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeUnbindOptions,
    QueueBindOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection, ExchangeKind};

use super::names::Names;
use super::session::connect;
use super::{ConnectError, Settings, Topology, request, topology, within};
use crate::proof::{Proof, Verdict};

/// Everything that can be told of the broker.
pub async fn prove(settings: &Settings) -> Vec<Proof> {
    let what = "broker";
    let connection = match connect(settings, "kf-worker check").await {
        Ok(connection) => connection,
        Err(error) => return vec![failed(what, &error, "")],
    };
    let look = Look { connection: &connection, settings, names: Names::new(&settings.prefix) };
    let login = format!("logged in at {} as {}, vhost `{}`", settings.url, look.user(), settings.url.0.vhost);
    let mut proofs = vec![Proof::ok(what, login), look.other_workers().await];
    let mut there = There::default();
    look.topology(&mut proofs, &mut there).await;
    match settings.topology {
        Topology::None => proofs.push(Proof::unproven("permissions", "not looked at, since `amqp.topology` is \"none\"")),
        Topology::Declare | Topology::Check => look.permissions(&mut proofs, &there).await,
    }
    // Where closing fails there is nothing left to close.
    let _ = within(connection.close(200, "bye".into())).await;
    proofs
}

struct Look<'a> {
    connection: &'a Connection,
    settings: &'a Settings,
    names: Names,
}

/// What was found to exist.
#[derive(Default)]
struct There {
    commands: bool,
    /// Exchanges that the worker publishes to, or has others publish to.
    targets: Vec<String>,
    /// Queues that it consumes.
    consumed: Vec<String>,
    /// Queues that it binds.
    bound: Vec<String>,
}

impl Look<'_> {
    async fn other_workers(&self) -> Proof {
        let what = "other workers";
        match topology::no_sqlite_owner(self.connection, &self.names).await {
            Err(ConnectError::OwnedByAnother(_)) => {
                Proof::ok(what, "a worker with a SQLite ledger is connected: no other one may run beside it under this prefix")
            }
            _ => Proof::ok(what, "none with a SQLite ledger is connected"),
        }
    }

    /// What is there, and what is not.
    async fn topology(&self, proofs: &mut Vec<Proof>, there: &mut There) {
        let names = &self.names;
        there.commands = self.exchange(proofs, names.commands()).await;
        for exchange in std::iter::once(names.events()).chain(self.settings.defer.iter().map(|(delay, _)| names.deferred(delay))) {
            if self.exchange(proofs, exchange.clone()).await {
                there.targets.push(exchange);
            }
        }
        self.queue(proofs, names.dead()).await;
        for queue in self.settings.defer.iter().map(|(delay, _)| names.deferred(delay)) {
            if self.queue(proofs, queue.clone()).await {
                there.bound.push(queue);
            }
        }
        let told = self.settings.partitions;
        let parking = request::exchange_exists(self.connection, &names.parking()).await.unwrap_or(false);
        match topology::check_number(self.connection, told, names, parking).await {
            Ok(()) => proofs.push(Proof::ok("partitions", format!("no queue says otherwise than {told}"))),
            Err(error) if error.is_forbidden() => proofs.push(unseen("partitions", &error)),
            // The queues of this number would be missing beside those of another.
            Err(error) => return proofs.push(failed("partitions", &error, "")),
        }
        // Only who declares routes commands to it.
        if told > 1 && self.exchange(proofs, names.partitions()).await && self.settings.topology == Topology::Declare {
            there.targets.push(names.partitions());
        }
        for queue in names.command_queues(told) {
            if self.queue(proofs, queue.clone()).await {
                there.consumed.push(queue.clone());
                there.bound.push(queue);
            }
        }
    }

    async fn exchange(&self, proofs: &mut Vec<Proof>, name: String) -> bool {
        let found = request::exchange_exists(self.connection, &name).await;
        self.found(proofs, format!("exchange {name}"), found)
    }

    async fn queue(&self, proofs: &mut Vec<Proof>, name: String) -> bool {
        let found = request::look(self.connection, &name).await.map(|found| found.is_some());
        self.found(proofs, format!("queue {name}"), found)
    }

    fn found(&self, proofs: &mut Vec<Proof>, what: String, found: Result<bool, ConnectError>) -> bool {
        proofs.push(match &found {
            Ok(true) => Proof::ok(what, "is there"),
            Ok(false) if self.settings.topology == Topology::Declare => {
                Proof::new(what, Verdict::Missing, "will be declared by `kf-worker run`")
            }
            Ok(false) => Proof::wrong(
                what,
                "is missing, and `amqp.topology` lets no worker declare it: make it by hand, or set `amqp.topology` to \"declare\"",
            ),
            Err(error) if error.is_forbidden() => unseen(&what, error),
            Err(error) => failed(&what, error, ""),
        });
        matches!(found, Ok(true))
    }

    /// What the user may do, each permission by something that leaves no trace.
    async fn permissions(&self, proofs: &mut Vec<Proof>, there: &There) {
        let (names, mark) = (&self.names, format!("{:016x}", rand::random::<u64>()));
        let queue = names.check(&mark);
        let what = "permission to configure";
        if there.commands && self.settings.topology == Topology::Declare {
            // What exists as it would be declared stays as it is.
            let declared = request::exchange(self.connection, &names.commands(), ExchangeKind::Topic, false).await;
            proofs.push(self.permitted("configure", &format!("exchange `{}`", names.commands()), declared));
        }
        if self.settings.alone {
            // It goes with this connection, and a worker that starts meanwhile waits for longer than that.
            let owned = request::own(self.connection, &names.sqlite_owner()).await;
            proofs.push(self.permitted("configure", &format!("queue `{}`", names.sqlite_owner()), owned.map(drop)));
        }
        let own = request::own(self.connection, &queue).await;
        match &own {
            Ok(_) => proofs.push(Proof::ok(what, format!("an exclusive queue `{queue}` could be declared"))),
            Err(error) if error.is_forbidden() => proofs.push(self.lacks_own(what)),
            Err(error) => proofs.push(failed(what, error, "")),
        }
        if own.is_ok() {
            let sent = self.publish_to_self(&queue).await;
            proofs.push(self.permitted("write", "the default exchange (amq.default)", sent));
        }
        let mut readable = false;
        if own.is_ok() && there.commands {
            let bound = request::bind_queue(self.connection, &queue, &names.commands(), &key(&mark)).await;
            readable = bound.is_ok();
            proofs.push(match bound.as_ref().is_err_and(|error| is_refused(error, &queue)) {
                true => self.lacks_own("permission to read"),
                false => self.permitted("read", &format!("exchange `{}`", names.commands()), bound),
            });
        }
        for exchange in there.targets.iter().filter(|_| readable) {
            let bound = self.exchange_bound_for_a_moment(exchange, &key(&mark)).await;
            proofs.push(self.permitted("write", &format!("exchange `{exchange}`"), bound));
        }
        for queue in there.bound.iter().filter(|_| readable && self.settings.topology == Topology::Declare) {
            let bound = self.queue_bound_for_a_moment(queue, &key(&mark)).await;
            proofs.push(self.permitted("write", &format!("queue `{queue}`"), bound));
        }
        for queue in &there.consumed {
            let asked = self.may_consume(queue).await;
            proofs.push(self.permitted("read", &format!("queue `{queue}`"), asked));
        }
        let rest = if !readable {
            "what could not be asked for want of a queue of our own or of what is missing; whether what is there was declared with the worker's arguments; topic permissions"
        } else {
            "whether what is there was declared with the worker's arguments, and topic permissions: only publishing shows them"
        };
        proofs.push(Proof::unproven("what nobody can prove before", format!("{rest}. `kf-worker run` tells at once")));
    }

    /// Without queues of our own nothing is wrong, and less can be told.
    fn lacks_own(&self, what: &str) -> Proof {
        let check = self.names.check("");
        let user = self.user();
        Proof::unproven(what, format!("to have it proven, grant {user} configure and write on names that begin with `{check}`"))
    }

    fn user(&self) -> String {
        self.settings.url.user().map_or_else(|| "the user whom the certificate names".to_owned(), |user| format!("the user `{user}`"))
    }

    fn permitted(&self, verb: &str, on: &str, proven: Result<(), ConnectError>) -> Proof {
        let what = format!("permission to {verb}");
        match proven {
            Ok(()) => Proof::ok(what, on),
            Err(error) => failed(&what, &error, &self.grant(verb, on)),
        }
    }

    fn grant(&self, verb: &str, on: &str) -> String {
        let (user, vhost) = (self.user(), &self.settings.url.0.vhost);
        format!(". Grant {user} the permission {verb} on {on} in the vhost `{vhost}` (rabbitmqctl set_permissions)")
    }

    /// Sends a message to our own queue, which goes with the connection.
    async fn publish_to_self(&self, queue: &str) -> Result<(), ConnectError> {
        let channel = within(self.connection.create_channel()).await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let sent = async {
            channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), b"", BasicProperties::default()).await?.await
        };
        match within(sent).await? {
            Confirmation::Ack(_) => Ok(()),
            Confirmation::Nack(_) | Confirmation::NotRequested => {
                Err(ConnectError::Unreachable("the broker did not confirm a message".to_owned()))
            }
        }
    }

    /// Binds an exchange to that of the commands by a key that nobody publishes with, and takes that back at once: who may do
    /// that may write to it.
    async fn exchange_bound_for_a_moment(&self, exchange: &str, key: &str) -> Result<(), ConnectError> {
        let channel = within(self.connection.create_channel()).await?;
        let source = self.names.commands();
        let (target, source) = (exchange, source.as_str());
        let options = ExchangeBindOptions::default();
        within(channel.exchange_bind(target.into(), source.into(), key.into(), options, FieldTable::default())).await?;
        let options = ExchangeUnbindOptions::default();
        within(channel.exchange_unbind(target.into(), source.into(), key.into(), options, FieldTable::default())).await
    }

    /// The same for a queue, which the worker binds whenever it starts.
    async fn queue_bound_for_a_moment(&self, queue: &str, key: &str) -> Result<(), ConnectError> {
        let channel = within(self.connection.create_channel()).await?;
        let source = self.names.commands();
        let source = source.as_str();
        within(channel.queue_bind(queue.into(), source.into(), key.into(), QueueBindOptions::default(), FieldTable::default())).await?;
        within(channel.queue_unbind(queue.into(), source.into(), key.into(), FieldTable::default())).await
    }

    /// Asks for a message where only a consumer is given any: RabbitMQ looks at the permission first. Were the queue made
    /// otherwise, what came would go back.
    async fn may_consume(&self, queue: &str) -> Result<(), ConnectError> {
        let channel = within(self.connection.create_channel()).await?;
        match within(channel.basic_get(queue.into(), BasicGetOptions::default())).await {
            Ok(got) => {
                if let Some(got) = got {
                    within(got.delivery.acker.nack(BasicNackOptions { requeue: true, ..Default::default() })).await?;
                }
                Ok(())
            }
            Err(error) if error.is_locked() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether it was this that the user was refused. Of what takes part in a binding the broker names the refused one in its text
/// alone.
fn is_refused(error: &ConnectError, name: &str) -> bool {
    match error {
        ConnectError::Client(said) | ConnectError::Refused { error: said, .. } => error.is_forbidden() && said.to_string().contains(name),
        _ => false,
    }
}

/// A routing key that no command has.
fn key(mark: &str) -> String {
    format!("kf-worker-check-{mark}")
}

fn unseen(what: &str, error: &ConnectError) -> Proof {
    Proof::unproven(what, format!("the user may not look at it: {error}"))
}

fn failed(what: &str, error: &ConnectError, advice: &str) -> Proof {
    let verdict = if matches!(error, ConnectError::Unreachable(_)) { Verdict::Unreachable } else { Verdict::Wrong };
    let detail = match error {
        // Here it is said more closely what to grant.
        ConnectError::Client(said) | ConnectError::Refused { error: said, .. } if error.is_forbidden() => format!("{said}{advice}"),
        _ => error.to_string(),
    };
    Proof::new(what, verdict, detail)
}
