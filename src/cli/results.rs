//! `kf-worker results`: the audit trail, read from the ledger beside the running worker.

use std::io::StdoutLock;
use std::num::NonZeroUsize;

use clap::Args;
use jiff::Timestamp;

use super::outcomes::{Filter, Lines, harmless};
use super::when::when;
use super::{Configuration, Exit};
use crate::event::{Told, on_one_line};
use crate::ledger::{Finished, LedgerError, OpenError, Place, Reader, Sought, Stretch};

/// Which outcomes are shown, and how.
#[derive(Args)]
pub struct Results {
    #[command(flatten)]
    filter: Filter,
    /// Only those that were reached from then on: a time (2026-01-31T08:00:00Z), a date (from its first moment on, UTC), or a span
    /// back from now (2h, 7d). All that the ledger keeps where it is left out.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<Timestamp>,
    /// Only those that were reached before then, likewise.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<Timestamp>,
    /// Only the so many newest of them, still the oldest first.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// One line of JSON for each: the data of its result event.
    #[arg(long)]
    json: bool,
    /// As CSV with a header, for spreadsheets. `meta` is the producer's own and stands in --json alone.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker results --since 24h                          # what was done since yesterday
  kf-worker results --account anna@test                  # the story of one account
  kf-worker results --account '*@test' --status failed   # what failed at one Official Account
  kf-worker results --since 2026-01-01 --until 2026-02-01 --csv > january.csv
  kf-worker results --limit 20                           # the latest 20

The ledger keeps outcomes for `ledger.retention`. Nothing found is no error: exit code 0, and stderr says so.";

/// The columns of the CSV.
const COLUMNS: [&str; 13] = [
    "finished_at",
    "received_at",
    "command_id",
    "action",
    "kf_account",
    "nickname",
    "revision",
    "status",
    "effect",
    "reason",
    "errcode",
    "attempts",
    "detail",
];

/// Why the trail could not be shown to its end.
#[derive(Debug, thiserror::Error)]
enum ResultsError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Shows what is asked for.
///
/// # Errors
/// Where the configuration has faults; they have been told.
pub fn results(configuration: &Configuration, asked: &Results) -> Result<Exit, Exit> {
    if let (Some(since), Some(until)) = (asked.since, asked.until)
        && since >= until
    {
        super::tell(format_args!("--since {since} is not before --until {until}: nothing lies between them"));
        return Err(Exit::Usage);
    }
    let place = configuration.ledger()?;
    let error = match super::in_runtime(show(&place, asked))? {
        Ok(0) => {
            super::note("no outcome in the ledger is one of these");
            return Ok(Exit::Done);
        }
        Ok(_) => return Ok(Exit::Done),
        Err(error) => error,
    };
    super::tell(&error);
    Ok(match error {
        ResultsError::Open(error) => Exit::from(&error),
        ResultsError::Ledger(error) => Exit::from(&error),
    })
}

/// Reads part after part and shows each; answers how many outcomes there were.
async fn show(place: &Place, asked: &Results) -> Result<usize, ResultsError> {
    let reader = Reader::open(place).await?;
    let Filter { account, action, status } = asked.filter.clone();
    let sought = Sought { account, action, status };
    let mut stretch = Stretch::between(asked.since, asked.until);
    if let Some(limit) = asked.limit {
        stretch = reader.newest(limit.get(), &sought, stretch).await?;
    }
    let mut shape = Shape::of(asked);
    let (mut count, mut rest) = (0, Some(stretch));
    while let Some(stretch) = rest {
        let (found, behind) = reader.trail(&sought, stretch).await?;
        shape.show(&found);
        (count, rest) = (count + found.len(), behind);
    }
    Ok(count)
}

/// How they are shown.
enum Shape {
    Json,
    Csv(Box<csv::Writer<StdoutLock<'static>>>),
    Table { lines: Lines, begun: bool },
}

impl Shape {
    fn of(asked: &Results) -> Self {
        if asked.json {
            return Self::Json;
        }
        if asked.csv {
            let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
            // Also above nothing: whoever reads it by program finds the columns.
            written(writer.write_record(COLUMNS).map_err(Into::into).and_then(|()| writer.flush()));
            return Self::Csv(Box::new(writer));
        }
        Self::Table { lines: Lines::on_stdout(), begun: false }
    }

    fn show(&mut self, found: &[Finished]) {
        match self {
            Self::Json => found.iter().for_each(|finished| super::print(on_one_line(&finished.conclusion.data))),
            Self::Csv(writer) => {
                let all = found.iter().try_for_each(|finished| writer.write_record(cells(&finished.conclusion.told())));
                written(all.map_err(Into::into).and_then(|()| writer.flush()));
            }
            Self::Table { lines, begun } => {
                let told: Vec<Told> = found.iter().map(|finished| finished.conclusion.told()).collect();
                told.iter().for_each(|told| lines.fit(told));
                if !std::mem::replace(begun, *begun || !told.is_empty()) && !told.is_empty() {
                    super::print(lines.head());
                }
                told.iter().for_each(|told| super::print(lines.line(told)));
            }
        }
    }
}

/// Where nobody reads any more the program ends, as [`super::print`] does.
fn written(written: std::io::Result<()>) {
    if written.is_err() {
        std::process::exit(Exit::Failed as i32);
    }
}

/// One outcome as the cells of its row.
fn cells(told: &Told) -> [String; COLUMNS.len()] {
    let text = |text: Option<&str>| text.map(harmless).unwrap_or_default();
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let error = told.error.as_ref();
    [
        told.finished_at.to_string(),
        told.received_at.to_string(),
        text(Some(&told.command_id)),
        text(told.action.as_deref()),
        text(told.kf_account.as_deref()),
        text(told.nickname.as_deref()),
        number(told.revision),
        text(Some(&told.status)),
        text(told.effect.as_deref()),
        text(error.map(|error| error.reason.as_str())),
        number(error.and_then(|error| error.errcode)),
        told.attempts.to_string(),
        text(error.map(|error| error.detail.as_str())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_a_number_stays_one() {
        let data = r#"{"command_id":"=cmd","nickname":"@nick","status":"failed","error":{"reason":"system_busy","errcode":-1,"detail":"-x"},"attempts":1}"#;
        let cells = cells(&Told::read(data).unwrap());
        assert_eq!((cells[2].as_str(), cells[5].as_str(), cells[12].as_str()), ("'=cmd", "'@nick", "'-x"));
        assert_eq!(cells[10], "-1", "a number stays one");
    }
}
