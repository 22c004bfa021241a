//! Looks up what an operation names, by what is there when its turn comes.

use super::*;

impl Play<'_> {
    /// Looks up all names; nothing where there is none of that name.
    pub(super) fn question(&mut self, worker: usize, ask: &Ask) -> Option<Question> {
        let claims = |account: usize, place: Option<usize>| {
            let of = move |claim: &&Claimed| claim.worker == worker && claim.account == account && claim.place == place;
            self.claims.iter().filter(of).map(|claim| claim.count)
        };
        let claim = |place: usize, with: With| {
            let account = self.model.commands.get(&place)?.sent.account;
            match with {
                With::Nothing => None,
                With::Latest => claims(account, Some(place)).next_back(),
                With::First => claims(account, Some(place)).next(),
            }
        };
        Some(match *ask {
            Ask::Accept(ref arriving) => {
                Question::Accept(arriving.iter().filter_map(|arriving| self.arrive(*arriving)).collect(), self.now)
            }
            Ask::Begin { which, alone } => {
                let place = self.find(which)?;
                // Nobody has the message of one that is not seen.
                if self.model.commands.get(&place).is_some_and(|command| !command.seen) {
                    return None;
                }
                Question::Begin { place, alone }
            }
            Ask::Wait { which, with, reason, lost, called } => {
                let place = self.find(which)?;
                Question::Wait { place, claim: claim(place, with), reason, lost, called }
            }
            Ask::Finish { which, with, how } => {
                let place = self.find(which)?;
                let (status, reason) = match how {
                    How::Succeeded => (Status::Succeeded, None),
                    How::Failed => (Status::Failed, Some(Reason::NicknameRefused)),
                    How::Superseded => (Status::Superseded, Some(Reason::NewerCommand)),
                    How::Rejected => (Status::Rejected, Some(Reason::NicknameRefused)),
                };
                Question::Finish { place, claim: claim(place, with), status, reason }
            }
            Ask::Check(which) => Question::Check(self.find(which)?),
            Ask::Obstacle(which) => Question::Obstacle(self.find(which)?),
            Ask::Panicked(which) => Question::Panicked(self.find(which)?),
            Ask::DeadLettered(which) => {
                // Only what is owed is paid.
                let place = self.find(which)?;
                self.model.commands.get(&place)?.outcome?.owed?;
                Question::DeadLettered(place)
            }
            Ask::CleanUp(account) => Question::CleanUp(account),
            Ask::EndCleanUp(account) => Question::EndCleanUp(account, claims(account, None).next_back()?),
        })
    }

    pub(super) fn find(&self, which: Which) -> Option<usize> {
        match which {
            Which::Oldest(account) => self.model.unfinished(account).next().map(|command| command.place),
            Which::Running(account) => self.model.running(account).first().copied(),
            // Those that were forgotten too: a worker may still have one in hand.
            Which::Any(nth) => {
                let place = self.positions.len().checked_sub(1 + nth % self.positions.len().max(1))?;
                let refused = self.model.commands.get(&place).is_some_and(|command| command.sent.refused.is_some());
                (!refused).then_some(place)
            }
        }
    }

    pub(super) fn is_unfinished(&self, place: usize) -> bool {
        self.model.commands.get(&place).is_some_and(|command| command.stand != Stand::Finished)
    }

    pub(super) fn arrive(&mut self, arriving: Arriving) -> Option<(Sent, Origin)> {
        let earlier = |nth: usize| self.messages.len().checked_sub(1 + nth % self.messages.len().max(1)).map(|index| self.messages[index]);
        let id = self.messages.len();
        match arriving {
            Arriving::New { account, action, revision, ago } => {
                let sent = Sent { id, action, account, revision, at: ago.map(|ago| self.now - ago), refused: None };
                self.messages.push(sent);
                Some((sent, Origin::Producer))
            }
            Arriving::Broken => {
                let sent = Sent { id, action: Action::Add, account: 0, revision: None, at: None, refused: None };
                let Arrived::Refused(refused) = arrived(&Message { body: broken(id).into_bytes(), ..Message::default() }) else { panic!() };
                self.messages.push(Sent { refused: Some(refused.failure.reason), ..sent });
                self.messages.last().map(|sent| (*sent, Origin::Producer))
            }
            Arriving::Again(nth) => Some((earlier(nth)?, Origin::Producer)),
            Arriving::Other(nth) => {
                let sent = earlier(nth)?;
                let action = if sent.action == Action::Add { Action::Delete } else { Action::Add };
                // One that breaks a rule would break it still.
                sent.refused.is_none().then_some((Sent { action, ..sent }, Origin::Producer))
            }
            Arriving::Copy(nth) => Some((earlier(nth)?, Origin::PutOff)),
            Arriving::Replay(nth, generation) => Some((earlier(nth)?, Origin::Replay(generation))),
        }
    }
}

impl Sent {
    pub(super) fn message(&self) -> Message {
        let body = match (self.refused, self.action) {
            (Some(_), _) => broken(self.id),
            (None, action) => {
                let revision = self.revision.map(|revision| format!(r#","revision":{revision}"#)).unwrap_or_default();
                let nickname = if action == Action::Add { r#","nickname":"n""# } else { "" };
                let (id, kf_account) = (self.id, name(self.account));
                format!(r#"{{"command_id":"m{id}","action":"{action}","kf_account":"{kf_account}"{nickname}{revision}}}"#)
            }
        };
        Message { timestamp: self.at.and_then(|at| at.try_into().ok()), ..message(&body) }
    }
}

/// A command without an account.
fn broken(id: usize) -> String {
    format!(r#"{{"command_id":"m{id}","action":"add","nickname":"n"}}"#)
}
