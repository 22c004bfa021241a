//! Holds what stands in the tables against the model.

use super::*;

impl Play<'_> {
    /// Holds what stands in the tables against the model, and against what stood there before.
    pub(super) async fn compare(&mut self) -> Result<(), String> {
        let (rows, accounts) = self.stage.rows().await;
        let found: Vec<(Position, &str)> = rows.iter().map(|row| (Position(row.position), row.line.as_str())).collect();
        let lines: Vec<String> = self.model.commands.values().map(Command::line).collect();
        ensure!(self.positions.len() == self.model.place, "{} places, not {}", self.positions.len(), self.model.place);
        let expected: Vec<(Position, &str)> =
            self.model.commands.keys().zip(&lines).map(|(place, line)| (self.positions[*place], line.as_str())).collect();
        ensure!(found == expected, "\nthe ledger has\n{found:#?}, not\n{expected:#?}");
        let commands: Vec<Command> = self.model.commands.values().cloned().collect();
        for (command, row) in commands.iter().zip(&rows).filter(|(command, _)| command.outcome.is_some()) {
            self.pin(command.place, command.generation, &row.data)?;
            let data: Value = serde_json::from_str(&row.data).map_err(|error| error.to_string())?;
            let received = Timestamp::from_second(command.received).unwrap().to_string();
            let told = (data["attempts"].as_u64(), data["received_at"].as_str());
            let expected = (Some(u64::from(command.attempts)), Some(received.as_str()));
            ensure!(told == expected, "{} tells {told:?}, not {expected:?}", row.data);
        }
        self.compare_accounts(&accounts)
    }

    pub(super) fn compare_accounts(&mut self, rows: &[AccountRow]) -> Result<(), String> {
        let found: Vec<&str> = rows.iter().map(|row| row.line.as_str()).collect();
        let known = (0..ACCOUNTS).filter_map(|account| Some((account, self.model.accounts[account].latest?.1)));
        let known: Vec<(usize, usize)> = known.collect();
        let lines: Vec<String> = known.iter().map(|(account, _)| self.model.account_line(*account)).collect();
        ensure!(found == lines, "\nthe ledger has\n{found:#?}, not\n{lines:#?}");
        for ((account, latest), row) in known.iter().zip(rows) {
            ensure!(Position(row.latest) == self.positions[*latest], "the latest of {account} is {latest}, not at {}", row.latest);
            let revision = row.revision.unwrap_or(-1);
            let former = self.revisions.insert(*account, revision).unwrap_or(-1);
            ensure!(former <= revision, "the revision went from {former} to {revision}");
            let epoch = row.epoch.unwrap_or(0);
            let former = self.epochs.insert(*account, epoch).unwrap_or(0);
            ensure!(former <= epoch, "the epoch went from {former} to {epoch}");
        }
        Ok(())
    }
}

impl Command {
    /// As the tables hold it.
    fn line(&self) -> String {
        let stand = match self.stand {
            Stand::Accepted => "accepted",
            Stand::Running => "running",
            Stand::Waiting => "waiting",
            Stand::Abandoned => "abandoned",
            Stand::Finished => "finished",
        };
        let word = |reason: Option<Reason>| reason.map_or("-", Reason::as_str);
        let status = self.outcome.map_or("-", |outcome| outcome.status.as_str());
        let dead_letter = match self.outcome.and_then(|outcome| outcome.owed) {
            Some(true) => "owed",
            Some(false) => "confirmed",
            None => "-",
        };
        let Self { generation, attempts, attempts_before, deaths, .. } = self;
        let (lost, suspect) = (u8::from(self.lost), u8::from(self.suspect));
        let (trouble, reason) = (word(self.trouble), word(self.outcome.and_then(|outcome| outcome.reason)));
        let (id, action) = (self.sent.id, self.sent.action);
        format!(
            "m{id} {action} {generation} {stand} {attempts} {attempts_before} {lost} {suspect} {deaths} {trouble} {status} {reason} {dead_letter}"
        )
    }
}

impl Model {
    fn account_line(&self, account: usize) -> String {
        let state::Account { revision, latest, last_delete, lost_add, lease, .. } = &self.accounts[account];
        let held = if self.shared { format!("{} ", u8::from(lease.is_some())) } else { String::new() };
        let action = latest.map_or("-", |(action, _)| action.as_str());
        let (revision, deleted) = (revision.unwrap_or(-1), last_delete.unwrap_or(-1));
        format!("{held}{} {revision} {action} {deleted} {}", name(account), u8::from(*lost_add))
    }
}
