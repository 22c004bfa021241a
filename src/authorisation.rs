//! Who may order what: the `[[publisher]]` rules, held against the sender that the broker has validated.

use crate::command::fits;
use crate::outcome::{Action, Failure, Reason};

/// What one user may order.
#[derive(Debug, Clone)]
pub struct Rule {
    pub user: String,
    pub actions: Vec<Action>,
    /// Patterns of kf accounts; `*` stands for any run of characters.
    pub accounts: Vec<String>,
}

/// All rules. Where there are none, everybody whom the broker lets publish may order everything.
#[derive(Debug, Clone, Default)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// Whether messages of this sender are read at all.
    ///
    /// # Errors
    /// Why they are not.
    pub fn check_sender(&self, user: Option<&str>) -> Result<(), Failure> {
        if self.0.is_empty() || self.0.iter().any(|rule| Some(rule.user.as_str()) == user) {
            return Ok(());
        }
        let detail = match user {
            Some(user) => format!("The user `{user}` is not listed under [[publisher]]."),
            None => "The message has no `user_id`, so the broker has not validated its sender. Set it to the connection's user.".to_owned(),
        };
        Err(Failure::new(Reason::NotAuthorised, detail))
    }

    /// Whether a listed sender may order this. What could not be read of a broken command forbids nothing.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_order(&self, user: Option<&str>, action: Option<Action>, account: Option<&str>) -> Result<(), Failure> {
        let allows = |rule: &Rule| {
            Some(rule.user.as_str()) == user
                && action.is_none_or(|action| rule.actions.contains(&action))
                && account.is_none_or(|account| rule.accounts.iter().any(|pattern| fits(pattern, account)))
        };
        if self.0.is_empty() || self.0.iter().any(allows) {
            return Ok(());
        }
        let detail = format!("No [[publisher]] rule lets the user `{}` order this action for this account.", user.unwrap_or_default());
        Err(Failure::new(Reason::NotAuthorised, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_anybody_is_listed_only_the_listed_may_order_and_only_what_is_theirs() {
        assert!(Rules::default().check_sender(None).is_ok());
        let rules = Rules(vec![Rule { user: "hr".to_owned(), actions: vec![Action::Add], accounts: vec!["*@test".to_owned()] }]);
        assert!(rules.check_sender(Some("hr")).is_ok());
        assert!(rules.check_sender(Some("x")).is_err());
        assert!(rules.check_sender(None).is_err());
        let check = |action, account| rules.check_order(Some("hr"), action, account);
        assert!(check(Some(Action::Add), Some("a@test")).is_ok());
        assert!(check(Some(Action::Delete), Some("a@test")).is_err());
        assert!(check(Some(Action::Add), Some("a@other")).is_err());
        assert!(check(None, Some("a@other")).is_err(), "a broken command speaks for its account all the same");
        assert!(check(None, None).is_ok());
        assert!(rules.check_order(Some("x"), None, None).is_err());
    }
}
