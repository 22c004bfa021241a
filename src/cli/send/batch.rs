//! Commands from a file, CSV or a JSON object a line: read and checked as a whole, so that nothing is sent of a file with a fault.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::order::{Fields, Order};
use crate::command::clip;

/// So many faults are told; a file of the wrong kind has one in each line.
const MOST_FAULTS: usize = 20;
/// The columns, of which the last two may be missing.
pub const COLUMNS: [&str; 5] = ["action", "kf_account", "nickname", "command_id", "revision"];
const REQUIRED: usize = 3;
/// What a file of failed commands holds besides: it can be mended and sent again as it is.
pub const NOTES: [&str; 4] = ["sent_as", "status", "reason", "detail"];

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Csv,
    JsonLines,
}

impl Format {
    /// The format of a file, by the end of its name.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// Why a file is not sent.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("{path} can't be read: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{0}")]
    Faults(Faults),
    #[error("{} holds no command", .0.display())]
    Empty(PathBuf),
}

/// Every fault of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults {
    path: PathBuf,
    /// Each with its line.
    pub faults: Vec<(u64, String)>,
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, count) = (self.path.display(), self.faults.len());
        write!(formatter, "nothing was sent: {path} has {count} {}:", if count == 1 { "fault" } else { "faults" })?;
        for (line, what) in self.faults.iter().take(MOST_FAULTS) {
            write!(formatter, "\n  {path}:{line}: {what}")?;
        }
        match count.saturating_sub(MOST_FAULTS) {
            0 => Ok(()),
            more => write!(formatter, "\n  and {more} more"),
        }
    }
}

/// The commands of a file, in its order. Those without an id are given one of the batch's name and their row: the same each
/// time, so that a file that is sent again doubles nothing. Without a name it is the fingerprint of the file.
///
/// # Errors
/// Every fault of the file.
pub fn read(path: &Path, format: Format, batch: Option<&str>) -> Result<Vec<Order>, BatchError> {
    let bytes = std::fs::read(path).map_err(|error| BatchError::Unreadable { path: path.to_owned(), error })?;
    read_bytes(path, &bytes, format, batch)
}

/// The same of a file that holds this.
pub fn read_bytes(path: &Path, bytes: &[u8], format: Format, batch: Option<&str>) -> Result<Vec<Order>, BatchError> {
    let batch = batch.map_or_else(|| fingerprint(bytes), str::to_owned);
    let (mut orders, mut faults) = (Vec::new(), Vec::new());
    let rows = match format {
        Format::Csv => csv_rows(bytes, &batch),
        Format::JsonLines => json_rows(bytes, &batch),
    };
    for (line, order) in rows {
        match order {
            Ok(order) => orders.push(order),
            Err(what) => faults.push((line, what)),
        }
    }
    faults.extend(repeated_ids(&orders));
    faults.sort_by_key(|(line, _)| *line);
    match (faults.is_empty(), orders.is_empty()) {
        (false, _) => Err(BatchError::Faults(Faults { path: path.to_owned(), faults })),
        (true, true) => Err(BatchError::Empty(path.to_owned())),
        (true, false) => Ok(orders),
    }
}

/// A row of a file with its line: a command, or what is wrong with it.
type Row = (u64, Result<Order, String>);

/// Half of a SHA-256 in hexadecimal.
fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn repeated_ids(orders: &[Order]) -> Vec<(u64, String)> {
    let mut first_lines = HashMap::new();
    let mut faults = Vec::new();
    for order in orders {
        let line = order.line.unwrap_or_default();
        if let Some(first) = first_lines.insert(order.command_id(), line) {
            faults.push((line, format!("The command id `{}` stands in line {first} already.", order.command_id())));
        }
    }
    faults
}

fn csv_rows(bytes: &[u8], batch: &str) -> Vec<Row> {
    // Spreadsheets write a mark at the head by which they know UTF-8.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let columns = match reader.headers().map_err(in_words).and_then(Columns::read) {
        Ok(columns) => columns,
        Err(what) => return vec![(1, Err(what))],
    };
    let (mut rows, mut lines) = (Vec::new(), LineCount { bytes, counted: 0, line: 1 });
    for (record, row) in reader.records().zip(1u64..) {
        let position = match &record {
            Ok(record) => record.position(),
            Err(error) => error.position(),
        };
        let line = position.map_or(row + 1, |position| lines.of_row_from(position.byte()));
        let order = record.map_err(in_words).and_then(|record| columns.order(&record, line, &format!("{batch}/{row}")));
        rows.push((line, order));
    }
    rows
}

