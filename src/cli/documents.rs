//! Holds what the documents show against the program: commands are parsed, configurations loaded, messages decoded.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use super::Arguments;
use crate::command::{Decoded, Message, decode};
use crate::config;
use crate::event::CONTENT_TYPE;

/// Where words end that are the program's own.
const SHELL_WORDS: [&str; 9] = ["|", "||", "&&", ";", "&", ">", ">>", "<", "#"];

/// A piece of a document: a fenced block, or code within a line.
struct Piece {
    place: String,
    kind: String,
    text: String,
}

fn documents(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
            found.extend(documents(&entry));
        } else if name.ends_with(".md") && name != "CHANGELOG.md" {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// Every fenced block with its kind, and every piece of code in a line as the kind `inline`.
fn pieces() -> Vec<Piece> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pieces = Vec::new();
    for path in documents(root) {
        let (text, name) = (fs::read_to_string(&path).unwrap(), path.strip_prefix(root).unwrap().display().to_string());
        let mut block: Option<Piece> = None;
        for (line, number) in text.lines().zip(1..) {
            match (line.trim_start().strip_prefix("```"), block.take()) {
                (Some(kind), None) => block = Some(Piece { place: format!("{name}:{number}"), kind: kind.to_owned(), text: String::new() }),
                (Some(_), Some(whole)) => pieces.push(whole),
                (None, Some(mut open)) => {
                    open.text += line;
                    open.text += "\n";
                    block = Some(open);
                }
                (None, None) => {
                    let code = line.split('`').skip(1).step_by(2);
                    pieces.extend(code.map(|code| Piece {
                        place: format!("{name}:{number}"),
                        kind: "inline".to_owned(),
                        text: code.to_owned(),
                    }));
                }
            }
        }
        assert!(block.is_none(), "{name} ends within a block");
    }
    pieces
}

/// The arguments of each call of the program in a piece.
fn calls(piece: &Piece) -> Vec<Vec<String>> {
    let joined = piece.text.replace("\\\n", " ");
    let mut calls = Vec::new();
    for line in joined.lines() {
        // Lines that a shell would read on, as here documents, are no calls of ours.
        let Some(words) = shlex::split(line) else { continue };
        let is_program = |word: &String| word == "kf-worker" || word.ends_with("/kf-worker") || word == "kf-workerctl";
        // Behind another program it is a name: of a unit, an image, a file.
        let Some(at) =
            words.iter().position(|word| !word.contains('=') && word != "sudo" && word != "$").filter(|at| is_program(&words[*at]))
        else {
            continue;
        };
        let ours = words[at + 1..].iter().take_while(|word| !SHELL_WORDS.contains(&word.as_str()) && !word.starts_with("2>"));
        calls.push(ours.map(|word| word.trim_end_matches(';').to_owned()).collect());
    }
    calls
}

#[test]
fn every_command_line_in_the_documents_is_one_that_the_program_takes() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for piece in pieces().iter().filter(|piece| ["sh", "bash", "console", "inline"].contains(&piece.kind.as_str())) {
        for call in calls(piece) {
            // In running text a name stands for a value, and the name of the program alone for the program.
            let is_pattern = |word: &String| word.contains(['…', '[', '|', '<']);
            if piece.kind == "inline" && (call.is_empty() || call.iter().any(is_pattern)) {
                continue;
            }
            // It may also name no more than what is talked about.
            let is_unfinished = |kind: ErrorKind| {
                use ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingRequiredArgument, MissingSubcommand};
                piece.kind == "inline"
                    && matches!(kind, MissingRequiredArgument | MissingSubcommand | DisplayHelpOnMissingArgumentOrSubcommand)
            };
            let values = call.iter().map(|word| if ["N", "NUMBER"].contains(&word.as_str()) { "3" } else { word });
            count += 1;
            match Arguments::try_parse_from(std::iter::once("kf-worker").chain(values)) {
                Err(error)
                    if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) && !is_unfinished(error.kind()) =>
                {
                    faults.push(format!("{}: {call:?}: {}", piece.place, error.to_string().lines().next().unwrap_or_default()));
                }
                _ => {}
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(count > 100, "the documents show commands, or this test has lost its way: {count}");
}

#[test]
fn every_block_for_a_shell_is_one_that_a_shell_reads() {
    for piece in pieces().into_iter().filter(|piece| piece.kind == "sh" || piece.kind == "bash") {
        let read = std::process::Command::new("bash").args(["-n", "-c", &piece.text]).output().unwrap();
        assert!(read.status.success(), "{}: {}", piece.place, String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn every_example_in_the_help_is_one_that_the_program_takes() {
    fn texts(command: &clap::Command) -> Vec<String> {
        let own = command.get_after_help().map(ToString::to_string);
        own.into_iter().chain(command.get_subcommands().flat_map(texts)).collect()
    }
    let mut count = 0;
    for text in texts(&Arguments::command()) {
        let examples = text.lines().filter(|line| line.starts_with("  kf-worker")).collect::<Vec<_>>().join("\n");
        for call in calls(&Piece { place: String::new(), kind: "sh".to_owned(), text: examples }) {
            let parsed = Arguments::try_parse_from(std::iter::once("kf-worker").chain(call.iter().map(String::as_str)));
            assert!(parsed.is_ok(), "{call:?}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn every_configuration_in_the_documents_is_taken() {
    let (mut faults, mut count) = (Vec::new(), 0);
    let folder = tempfile::tempdir().unwrap();
    for piece in pieces().into_iter().filter(|piece| piece.kind == "toml") {
        let mut text = piece.text;
        if !text.contains("[[official_account]]") {
            text += "\n[[official_account]]\nwechat_id = \"test\"\napp_id = \"wx0123456789abcdef\"\napp_secret = \"change-me\"\n";
        }
        let path = folder.path().join("kf-worker.toml");
        fs::write(&path, text).unwrap();
        count += 1;
        if let Err(found) = config::load(Some(&path), std::iter::empty()) {
            // Files that a document names are on the machines of those who read it.
            let real = found.0.into_iter().filter(|fault| !fault.what.contains("can't be read"));
            faults.extend(real.map(|fault| format!("{}: {}: {}", piece.place, fault.key, fault.what)));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(count > 5, "the documents show configurations, or this test has lost its way: {count}");
}

#[test]
fn every_message_in_the_documents_is_one_of_the_contract() {
    let schema = serde_json::from_str(include_str!("../../docs/schemas/result.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let (mut commands, mut results) = (0, 0);
    for piece in pieces().into_iter().filter(|piece| ["json", "jsonl"].contains(&piece.kind.as_str())) {
        let messages: Vec<&str> = if piece.kind == "jsonl" { piece.text.lines().collect() } else { vec![piece.text.as_str()] };
        for text in messages {
            let value: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", piece.place));
            if value["data"].get("status").is_some() {
                let faults: Vec<String> = schema.iter_errors(&value).map(|fault| fault.to_string()).collect();
                assert!(faults.is_empty(), "{}: {faults:?}", piece.place);
                results += 1;
            } else if value.get("action").is_some() || value.get("specversion").is_some() {
                let content_type = value.get("specversion").map(|_| CONTENT_TYPE.to_owned());
                let decoded = decode(&Message { body: text.as_bytes().to_vec(), content_type, ..Message::default() });
                assert!(matches!(decoded, Decoded::Command(_)), "{}: {decoded:?}", piece.place);
                commands += 1;
            }
        }
    }
    assert!(commands > 3 && results > 1, "the documents show messages, or this test has lost its way: {commands}, {results}");
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for path in documents(root) {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains("://");
            if is_local && !path.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", path.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
