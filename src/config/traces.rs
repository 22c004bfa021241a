//! Reads whether and where spans are exported.

use super::official_accounts::is_header_value;
use super::reader::Reader;
use super::trouble_with_url;
use crate::secret::Secret;
use crate::traces::Settings;

/// Where a collector takes spans unless its address says otherwise.
const USUAL_PATH: &str = "/v1/traces";

/// Reads the section; without an address nothing is exported.
pub fn read_traces(reader: &mut Reader) -> Option<Settings> {
    let url = reader.text("traces.otlp_url", "");
    let sample_ratio = reader.ratio("traces.sample_ratio", 1.0);
    let authorization = reader.secret_or("traces.authorization", "", |_| true);
    if !is_header_value(&authorization) {
        reader.fault("traces.authorization", "is no value of a header such as \"Bearer …\"");
    }
    if url.is_empty() {
        return None;
    }
    if let Some(trouble) = trouble(&url, !authorization.is_empty()) {
        reader.fault("traces.otlp_url", trouble);
    }
    let authorization = (!authorization.is_empty()).then(|| Secret::from(authorization));
    Some(Settings { otlp_url: with_path(&url), authorization, sample_ratio })
}

/// What is wrong with an address. A query would hold what belongs into `authorization`, and the path is put behind it.
/// Spans hold nothing that is secret, so that they may travel in the clear to a collector near by; a secret may not.
fn trouble(url: &str, secret: bool) -> Option<&'static str> {
    if url.contains(['?', '#']) {
        return Some("has a query or a fragment; put what the collector wants to see into `traces.authorization`");
    }
    match trouble_with_url(&url.replacen("http://", "https://", 1)) {
        None if secret && trouble_with_url(url).is_some() => {
            Some("is http: `traces.authorization` would be readable on the way; use https (http is taken for this machine alone)")
        }
        trouble => trouble,
    }
}

fn with_path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    match rest.split_once('/') {
        None | Some((_, "")) => format!("{}{USUAL_PATH}", url.trim_end_matches('/')),
        Some(_) => url.to_owned(),
    }
}
