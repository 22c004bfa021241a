//! A bar that shows how far long work has come.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for so much work, drawn where somebody looks and where the work is worth one.
pub fn bar(template: &str, length: usize, worth_it: bool) -> ProgressBar {
    let target = match worth_it && std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length.try_into().unwrap_or(u64::MAX)), target).with_style(style)
}
