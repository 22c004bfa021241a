//! The house rules that a compiler doesn't keep: which way the arrows point, where each vendor crate lives, what every file opens with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files that say what things are and import nothing but each other.
const PURE: [&str; 3] = ["command", "outcome", "event"];
/// Rooms that talk to the outside and know nothing of one another.
const EDGES: [&str; 3] = ["wechat", "ledger", "broker"];
/// Who may import the configuration.
const CONFIGURED: [&str; 4] = ["config", "cli", "main", "lib"];
/// Each vendor crate and the one room that knows it; two more speak HTTP: one to a collector alone, one to its own kind.
const VENDORS: [(&str, &[&str]); 16] = [
    ("lapin", &["broker"]),
    ("async_rs", &["broker"]),
    ("reqwest", &["wechat", "traces", "admin"]),
    ("rusqlite", &["ledger"]),
    ("tokio_postgres", &["ledger"]),
    ("tokio_postgres_rustls", &["ledger"]),
    // The program as a whole chooses the provider of cryptography, and a test of it likewise.
    ("rustls", &["tls", "cli", "lib"]),
    ("rustls_native_certs", &["tls"]),
    ("hyper", &["admin"]),
    ("prometheus", &["metrics"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    ("backoff", &["retry"]),
    ("sd_notify", &["systemd"]),
    // Schemas are derived where the types are, and put together in one place.
    ("schemars", &["schema", "command", "outcome", "event"]),
];

/// A source file of the crate.
struct Source {
    path: PathBuf,
    /// The top-level module it belongs to: `ledger` for `src/ledger/sqlite.rs`; `bin/<name>` for a binary.
    room: String,
    text: String,
}

impl Source {
    /// The text without comments, so that prose may name what code may not.
    fn code(&self) -> String {
        let lines = self.text.lines().map(|line| line.find("//").map_or(line, |at| &line[..at]));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The rooms that it names after `crate::` or `kf_worker::`.
    fn imports(&self) -> BTreeSet<String> {
        let code = self.code();
        let after = |root: &str| code.match_indices(root).map(|(at, _)| at + root.len()).collect::<Vec<_>>();
        let places = [after("crate::"), after("kf_worker::")].concat();
        places.into_iter().flat_map(|at| first_names(&code[at..])).collect()
    }

    /// A file of tests only: how a room tests itself is its own affair.
    fn is_test(&self) -> bool {
        self.path.iter().any(|word| word == "tests" || word == "tests.rs")
    }

    /// Whether code here names a crate as the root of a path.
    fn names_crate(&self, name: &str) -> bool {
        let code = self.code();
        code.match_indices(&format!("{name}::")).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
        }) || code.contains(&format!("use {name};"))
    }
}

/// The first names after a path's root: one, or one for each branch of a brace.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(inside) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                names.push(name(&inside[from..at]));
                from = at + 1;
            }
            _ => {}
        }
        if c == '}' && from == at + 1 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let sources = rust_files(&src).into_iter().map(|path| {
        let inside = path.strip_prefix(&src).expect("it is in src").with_extension("");
        let words: Vec<String> = inside.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let room = if words[0] == "bin" { words[..2].join("/") } else { words[0].clone() };
        let text = std::fs::read_to_string(&path).expect("a source file is text");
        Source { path, room, text }
    });
    sources.collect()
}

#[track_caller]
fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_file_opens_with_a_sentence_about_itself() {
    let files = ["src", "tests", "benches", "fuzz/properties"].map(|folder| rust_files(&root().join(folder))).concat();
    let silent = files.into_iter().filter(|path| {
        let text = std::fs::read_to_string(path).expect("a source file is text");
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_none_or(|sentence| !sentence.contains(' '))
    });
    assert_none(silent.map(|path| format!("{} has no `//!` sentence at its head", path.display())).collect());
}

#[test]
fn arrows_point_one_way() {
    let mut faults = Vec::new();
    for source in sources() {
        for import in source.imports() {
            let inner = import == source.room;
            let wrong = if PURE.contains(&source.room.as_str()) {
                !PURE.contains(&import.as_str()) && !inner
            } else if source.room == "simulator" {
                !inner
            } else {
                let both_edges = EDGES.contains(&source.room.as_str()) && EDGES.contains(&import.as_str()) && !inner;
                let config = import == "config" && !CONFIGURED.contains(&source.room.as_str());
                let worker = EDGES.contains(&source.room.as_str()) && import == "worker";
                let simulator = import == "simulator" && !["bin/wechat-simulator", "lib"].contains(&source.room.as_str());
                both_edges || config || worker || simulator
            };
            if wrong {
                faults.push(format!("{} must not import `{import}`", source.path.display()));
            }
        }
        // A way round the rule above.
        if source.code().contains("super::super") {
            faults.push(format!("{} reaches past its parent", source.path.display()));
        }
    }
    assert_none(faults);
}

#[test]
fn each_vendor_crate_lives_in_one_room() {
    let sources = sources();
    for (vendor, rooms) in VENDORS {
        let strangers =
            sources.iter().filter(|source| !rooms.contains(&source.room.as_str()) && !source.is_test() && source.names_crate(vendor));
        assert_none(strangers.map(|source| format!("{} names `{vendor}`", source.path.display())).collect());
        for room in rooms {
            let at_home = sources.iter().any(|source| source.room == *room && source.names_crate(vendor));
            assert!(at_home, "`{vendor}` is used in `{room}`, or this test has lost its way");
        }
    }
}

#[test]
fn the_reader_of_imports_reads_every_form() {
    let text = "//! x\nuse crate::{ledger::{Ledger, page}, outcome::Reason};\nuse crate::event::Event;\n// crate::prose\nfn f() { crate::retry::decide(); }\n";
    let source = Source { path: PathBuf::new(), room: String::new(), text: text.to_owned() };
    let imports: Vec<String> = source.imports().into_iter().collect();
    assert_eq!(imports, ["event", "ledger", "outcome", "retry"]);
    let vendor = |text: &str| Source { path: PathBuf::new(), room: String::new(), text: text.to_owned() }.names_crate("backoff");
    assert!(vendor("use backoff::ExponentialBackoff;") && vendor("let x = (backoff::SystemClock)") && vendor("use backoff;"));
    assert!(!vendor("crate::backoff::x") && !vendor("my_backoff::x") && !vendor("// backoff::x") && !vendor("let backoff = 1;"));
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).expect("the page is there");
    let sources: String = [rust_files(&root().join("src")), rust_files(&root().join("tests"))]
        .concat()
        .into_iter()
        .map(|path| std::fs::read_to_string(path).expect("a source file is text"))
        .collect();
    let of_words =
        |name: &&str| name.matches('_').count() >= 3 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(of_words).collect();
    assert!(named.len() > 20, "the page names its tests, or this test has lost its way");
    assert_none(
        named
            .into_iter()
            .filter(|name| !sources.contains(&format!("fn {name}(")))
            .map(|name| format!("no test is named `{name}`"))
            .collect(),
    );
}
