//! Reads as much of PromQL as the rules of dashboards need: which series an expression selects, over what range, inside which functions.

/// One selection of series: `name{label="value"}[range]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    /// Label, operator and value, as they are written.
    pub matchers: Vec<(String, String, String)>,
    pub range: Option<String>,
    /// The functions and aggregations around it, the innermost last; an empty text for plain parentheses.
    pub within: Vec<String>,
}

impl Selector {
    /// Whether it has this matcher.
    pub fn matches(&self, label: &str, operator: &str, value: &str) -> bool {
        self.matchers.iter().any(|(name, sign, text)| name == label && sign == operator && text == value)
    }

    /// The selection alone, as an instant vector.
    pub fn text(&self) -> String {
        let matchers: Vec<String> = self.matchers.iter().map(|(label, operator, value)| format!("{label}{operator}\"{value}\"")).collect();
        format!("{}{{{}}}", self.name, matchers.join(", "))
    }
}

/// Names that stand before a list of labels.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Other names that select nothing.
const WORDS: [&str; 9] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "Inf", "NaN"];
/// What may stand before its grouping, as in `sum by (le) (…)`.
const AGGREGATIONS: [&str; 12] =
    ["sum", "min", "max", "avg", "count", "group", "topk", "bottomk", "quantile", "stddev", "stdvar", "count_values"];

/// A piece of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Text(String),
    /// Operators, parentheses, numbers, variables.
    Other(String),
}

fn tokens(expression: &str) -> Vec<Token> {
    let (mut tokens, mut rest) = (Vec::new(), expression.trim_start());
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = match first {
            '"' => 1 + closing_quote(&rest[1..]),
            // A number may have a point.
            _ if is_word(first) => rest.find(|c| !(is_word(c) || c == '.' && first.is_ascii_digit())).unwrap_or(rest.len()),
            '=' | '!' if rest[1..].starts_with(['=', '~']) => 2,
            _ => first.len_utf8(),
        };
        let piece = rest[..length].to_owned();
        tokens.push(match first {
            '"' => Token::Text(piece[1..length - 1].to_owned()),
            _ if is_word(first) && !first.is_ascii_digit() => Token::Name(piece),
            _ => Token::Other(piece),
        });
        rest = rest[length..].trim_start();
    }
    tokens
}

/// How many bytes a text is long, its closing quote included.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    let end = text.find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    end.expect("the text is closed") + 1
}

/// Every selection of an expression, in the order in which it is written.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let tokens = tokens(expression);
    let is = |at: usize, sign: &str| matches!(tokens.get(at), Some(Token::Other(other)) if other == sign);
    let (mut found, mut within, mut at) = (Vec::new(), Vec::new(), 0);
    // The aggregation whose grouping comes before its arguments.
    let mut waiting: Option<String> = None;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Name(name) if GROUPINGS.contains(&name.as_str()) => at = after(&tokens, at + 1, ")"),
            Token::Name(name) if WORDS.contains(&name.as_str()) => at += 1,
            Token::Name(name) if is(at + 1, "(") => {
                within.push(name.clone());
                at += 2;
            }
            Token::Name(name) if AGGREGATIONS.contains(&name.as_str()) => {
                waiting = Some(name.clone());
                at += 1;
            }
            Token::Name(name) => {
                let (selector, next) = selector(&tokens, name, at + 1, within.clone());
                found.push(selector);
                at = next;
            }
            Token::Other(sign) if sign == "(" => {
                within.push(waiting.take().unwrap_or_default());
                at += 1;
            }
            Token::Other(sign) if sign == ")" => {
                within.pop();
                at += 1;
            }
            // The range of a subquery.
            Token::Other(sign) if sign == "[" => at = after(&tokens, at, "]"),
            Token::Other(_) | Token::Text(_) => at += 1,
        }
    }
    found
}

/// The place behind the next such sign.
fn after(tokens: &[Token], from: usize, sign: &str) -> usize {
    let ahead = tokens[from..].iter().position(|token| *token == Token::Other(sign.to_owned()));
    from + ahead.unwrap_or_else(|| panic!("`{sign}` is missing: {tokens:?}")) + 1
}

/// The selection that begins before `at`, and the place behind it.
fn selector(tokens: &[Token], name: &str, mut at: usize, within: Vec<String>) -> (Selector, usize) {
    let begins = |at: usize, sign: &str| tokens.get(at) == Some(&Token::Other(sign.to_owned()));
    let mut matchers = Vec::new();
    if begins(at, "{") {
        let end = after(tokens, at, "}");
        for matcher in tokens[at + 1..end - 1].split(|token| *token == Token::Other(",".to_owned())) {
            let [Token::Name(label), Token::Other(operator), Token::Text(value)] = matcher else { panic!("no matcher: {matcher:?}") };
            matchers.push((label.clone(), operator.clone(), value.clone()));
        }
        at = end;
    }
    let mut range = None;
    if begins(at, "[") {
        let end = after(tokens, at, "]");
        let pieces = tokens[at + 1..end - 1].iter().map(|token| match token {
            Token::Name(text) | Token::Text(text) | Token::Other(text) => text.as_str(),
        });
        range = Some(pieces.collect());
        at = end;
    }
    (Selector { name: name.to_owned(), matchers, range, within }, at)
}

#[test]
fn the_reader_of_expressions_finds_every_selection_with_what_is_around_it() {
    let expression = r#"histogram_quantile(0.95, sum by (le) (rate(a_bucket{job=~"$job", x!="}\"("}[$__rate_interval])))
        / on (y) group_left () sum(b) > 0 or vector(0) and 0 * max_over_time((max by (z) (c{q=~"${p}[.]d"}) == 1)[$__range:15s])"#;
    let found = selectors(expression);
    let names: Vec<_> = found.iter().map(|selector| (selector.name.as_str(), selector.range.as_deref())).collect();
    assert_eq!(names, [("a_bucket", Some("$__rate_interval")), ("b", None), ("c", None)]);
    assert_eq!(found[0].within, ["histogram_quantile", "sum", "rate"]);
    assert!(found[0].matches("job", "=~", "$job") && found[0].matches("x", "!=", r#"}\"("#) && !found[0].matches("job", "=", "$job"));
    assert_eq!((found[1].within.as_slice(), found[1].text().as_str()), (["sum".to_owned()].as_slice(), "b{}"));
    assert_eq!(
        (found[2].within.as_slice(), found[2].text().as_str()),
        (["max_over_time", "", "max"].map(str::to_owned).as_slice(), r#"c{q=~"${p}[.]d"}"#)
    );
}
