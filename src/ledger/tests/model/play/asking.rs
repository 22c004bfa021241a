//! Sends questions to the ledger, and puts its answers into the model's words.

use super::*;

impl Play<'_> {
    /// Sends a question to a worker's ledger.
    pub(super) fn send(&self, index: usize, question: &Question) -> BoxFuture<'static, Result<Raw, LedgerError>> {
        let ledger = self.stage.workers[index].ledger.ledger.clone();
        let worker = self.stage.workers[index].name;
        let position = question.place().map_or(Position(0), |place| self.positions[place]);
        let epoch = |count: u64| {
            let mine = |claim: &&Claimed| claim.worker == worker && claim.count == count && question.is_about(claim.account, &self.model);
            self.claims.iter().find(mine).unwrap().epoch
        };
        match *question {
            Question::Accept(ref arrivals, now) => {
                let received_at = Timestamp::from_second(now).unwrap();
                let arrival = |(sent, origin): &(Sent, Origin)| Arrival { message: arrived(&sent.message()), received_at, origin: *origin };
                let arrivals = arrivals.iter().map(arrival).collect();
                Box::pin(async move { ledger.accept(arrivals).await.map(Raw::Accepted) })
            }
            Question::Begin { alone, .. } => Box::pin(async move { ledger.begin(position, alone).await.map(Raw::Claim) }),
            Question::Wait { claim, reason, lost, called, .. } => {
                let waiting = Waiting { reason, answer: None, answer_lost: lost, claim: claim.map(epoch), called };
                Box::pin(async move { ledger.wait(position, waiting).await.map(Raw::Recorded) })
            }
            Question::Finish { place, claim, status, reason } => {
                let (claim, conclusion) = (claim.map(epoch), self.conclusion(place, status, reason));
                Box::pin(async move { ledger.finish(position, claim, conclusion, status == Status::Failed).await.map(Raw::Recorded) })
            }
            Question::Check(_) => Box::pin(async move { ledger.check(position).await.map(Raw::Finished) }),
            Question::Obstacle(_) => Box::pin(async move { ledger.obstacle(position).await.map(Raw::Obstacle) }),
            Question::Panicked(_) => Box::pin(async move { ledger.panicked(position).await.map(|()| Raw::Done) }),
            Question::DeadLettered(_) => Box::pin(async move { ledger.dead_lettered(position).await.map(|()| Raw::Done) }),
            Question::CleanUp(account) => Box::pin(async move { ledger.begin_clean_up(name(account)).await.map(Raw::CleanUp) }),
            Question::EndCleanUp(account, claim) => {
                let epoch = epoch(claim);
                Box::pin(async move { ledger.end_clean_up(name(account), epoch).await.map(|()| Raw::Done) })
            }
        }
    }

    pub(super) fn conclusion(&self, place: usize, status: Status, reason: Option<Reason>) -> Conclusion {
        // Of one that was forgotten nothing can be recorded, whatever it says.
        let known = self.model.commands.get(&place);
        let (sent, generation, attempts) = known.map_or((self.messages[0], 0, 0), |known| (known.sent, known.generation, known.attempts));
        let failure = Failure::new(reason.unwrap_or(Reason::WorkerBug), "no");
        let outcome = match status {
            Status::Succeeded => Outcome::Succeeded(Effect::Created.into()),
            Status::Failed => Outcome::Failed(failure),
            Status::Rejected => Outcome::Rejected(failure),
            Status::Superseded => Outcome::Superseded(failure),
        };
        let received_at = Timestamp::from_second(known.map_or(START, |known| known.received)).unwrap();
        let history = History { attempts, received_at, finished_at: crate::event::now() };
        let given = match arrived(&sent.message()) {
            Arrived::Command(command) => command.given.clone(),
            Arrived::Refused(refused) => refused.given.clone(),
        };
        conclude(&given, Identity::Generation(generation), &outcome, history)
    }

    pub(super) fn told(&mut self, answer: Result<Raw, LedgerError>) -> Result<Told, String> {
        Ok(match answer {
            Err(LedgerError::Unreadable(_)) => Told::Unknown,
            Err(error) => return Err(error.to_string()),
            Ok(Raw::Accepted(accepted)) => Told::Accepted(accepted.iter().map(|one| self.accepted(one)).collect::<Result<_, _>>()?),
            Ok(Raw::Claim(Claim::Begun(begun))) => {
                Told::Begun { attempts: begun.attempts, lost: begun.answer_lost_before, lost_add: begun.lost_add_ago.is_some() }
            }
            Ok(Raw::Claim(Claim::Not(obstacle))) => Told::Not(Some(self.why(&obstacle)?)),
            Ok(Raw::Obstacle(obstacle)) => Told::Not(obstacle.map(|obstacle| self.why(&obstacle)).transpose()?),
            Ok(Raw::CleanUp(CleanUp::Begun(_))) => Told::Claimed,
            Ok(Raw::CleanUp(CleanUp::Held(_))) => Told::Not(Some(Why::Held)),
            Ok(Raw::CleanUp(CleanUp::NotWanted)) => Told::Not(Some(Why::NotWanted)),
            Ok(Raw::Recorded(recorded)) => {
                let outcome = recorded.finished.map(|finished| self.ended(&finished)).transpose()?;
                Told::Recorded { ending: recorded.ending, outcome }
            }
            Ok(Raw::Finished(finished)) => Told::Outcome(finished.map(|finished| self.ended(&finished)).transpose()?),
            Ok(Raw::Done) => Told::Done,
        })
    }

    pub(super) fn accepted(&mut self, accepted: &Acceptance) -> Result<Accepted, String> {
        Ok(match accepted {
            Acceptance::Unfinished(ticket) => Accepted::Unfinished {
                place: self.place(ticket.position)?,
                generation: ticket.generation,
                attempts: ticket.attempts,
                attempts_before: ticket.attempts_before,
                suspect: ticket.suspect,
                trouble: ticket.trouble.map(|(reason, _)| reason),
            },
            Acceptance::Decided(finished) => Accepted::Decided(self.ended(finished)?),
            Acceptance::Repeat(finished) => Accepted::Repeat(self.ended(finished)?),
            Acceptance::Conflict => Accepted::Conflict,
            Acceptance::LedgerLost => Accepted::Lost,
        })
    }

    pub(super) fn why(&mut self, obstacle: &Obstacle) -> Result<Why, String> {
        Ok(match obstacle {
            Obstacle::Behind => Why::Behind,
            Obstacle::Held(_) => Why::Held,
            Obstacle::Suspected => Why::Suspected,
            Obstacle::Finished(finished) => Why::Finished(self.ended(finished)?),
        })
    }

    /// What is told of an outcome; whoever tells it, it is the same, byte for byte.
    pub(super) fn ended(&mut self, finished: &Finished) -> Result<Ended, String> {
        let place = self.place(finished.position)?;
        let conclusion = &finished.conclusion;
        let Identity::Generation(generation) = conclusion.identity else { return Err("an outcome of no generation".to_owned()) };
        self.pin(place, generation, &conclusion.data)?;
        let due = conclusion.status == Status::Failed;
        let owed = due.then_some(finished.dead_letter_owed);
        Ok(Ended { place, generation, status: conclusion.status, reason: conclusion.reason, owed })
    }

    pub(super) fn pin(&mut self, place: usize, generation: u32, data: &str) -> Result<(), String> {
        let first = self.outcomes.entry((place, generation)).or_insert_with(|| data.to_owned());
        ensure!(first == data, "the outcome of {place} in generation {generation} was {first}, and is {data}");
        Ok(())
    }

    /// Places follow the order of acceptance, and stay.
    pub(super) fn place(&mut self, position: Position) -> Result<usize, String> {
        if let Ok(place) = self.positions.binary_search(&position) {
            return Ok(place);
        }
        ensure!(self.positions.last().is_none_or(|last| *last < position), "{position:?} is not above all earlier ones");
        self.positions.push(position);
        Ok(self.positions.len() - 1)
    }
}

impl Question {
    pub(super) fn place(&self) -> Option<usize> {
        match self {
            Self::Begin { place, .. } | Self::Wait { place, .. } | Self::Finish { place, .. } => Some(*place),
            Self::Check(place) | Self::Obstacle(place) | Self::Panicked(place) | Self::DeadLettered(place) => Some(*place),
            Self::Accept(..) | Self::CleanUp(_) | Self::EndCleanUp(..) => None,
        }
    }

    pub(super) fn is_about(&self, account: usize, model: &Model) -> bool {
        match (self, self.place()) {
            (Self::EndCleanUp(of, _), _) => *of == account,
            (_, Some(place)) => model.commands.get(&place).is_some_and(|command| command.sent.account == account),
            _ => false,
        }
    }
}
