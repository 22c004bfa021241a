//! `kf-worker partitions`: show the queues that commands are spread over, and change their number.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Config, Exit};
use crate::broker::{ConnectError, Partitions, QueueState, State};

/// What to do with the partitions.
#[derive(Subcommand)]
pub enum What {
    /// Show how many there are, and what each of them holds.
    #[command(after_help = "Example:\n  kf-worker partitions show --json")]
    Show {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Change their number. No command is lost or overtaken, and producers may go on; what they send meanwhile is parked.
    #[command(after_help = "Example:\n  kf-worker partitions set 4 --wait 2h")]
    Set {
        /// How many queues the commands are spread over from now on.
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1_000))]
        number: u16,
        /// Wait for so long until the old queues are empty and the workers have ended, instead of giving up at once.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
}

/// How often is looked whether the old queues are empty.
const LOOK: Duration = Duration::from_secs(1);

/// Why the number was not changed.
#[derive(Debug, thiserror::Error)]
enum PartitionsError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("somebody else is changing the number, or a worker is taking what was parked by the last change; try again later")]
    Busy,
    #[error(
        "commands that were parked by the last change still wait: start workers with the number that there is now, let them take these, and run this again"
    )]
    StillParked,
    #[error("something is still held")]
    Held,
    #[error("a worker with another number has declared its queues meanwhile: stop it, and run this again")]
    Disturbed,
}

/// Does what is asked and answers the exit code.
pub fn partitions(config: &Config, what: What) -> Exit {
    let ended = super::in_runtime(async {
        let partitions = Partitions::open(&config.broker).await?;
        let done = match what {
            What::Show { json } => partitions.look().await.map(|state| show(&state, json)).map_err(PartitionsError::from),
            What::Set { number, wait } => set(&partitions, number, wait.unwrap_or_default()).await,
        };
        partitions.close().await;
        done
    });
    match ended {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(error)) => {
            super::tell(format_args!("{error}"));
            match error {
                PartitionsError::Connect(error) => Exit::from(&error),
                _ => Exit::Failed,
            }
        }
        Err(exit) => exit,
    }
}

fn show(state: &State, as_json: bool) {
    if as_json {
        super::print(format_args!("{}", as_value(state)));
        return;
    }
    let number = state.number().map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    super::print(format_args!("partitions  {number}"));
    if state.is_parking {
        super::print(format_args!("Commands are parked: the number is being changed. Go on with `kf-worker partitions set NUMBER`."));
    } else if state.parked.is_some() {
        super::print(format_args!("Workers take the parked commands first, then those of the partitions."));
    }
    let all: Vec<&QueueState> = state.queues.iter().chain(&state.parked).chain(&state.deferred).collect();
    for line in table(&all) {
        super::print(line);
    }
}

/// One line for each queue, under a head.
fn table(queues: &[&QueueState]) -> Vec<String> {
    let width = queues.iter().map(|queue| queue.name.len()).max().unwrap_or_default().max("queue".len());
    let head = format!("{:width$}  {:>8}  {:>9}", "queue", "messages", "consumers");
    let line = |queue: &&QueueState| format!("{:width$}  {:>8}  {:>9}", queue.name, queue.messages, queue.consumers);
    std::iter::once(head).chain(queues.iter().map(line)).collect()
}

fn as_value(state: &State) -> Value {
    let queue = |queue: &QueueState| json!({"name": queue.name, "messages": queue.messages, "consumers": queue.consumers});
    json!({
        "partitions": state.number(),
        "parking": state.is_parking,
        "queues": state.queues.iter().map(queue).collect::<Vec<_>>(),
        "parked": state.parked.as_ref().map(queue),
        "deferred": state.deferred.iter().map(queue).collect::<Vec<_>>(),
    })
}

async fn set(partitions: &Partitions, number: u16, patience: Duration) -> Result<(), PartitionsError> {
    let patient_until = Instant::now() + patience;
    while !partitions.own().await? {
        waited(patient_until, PartitionsError::Busy).await?;
    }
    partitions.end_interrupted().await?;
    let state = partitions.look().await?;
    if !state.is_parking {
        if state.number() == Some(number) {
            super::note(format_args!("the number of partitions is {number}"));
            return Ok(());
        }
        if state.parked_wait() {
            return Err(PartitionsError::StillParked);
        }
    }
    partitions.park(number).await?;
    super::note(format_args!("what producers send is parked"));
    until_idle(partitions, number, patient_until).await?;
    partitions.declare(number).await?;
    let state = partitions.look().await?;
    if state.number() != Some(number) {
        return Err(PartitionsError::Disturbed);
    }
    let parked = state.parked.map_or(0, |parked| parked.messages);
    super::note(format_args!("the number of partitions is {number}; {parked} parked commands wait, which workers take first"));
    super::note(format_args!("put amqp.partitions = {number} into the configuration of all workers and start them"));
    Ok(())
}

/// Deletes the old queues as soon as nothing of them is held.
async fn until_idle(partitions: &Partitions, number: u16, patient_until: Instant) -> Result<(), PartitionsError> {
    let mut told = String::new();
    loop {
        let held = partitions.delete_idle().await?;
        if held.is_empty() {
            return Ok(());
        }
        let lines = table(&held.iter().collect::<Vec<_>>());
        if Instant::now() >= patient_until {
            for line in lines {
                super::tell(line);
            }
            super::tell(format_args!(
                "these queues are not free. Let the workers empty them (what is put off comes back by itself), then stop the workers, and run `kf-worker partitions set {number}` again (or with `--wait 2h`). What producers send meanwhile waits safely in the parked queue; \
                 with the number that the workers have now, the same command is the way back"
            ));
            return Err(PartitionsError::Held);
        }
        let held: Vec<_> = held.iter().map(|q| format!("{} ({} messages, {} consumers)", q.name, q.messages, q.consumers)).collect();
        let line = format!("waiting for {}", held.join(", "));
        if line != told {
            super::note(&line);
            told = line;
        }
        tokio::time::sleep(LOOK).await;
        // A worker that was just starting may have routed commands to its queues again.
        partitions.park(number).await?;
    }
}

/// Waits a moment, or answers why the waiting ends.
async fn waited(patient_until: Instant, otherwise: PartitionsError) -> Result<(), PartitionsError> {
    if Instant::now() >= patient_until {
        return Err(otherwise);
    }
    tokio::time::sleep(LOOK / 5).await;
    Ok(())
}