/// Counts lines as people see them. The reader's own count leaves out the second half of a line's end, and empty lines.
struct LineCount<'a> {
    bytes: &'a [u8],
    /// Up to here they are counted.
    counted: usize,
    line: u64,
}

impl LineCount<'_> {
    /// The line of the row that begins there, behind ends of lines. Rows are asked for in their order.
    fn of_row_from(&mut self, offset: u64) -> u64 {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).clamp(self.counted, self.bytes.len());
        let blank = self.bytes[offset..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let passed = &self.bytes[self.counted..offset + blank];
        self.counted = offset + blank;
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.line
    }
}

/// What the reader says, without the line that is told anyway.
fn in_words(error: csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "It is not UTF-8. Save the file as \"CSV UTF-8\".".to_owned(),
        _ => format!("It is not CSV: {error}."),
    }
}

/// Which column stands where.
struct Columns {
    places: [Option<usize>; COLUMNS.len()],
    width: usize,
}

impl Columns {
    fn read(header: &StringRecord) -> Result<Self, String> {
        let names: Vec<&str> = header.iter().map(str::trim).collect();
        let expected = || format!("The first line must be the header `{}`, of which the last two may be missing", COLUMNS.join(","));
        if let Some(unknown) = names.iter().find(|name| !COLUMNS.contains(name) && !NOTES.contains(name)) {
            return Err(format!("The column `{}` is not known. {}.", clip(unknown), expected()));
        }
        let places = COLUMNS.map(|column| names.iter().position(|name| *name == column));
        if let Some(missing) = COLUMNS.iter().zip(places).take(REQUIRED).find_map(|(column, place)| place.is_none().then_some(column)) {
            return Err(format!("The column `{missing}` is missing. {}.", expected()));
        }
        if let Some(twice) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
            return Err(format!("The column `{twice}` stands twice."));
        }
        Ok(Self { places, width: names.len() })
    }

    fn order(&self, record: &StringRecord, line: u64, made_id: &str) -> Result<Order, String> {
        if record.len() != self.width {
            return Err(format!("It has {} columns where the header has {}.", record.len(), self.width));
        }
        let [action, kf_account, nickname, command_id, revision] =
            self.places.map(|place| place.and_then(|place| record.get(place)).filter(|cell| !cell.is_empty()));
        let revision = match revision.map(|text| text.trim().parse::<i64>()) {
            None => None,
            Some(Ok(revision)) => Some(revision),
            Some(Err(_)) => return Err("`revision` is not a whole number from 0 to 9223372036854775807.".to_owned()),
        };
        let fields = Fields {
            command_id,
            action: action.unwrap_or_default().trim(),
            kf_account: kf_account.unwrap_or_default().trim(),
            nickname,
            revision,
            meta: None,
        };
        Order::of(&fields, Some(line), || made_id.to_owned())
    }
}

/// A line of a file of failed commands holds the command beside the notes.
#[derive(Deserialize)]
struct Noted<'a> {
    #[serde(borrow)]
    command: Option<&'a RawValue>,
    sent_as: Option<serde::de::IgnoredAny>,
}

