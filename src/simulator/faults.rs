//! Faults on demand: rules that say which calls go wrong, how often, and how.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::request::Endpoint;

/// Longer than anybody waits, and far from where adding times to each other overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// One fault rule. What is left out of the first three matches every call. All matching rules' delays add
/// up; of their effects the first one counts.
///
/// `[{"endpoint": "add", "wechat_id": "test", "times": 3, "effect": {"errcode": -1}}, {"latency": "50ms", "jitter": "20ms"}]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Only calls to this endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Only calls with a token of this Official Account, or for one by its AppID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wechat_id: Option<String>,
    /// Only calls about this kf account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kf_account: Option<String>,
    /// How many calls it hits before it is used up; without it, until it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// The share of matching calls that it hits, 0 to 1; without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// How long a call waits before anything else happens to it. It goes on even when the caller hangs up.
    #[serde(with = "duration_text", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// Up to this much is added to the latency, by chance.
    #[serde(with = "duration_text", skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
    /// What becomes of the call; without it, it is answered as ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// What becomes of a call that a rule hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Not done, answered with this code and its text.
    Errcode(i32),
    /// Not done, answered with this HTTP status and no body.
    HttpStatus(u16),
    /// Not done, answered with HTTP 200 and a page of HTML.
    Malformed,
    /// Not done, the connection reset.
    Reset,
    /// Done, the connection closed without an answer.
    LostAnswer,
    /// Done and never answered.
    Hang,
}

impl Rule {
    /// What is wrong with the rule, if anything is.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.times == Some(0) {
            return Err("times must be at least 1");
        }
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err("probability must be between 0 and 1");
        }
        match self.effect {
            None if self.latency.is_none() && self.jitter.is_none() => Err("a rule needs a latency, a jitter or an effect"),
            Some(Effect::Errcode(0)) => Err("errcode 0 is no error"),
            Some(Effect::HttpStatus(status)) if !(200..=599).contains(&status) => Err("http_status must be between 200 and 599"),
            _ => Ok(()),
        }
    }

    fn matches(&self, endpoint: Endpoint, wechat_id: Option<&str>, kf_account: Option<&str>) -> bool {
        self.endpoint.is_none_or(|wanted| wanted == endpoint)
            && (self.wechat_id.is_none() || self.wechat_id.as_deref() == wechat_id)
            && (self.kf_account.is_none() || self.kf_account.as_deref() == kf_account)
            && self.probability.is_none_or(|p| rand::random::<f64>() < p)
    }

    fn delay(&self) -> Duration {
        let jitter = self.jitter.unwrap_or_default();
        self.latency.unwrap_or_default() + jitter.mul_f64(rand::random())
    }
}

/// The rules in force.
#[derive(Default)]
pub(super) struct Faults {
    pub rules: Vec<Rule>,
}

/// What the rules have in store for one call.
#[derive(Default)]
pub(super) struct Fate {
    pub delay: Duration,
    pub effect: Option<Effect>,
}

impl Faults {
    /// Decides what becomes of a call and takes it from the rules that are limited in times.
    pub fn draw(&mut self, endpoint: Endpoint, wechat_id: Option<&str>, kf_account: Option<&str>) -> Fate {
        let mut fate = Fate::default();
        self.rules.retain_mut(|rule| {
            let beaten = rule.effect.is_some() && fate.effect.is_some();
            if beaten || !rule.matches(endpoint, wechat_id, kf_account) {
                return true;
            }
            fate.delay = fate.delay.saturating_add(rule.delay());
            fate.effect = fate.effect.or(rule.effect);
            rule.times = rule.times.map(|times| times.saturating_sub(1));
            rule.times != Some(0)
        });
        fate
    }
}

/// Reads a duration such as `50ms` or `2h`.
///
/// # Errors
/// With a sentence, when it is none or longer than a year.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST {
        return Err("a year is the longest".to_owned());
    }
    Ok(duration)
}

/// Durations in JSON as text such as `50ms`.
mod duration_text {
    use super::{Deserialize, Deserializer, Duration, Serializer, parse_duration};

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.collect_str(&humantime::format_duration(*duration)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
    }
}
