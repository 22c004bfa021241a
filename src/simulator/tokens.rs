//! The access tokens of one kind of one owner: the current one and the former one that outlives it a little.

use std::time::{Duration, SystemTime};

use super::errcode::{TOKEN_EXPIRED, TOKEN_INVALID};

/// An Official Account's stable tokens, its legacy tokens and those of each third-party platform that acts for it are
/// one of these each, and each kind is good beside the others. A third-party platform's own tokens are one too.
#[derive(Default)]
pub(super) struct Tokens {
    current: Option<Token>,
    former: Option<Token>,
}

/// One token that was handed out.
struct Token {
    text: String,
    expires_at: SystemTime,
    /// Set when another replaced it: from then on it is "not the latest".
    replaced_until: Option<SystemTime>,
}

/// A token as a token call hands it out.
pub(super) struct Handout {
    pub text: String,
    pub expires_in: u64,
}

impl Tokens {
    /// Whether a call with this token may go on; `None` for a token that is not one of these.
    pub fn check(&self, text: &str, now: SystemTime) -> Option<Result<(), i32>> {
        let token = [&self.current, &self.former].into_iter().flatten().find(|token| token.text == text)?;
        Some(if token.replaced_until.is_some_and(|until| until <= now) {
            Err(TOKEN_INVALID)
        } else if token.expires_at <= now {
            Err(TOKEN_EXPIRED)
        } else {
            Ok(())
        })
    }

    /// The current token, unless it is about to expire. WeChat renews a stable token in its last five
    /// minutes; a tenth keeps short lifetimes from being renewed at every call.
    pub fn current(&self, lifetime: Duration, now: SystemTime) -> Option<Handout> {
        let margin = Duration::from_secs(300).min(lifetime / 10);
        self.current.as_ref().filter(|token| token.expires_at > now + margin).map(|token| token.hand_out(now))
    }

    /// A new token; the one before stays good for `overlap`, as long as it does not expire first.
    pub fn renew(&mut self, owner: usize, lifetime: Duration, overlap: Duration, now: SystemTime) -> Handout {
        self.former = self.current.take().map(|mut token| {
            token.replace(now + overlap);
            token
        });
        let token = Token { text: new_text(owner), expires_at: now + lifetime, replaced_until: None };
        let handout = token.hand_out(now);
        self.current = Some(token);
        handout
    }

    /// Ends both tokens now.
    pub fn expire(&mut self, now: SystemTime) {
        for token in [&mut self.current, &mut self.former].into_iter().flatten() {
            token.expires_at = token.expires_at.min(now);
        }
    }

    /// Makes both tokens invalid now, and none of them the current one.
    pub fn revoke(&mut self, now: SystemTime) {
        self.expire(now);
        for token in [&mut self.current, &mut self.former].into_iter().flatten() {
            token.replace(now);
        }
    }
}

impl Token {
    /// From `until` on it is not the latest, if it isn't so already.
    fn replace(&mut self, until: SystemTime) {
        self.replaced_until = Some(self.replaced_until.map_or(until, |earlier| earlier.min(until)));
    }

    fn hand_out(&self, now: SystemTime) -> Handout {
        let left = self.expires_at.duration_since(now).unwrap_or_default();
        Handout { text: self.text.clone(), expires_in: left.as_secs().max(1) }
    }
}

/// WeChat's tokens begin with a number and `_`; here that number says whose token it is, so that no search is needed.
fn new_text(owner: usize) -> String {
    random_text(&format!("{owner}_"))
}

/// A text that nobody guesses, after a beginning that tells what it is.
pub(super) fn random_text(beginning: &str) -> String {
    let random: [u64; 6] = rand::random();
    random.iter().fold(beginning.to_owned(), |text, part| format!("{text}{part:016x}"))
}

/// The index of the Official Account, or for a component token of the third-party platform, that a token was made for.
pub(super) fn owner(text: &str) -> Option<usize> {
    text.split_once('_')?.0.parse().ok()
}
