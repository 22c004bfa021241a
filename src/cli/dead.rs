//! `kf-worker dead`: look at the dead letters, replay them once their cause is mended, or drop them.

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::Exit;
use super::bar::bar;
use super::outcomes::shown;
use crate::broker::{ConnectError, DeadLetter, DeadLetters, PublishError, Settings};
use crate::command::{Decoded, decode};
use crate::outcome::Reason;

/// What to do with dead letters.
#[derive(Subcommand)]
pub enum Dead {
    /// List the dead letters.
    #[command(after_help = "Examples:\n  kf-worker dead list\n  kf-worker dead list --reason unknown_official_account --json")]
    List {
        /// Only those with this reason.
        #[arg(long, value_parser = known_reason)]
        reason: Option<Reason>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter whole: its notes, headers and body.
    #[command(after_help = "Example:\n  kf-worker dead show hire-4711/dead/0")]
    Show {
        id: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Put dead letters back into the commands queue.
    #[command(
        after_help = "Examples:\n  kf-worker dead replay hire-4711/dead/0\n  kf-worker dead replay --reason unknown_official_account --dry-run\n  kf-worker dead replay --all"
    )]
    Replay {
        #[command(flatten)]
        selection: Selection,
        /// All of them.
        #[arg(long, group = "which")]
        all: bool,
        /// Only say which would be replayed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take dead letters out for good.
    #[command(after_help = "Examples:\n  kf-worker dead drop hire-4711/dead/0\n  kf-worker dead drop --reason not_a_json_object")]
    Drop {
        #[command(flatten)]
        selection: Selection,
    },
}

/// Which dead letters are meant.
#[derive(Args)]
#[group(id = "which", required = true, multiple = true)]
pub struct Selection {
    /// Ids, as `dead list` shows them.
    #[arg(group = "which")]
    ids: Vec<String>,
    /// Those with this reason.
    #[arg(long, group = "which", value_parser = known_reason)]
    reason: Option<Reason>,
}

impl Selection {
    fn takes(&self, letter: &DeadLetter) -> bool {
        self.ids.contains(&letter.id) || self.reason.is_some_and(|reason| letter.reason == reason.as_str())
    }
}

fn known_reason(word: &str) -> Result<Reason, String> {
    Reason::from_word(word).ok_or_else(|| "no such reason; `kf-worker dead list` shows those that occur".to_owned())
}

/// Why a subcommand could not end its work.
#[derive(Debug, thiserror::Error)]
enum DeadError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0}; what was not confirmed is still a dead letter")]
    Publish(#[from] PublishError),
    #[error("no dead letter has the id `{0}`")]
    NoSuchId(String),
}

/// Does what is asked and answers the exit code.
pub fn dead(settings: &Settings, what: Dead) -> Exit {
    let ended = super::in_runtime(async {
        let letters = DeadLetters::open(settings).await?;
        let done = carry_out(&letters, what).await;
        letters.close().await;
        done
    });
    match ended {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(error)) => {
            super::tell(format_args!("{error}"));
            match error {
                DeadError::Connect(error) => Exit::from(&error),
                DeadError::Publish(_) | DeadError::NoSuchId(_) => Exit::Failed,
            }
        }
        Err(exit) => exit,
    }
}

async fn carry_out(letters: &DeadLetters, what: Dead) -> Result<(), DeadError> {
    match what {
        Dead::List { reason, json } => list(all(letters).await?, reason, json),
        Dead::Show { id, json } => show(all(letters).await?, &id, json)?,
        Dead::Replay { selection, all: every, dry_run } => {
            let (chosen, total) = choose(letters, |letter| every || selection.takes(letter)).await?;
            missing(&selection, &chosen)?;
            replay(letters, chosen, total, dry_run).await?;
        }
        Dead::Drop { selection } => {
            let (chosen, total) = choose(letters, |letter| selection.takes(letter)).await?;
            missing(&selection, &chosen)?;
            drop_all(letters, chosen, total).await?;
        }
    }
    Ok(())
}

/// Every dead letter. They are held until the connection is closed, so that each is seen once.
async fn all(letters: &DeadLetters) -> Result<Vec<DeadLetter>, DeadError> {
    let mut taken = Vec::new();
    while let Some(letter) = letters.next().await? {
        taken.push(letter);
    }
    Ok(taken)
}

async fn choose(letters: &DeadLetters, takes: impl Fn(&DeadLetter) -> bool) -> Result<(Vec<DeadLetter>, usize), DeadError> {
    let all = all(letters).await?;
    let total = all.len();
    Ok((all.into_iter().filter(takes).collect(), total))
}

fn missing(selection: &Selection, chosen: &[DeadLetter]) -> Result<(), DeadError> {
    match selection.ids.iter().find(|id| !chosen.iter().any(|letter| letter.id == **id)) {
        Some(id) => Err(DeadError::NoSuchId(id.clone())),
        None => Ok(()),
    }
}

