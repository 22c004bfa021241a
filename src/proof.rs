//! One thing that was looked at before a worker runs, and what was found.

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What was looked at.
    pub what: String,
    pub verdict: Verdict,
    /// What was seen, or what is wrong and what to do.
    pub detail: String,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// Not there yet; the worker makes it.
    Missing,
    /// Nobody can tell without changing something.
    Unproven,
    /// Something can't be reached, now.
    Unreachable,
    /// An operator must change something.
    Wrong,
}

impl Verdict {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Unproven => "unproven",
            Self::Unreachable => "unreachable",
            Self::Wrong => "wrong",
        }
    }
}

impl Proof {
    pub fn new(what: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, detail: detail.into() }
    }

    pub fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, Verdict::Ok, detail)
    }

    pub fn wrong(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, Verdict::Wrong, detail)
    }

    pub fn unproven(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, Verdict::Unproven, detail)
    }
}
