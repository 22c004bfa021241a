//! What a panel asks as Grafana would ask it: with values in the place of variables.

use super::evidence::{RABBITMQ, WORKER};

/// An expression without what it answers where nothing is there, which would always be an answer.
pub fn without_fallback(expression: &str) -> String {
    let expression = expression.replace(" or vector(0)", "");
    let end = [" or on () 0 * ", " or 0 * "].iter().filter_map(|fallback| expression.find(fallback)).min();
    expression[..end.unwrap_or(expression.len())].to_owned()
}

/// An expression with values in the place of Grafana's variables, as Grafana puts them in.
pub fn with_values(expression: String) -> String {
    let values = [
        // Longer than all of this lasts, so that what happened once still counts in the end.
        ("$__rate_interval", "4m"),
        ("$__range", "5m"),
        // So short that what went well before the trouble began is over.
        ("[10m]", "[5s]"),
        ("$job", WORKER),
        ("$rabbitmq_job", RABBITMQ),
        ("$instance", ".+"),
        ("$official_account", ".+"),
        ("${prefix}", "kf"),
    ];
    let expression = values.iter().fold(expression, |text, (variable, value)| text.replace(variable, value));
    assert!(!expression.contains('$'), "a variable that Grafana doesn't know: {expression}");
    expression
}
