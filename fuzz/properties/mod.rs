//! What is promised of every input that anybody can send, set or answer: a fuzzer thinks inputs up, and a test repeats those that are
//! kept under `fuzz/corpus`.
//!
//! A property panics where a promise is broken, and answers whether the input was one that it judges at all.

mod answer;
mod batch;
mod choices;
mod commands;
mod config;
mod decode;
mod event;
mod forms;
mod headers;
mod patterns;
mod reading;
mod urls;

/// Holds one input to what is promised.
pub type Property = fn(&[u8]) -> bool;

/// Each by the name of its corpus.
const PROPERTIES: [(&str, Property); 9] = [
    ("answer", answer::holds),
    ("batch", batch::holds),
    ("config", config::holds),
    ("decode", decode::holds),
    ("event", event::holds),
    ("forms", forms::holds),
    ("headers", headers::holds),
    ("patterns", patterns::holds),
    ("urls", urls::holds),
];

/// The property of this name.
pub fn property(name: &str) -> Option<Property> {
    PROPERTIES.into_iter().find(|(own, _)| *own == name).map(|(_, property)| property)
}

/// Stands for every secret, nickname and `meta`: where it appears, something leaks.
const MARK: &str = "hunter2";

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// The test's own output names the input at which it panics.
    struct Held(PathBuf);

    impl Drop for Held {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input is {}", self.0.display());
            }
        }
    }

    #[test]
    fn every_input_that_is_kept_holds_what_is_promised() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut folders: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        folders.sort();
        assert_eq!(folders, PROPERTIES.map(|(name, _)| name), "each property has a corpus, and each corpus a property");
        for (name, holds) in PROPERTIES {
            let inputs = std::fs::read_dir(corpus.join(name)).unwrap().map(|entry| Held(entry.unwrap().path()));
            let judged = inputs.filter(|input| holds(&std::fs::read(&input.0).unwrap())).count();
            assert!(judged > 20, "{name} judges {judged} inputs");
        }
    }
}
