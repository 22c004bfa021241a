//! The rule of order: which unfinished commands of one account give way to newer ones. Pure, shared by every ledger.

use super::Position;
use crate::outcome::Action;

/// An unfinished command of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    pub position: Position,
    pub action: Action,
    pub state: State,
}

/// Where an unfinished command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Accepted, not begun.
    Accepted,
    /// A call is in flight.
    Running,
    /// Between attempts, in process or put off.
    Waiting,
    /// Its worker died during a call.
    Abandoned,
}

/// The commands that are superseded, given all unfinished ones of an account, oldest first.
///
/// As long as the oldest is merely next or in flight, all run in order. Once it waits, or its worker died, the newest
/// delete supersedes everything older, and of the adds after it only the newest stays.
pub fn superseded(unfinished: &[Unfinished]) -> Vec<Position> {
    let stuck = unfinished.first().is_some_and(|oldest| matches!(oldest.state, State::Waiting | State::Abandoned));
    if !stuck {
        return Vec::new();
    }
    let newest_delete = unfinished.iter().rposition(|command| command.action == Action::Delete);
    let newest_add = unfinished.iter().rposition(|command| command.action == Action::Add);
    unfinished
        .iter()
        .enumerate()
        .filter(|(index, command)| {
            let before_delete = newest_delete.is_some_and(|delete| *index < delete);
            let before_add = command.action == Action::Add && newest_add.is_some_and(|add| *index < add);
            (before_delete || before_add) && command.state != State::Running
        })
        .map(|(_, command)| command.position)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `+` add, `-` delete, each with a letter for its state: a(ccepted), r(unning), w(aiting), d(ied).
    fn queue(text: &str) -> Vec<Unfinished> {
        let command = |(index, word): (usize, &str)| {
            let action = if word.starts_with('+') { Action::Add } else { Action::Delete };
            let state = match &word[1..] {
                "a" => State::Accepted,
                "r" => State::Running,
                "w" => State::Waiting,
                "d" => State::Abandoned,
                other => panic!("{other}"),
            };
            Unfinished { position: Position(index as i64), action, state }
        };
        text.split(' ').enumerate().map(command).collect()
    }

    #[test]
    fn the_rule_holds_for_every_pair_of_cases() {
        let cases: &[(&str, &[i64])] = &[
            // Nobody waits: everything runs in order.
            ("+a", &[]),
            ("+r +a", &[]),
            ("+r -a", &[]),
            ("-r +a", &[]),
            ("-r -a", &[]),
            ("+a -a", &[]),
            ("+a +a", &[]),
            ("+r -a +a -a", &[]),
            // The oldest waits.
            ("+w +a", &[0]),
            ("+w -a", &[0]),
            ("-w +a", &[]),
            ("-w -a", &[0]),
            ("+w +a -a", &[0, 1]),
            ("+w -a +a", &[0]),
            ("+w -a +a +a", &[0, 2]),
            ("-w +a +a", &[1]),
            ("-w +a -a", &[0, 1]),
            ("-w +a -a +a", &[0, 1]),
            // Its worker died.
            ("+d -a", &[0]),
            ("+d +a", &[0]),
            ("-d +a", &[]),
            ("-d -a", &[0]),
            // A lost one that comes back late never takes what is in flight with it.
            ("+w +r +a", &[0]),
            ("+w -r", &[0]),
            ("-w +r -a", &[0]),
        ];
        for (text, gone) in cases {
            let gone: Vec<Position> = gone.iter().map(|index| Position(*index)).collect();
            assert_eq!(superseded(&queue(text)), gone, "{text}");
        }
        assert!(superseded(&[]).is_empty());
    }
}
