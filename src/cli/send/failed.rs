//! The file of what did not succeed: in the format that the commands came in, with why, so that it can be mended and sent.

use std::path::Path;

use serde::Serialize;

use super::batch::{COLUMNS, Format, NOTES};
use super::order::{Fields, Order};
use super::progress::Progress;
use crate::cli::outcomes::harmless;
use crate::outcome::Status;

/// A command that did not succeed.
#[derive(Serialize)]
struct Failed<'a> {
    /// The id under which it was sent.
    sent_as: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    /// It needs another id once it is mended. One without a result keeps its own, since it may yet be carried out.
    command: Fields<'a>,
}

impl<'a> Failed<'a> {
    fn of(order: &'a Order, progress: &'a Progress) -> Option<Self> {
        let (status, reason, detail, id) = match progress {
            Progress::Answered(answer) if answer.status() == Some(Status::Succeeded) => return None,
            Progress::Answered(answer) => {
                let error = answer.told.error.as_ref();
                let (reason, detail) = error.map_or(("", ""), |error| (&error.reason, &error.detail));
                (answer.told.status.as_str(), reason, detail, None)
            }
            Progress::Unsent => ("not_sent", "", "", Some(order.command_id())),
            Progress::Sent => ("no_result_yet", "", "", Some(order.command_id())),
        };
        Some(Self { sent_as: order.command_id(), status, reason, detail, command: order.fields(id) })
    }
}

/// Writes them. Answers how many there are.
///
/// # Errors
/// Where the file can't be written.
pub fn write(path: &Path, format: Format, orders: &[Order], progress: &[Progress]) -> std::io::Result<usize> {
    let (text, count) = written(format, orders, progress)?;
    std::fs::write(path, text)?;
    Ok(count)
}

/// The file's content, and how many there are.
pub fn written(format: Format, orders: &[Order], progress: &[Progress]) -> std::io::Result<(Vec<u8>, usize)> {
    let failed: Vec<Failed> = orders.iter().zip(progress).filter_map(|(order, progress)| Failed::of(order, progress)).collect();
    let text = match format {
        Format::Csv => as_csv(&failed)?,
        Format::JsonLines => as_json_lines(&failed)?,
    };
    Ok((text, failed.len()))
}

fn as_csv(failed: &[Failed<'_>]) -> std::io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS.iter().chain(&NOTES))?;
    for Failed { sent_as, status, reason, detail, command } in failed {
        let revision = command.revision.map(|revision| revision.to_string()).unwrap_or_default();
        let (nickname, command_id) = (command.nickname.unwrap_or_default(), command.command_id.unwrap_or_default());
        // What is read back stays as it is; the notes are for people, and hold words of others.
        let own = [command.action, command.kf_account, nickname, command_id, &revision].map(str::to_owned);
        writer.write_record(own.into_iter().chain([sent_as, status, reason, detail].map(|note| harmless(note))))?;
    }
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

fn as_json_lines(failed: &[Failed<'_>]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for failed in failed {
        serde_json::to_writer(&mut text, failed)?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_of_a_command_is_no_formula_and_the_command_stays_as_it_was_given() {
        let command = Fields { command_id: None, action: "add", kf_account: "a@test", nickname: Some("=1+1"), revision: None, meta: None };
        let failed = Failed { sent_as: "-c1", status: "+1", reason: "@SUM(A1)", detail: "=HYPERLINK(\"http://evil.example\")", command };
        let text = String::from_utf8(as_csv(&[failed]).unwrap()).unwrap();
        let row = text.lines().nth(1).unwrap();
        assert_eq!(row, r#"add,a@test,=1+1,,,'-c1,'+1,'@SUM(A1),"'=HYPERLINK(""http://evil.example"")""#);
    }
}