fn json_rows(bytes: &[u8], batch: &str) -> Vec<Row> {
    let lines = bytes.split(|byte| *byte == b'\n').zip(1u64..);
    let filled = lines.filter(|(line, _)| !line.trim_ascii().is_empty());
    let rows = filled.zip(1u64..).map(|((text, line), row)| {
        let noted = serde_json::from_slice::<Noted>(text).ok().filter(|noted| noted.sent_as.is_some());
        let body = noted.and_then(|noted| noted.command).map_or(text.trim_ascii(), |command| command.get().as_bytes());
        (line, Order::read(body.to_vec(), Some(line), || format!("{batch}/{row}")))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a file with this content.
    fn read_text(name: &str, text: &[u8], batch: Option<&str>) -> Result<Vec<Order>, BatchError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path, Format::of(&path).unwrap(), batch)
    }

    /// The lines that have a fault, and what is said of them.
    fn faults(name: &str, text: &[u8]) -> Vec<(u64, String)> {
        match read_text(name, text, None) {
            Err(BatchError::Faults(faults)) => faults.faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ids_of_rows_without_one_are_the_same_each_time_and_others_for_another_file() {
        let text =
            "action,kf_account,nickname,command_id,revision\nadd,anna@test,安娜,,\ndelete,bob@test,,leave-7,3\nadd,cleo@test,克莱,,\n";
        let orders = read_text("hires.csv", text.as_bytes(), None).unwrap();
        let ids: Vec<&str> = orders.iter().map(|order| order.command_id()).collect();
        assert!(ids[0].ends_with("/1") && ids[1] == "leave-7" && ids[2].ends_with("/3"), "{ids:?}");
        assert_eq!(read_text("other-name.csv", text.as_bytes(), None).unwrap()[0].command_id(), ids[0]);
        let another = text.replace("安娜", "安妮");
        assert_ne!(read_text("hires.csv", another.as_bytes(), None).unwrap()[0].command_id(), ids[0]);
        let named = read_text("hires.csv", text.as_bytes(), Some("2026-03")).unwrap();
        assert_eq!((named[0].command_id(), named[2].line), ("2026-03/1", Some(4)));
        let body = String::from_utf8(orders[1].body.clone()).unwrap();
        assert_eq!(body, r#"{"command_id":"leave-7","action":"delete","kf_account":"bob@test","revision":3}"#);
    }

    #[test]
    fn what_spreadsheets_write_is_read() {
        let text = "\u{feff}kf_account,action,nickname\r\nanna@test,add,\"安娜, 客服\"\r\n\r\nbob@test,delete,\r\n";
        let orders = read_text("hires.CSV", text.as_bytes(), Some("b")).unwrap();
        let lines: Vec<_> = orders.iter().map(|order| (order.line, order.command_id())).collect();
        assert_eq!(lines, [(Some(2), "b/1"), (Some(4), "b/2")]);
    }

    #[test]
    fn every_fault_of_a_table_is_told_with_its_line() {
        let text = b"action,kf_account,nickname,command_id,revision\n\
            add,anna@test,,c1,\nremove,bob@test,,c2,\ndelete,bob@test,Bob,c3,\ndelete,bob@test,,c4,third\ndelete,bob@test,,c5,-1\n\
            delete,bob@test,,c6,1,2\nadd,anna,\xb0\xb2\xc4\xc8,c7,\ndelete,bob@test,,same,\ndelete,bob@test,,same,\n";
        let told = faults("hires.csv", text);
        let lines: Vec<u64> = told.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 10], "{told:?}");
        for (fault, word) in told.iter().zip(["nickname", "action", "nickname", "revision", "revision", "columns", "UTF-8", "line 9"]) {
            assert!(fault.1.contains(word), "{word}: {fault:?}");
        }
    }

    #[test]
    fn a_table_with_another_header_is_refused_by_its_first_line() {
        for (header, word) in [
            ("action,kf_account", "`nickname` is missing"),
            ("action;kf_account;nickname", "`action;kf_account;nickname` is not known"),
            ("action,kf_account,nickname,action", "`action` stands twice"),
            ("add,anna@test,Anna", "`add` is not known"),
        ] {
            let told = faults("hires.csv", format!("{header}\nadd,anna@test,Anna\n").as_bytes());
            assert!(told.len() == 1 && told[0].0 == 1 && told[0].1.contains(word), "{told:?}");
        }
        let of_another_kind = faults("hires.csv", "客\u{1b}".repeat(10_000).as_bytes());
        assert!(of_another_kind[0].1.len() < 400, "{of_another_kind:?}");
    }

    #[test]
    fn json_lines_keep_their_spelling_and_are_told_by_line() {
        let text = "{\"action\":\"delete\", \"kf_account\":\"bob@test\"}\n\n{\"action\":\"add\",\"kf_account\":\"anna@test\",\"nickname\":\"Anna\",\"command_id\":\"c\"}\n";
        let orders = read_text("leavers.jsonl", text.as_bytes(), Some("b")).unwrap();
        assert_eq!((orders[0].command_id(), orders[1].command_id(), orders[1].line), ("b/1", "c", Some(3)));
        assert_eq!(orders[0].body, br#"{"action":"delete", "kf_account":"bob@test"}"#);
        let told = faults("leavers.jsonl", b"{}\nnonsense\n[]\n{\"action\":\"delete\",\"kf_account\":\"bob@test\",\"extra\":1}\n");
        let lines: Vec<u64> = told.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 4], "{told:?}");
    }

    #[test]
    fn an_empty_file_is_told() {
        assert!(matches!(read_text("a.jsonl", b"\n", None), Err(BatchError::Empty(_))));
        assert!(matches!(read_text("a.csv", b"action,kf_account,nickname\n", None), Err(BatchError::Empty(_))));
        assert!(!faults("a.csv", b"").is_empty());
    }
}