fn list(letters: Vec<DeadLetter>, reason: Option<Reason>, as_json: bool) {
    let chosen: Vec<&DeadLetter> = letters.iter().filter(|letter| reason.is_none_or(|reason| letter.reason == reason.as_str())).collect();
    let width = chosen.iter().map(|letter| letter.id.len()).max().unwrap_or_default();
    for letter in &chosen {
        if as_json {
            super::print(format_args!("{}", notes(letter)));
        } else {
            let DeadLetter { id, since, reason, detail, .. } = letter;
            super::print(format_args!("{:width$}  {:30}  {}  {}", shown(id), shown(since), shown(or_dash(reason)), shown(detail)));
        }
    }
    if !as_json {
        super::note(format_args!("{} of {} dead letters", chosen.len(), letters.len()));
    }
}

fn show(letters: Vec<DeadLetter>, id: &str, as_json: bool) -> Result<(), DeadError> {
    let Some(letter) = letters.iter().find(|letter| letter.id == id) else { return Err(DeadError::NoSuchId(id.to_owned())) };
    let body = String::from_utf8_lossy(&letter.message.body);
    if as_json {
        let mut whole = notes(letter);
        whole["headers"] = json!(letter.message.headers);
        whole["body"] = json!(body);
        super::print(format_args!("{whole}"));
        return Ok(());
    }
    let print = |name: &str, text: &str| super::print(format_args!("{name:8} {}", shown(text)));
    print("id", &letter.id);
    print("reason", or_dash(&letter.reason));
    print("since", or_dash(&letter.since));
    print("detail", &letter.detail);
    if let Some(message_id) = &letter.message.message_id {
        print("message_id ", message_id);
    }
    for (name, value) in letter.message.headers.iter().filter(|(name, _)| !name.starts_with("kf-")) {
        print("header", &format!("{name}: {value}"));
    }
    super::print("");
    for line in body.lines() {
        super::print(shown(line));
    }
    Ok(())
}

async fn replay(letters: &DeadLetters, chosen: Vec<DeadLetter>, total: usize, dry_run: bool) -> Result<(), DeadError> {
    let (to_replay, refused): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|letter| kind(letter) != Kind::InVain);
    for letter in &refused {
        super::tell(format_args!(
            "left alone  {}: {} can't be mended by a replay; send a right command under a new id",
            letter.id,
            or_dash(&letter.reason)
        ));
    }
    super::note(format_args!(
        "{} of {total} dead letters {}",
        to_replay.len(),
        if dry_run { "would be replayed:" } else { "are replayed" }
    ));
    let progress = progress(&to_replay, dry_run);
    for letter in to_replay {
        if dry_run {
            super::print(format_args!("{}", letter.id));
            continue;
        }
        let (routing_key, as_replay) = (routing_key(&letter), kind(&letter) == Kind::Failed);
        letters.replay(letter, &routing_key, as_replay).await?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

async fn drop_all(letters: &DeadLetters, chosen: Vec<DeadLetter>, total: usize) -> Result<(), DeadError> {
    super::note(format_args!("{} of {total} dead letters are dropped", chosen.len()));
    let progress = progress(&chosen, false);
    for letter in chosen {
        letters.discard(letter).await?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// What a replay does with a dead letter.
#[derive(PartialEq, Eq)]
enum Kind {
    /// A failed command: its next generation.
    Failed,
    /// A message that no outcome stands for: it comes as if just sent.
    Anew,
    /// It would come to the same end, or to worse: nobody knows what came after it.
    InVain,
}

fn kind(letter: &DeadLetter) -> Kind {
    match Reason::from_word(&letter.reason) {
        Some(reason) if Reason::FAILED.contains(&reason) => Kind::Failed,
        Some(Reason::NotAuthorised) | None => Kind::Anew,
        Some(_) => Kind::InVain,
    }
}

/// The account, by which partitions keep the order; what can't be read has none.
fn routing_key(letter: &DeadLetter) -> String {
    match decode(&letter.message) {
        Decoded::Command(command) => command.account.as_str().to_owned(),
        Decoded::Refused(_) | Decoded::Unreadable(_) => String::new(),
    }
}

fn notes(letter: &DeadLetter) -> serde_json::Value {
    json!({ "id": letter.id, "reason": letter.reason, "detail": letter.detail, "failed_at": letter.since })
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A bar, but none for a few.
fn progress(letters: &[DeadLetter], hidden: bool) -> ProgressBar {
    const WORTH_A_BAR: usize = 50;
    bar("{bar:40} {pos}/{len}  {per_sec}  {eta} left", letters.len(), !hidden && letters.len() >= WORTH_A_BAR)
}
