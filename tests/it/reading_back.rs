//! What WeChat lists is held against what it says of a command, against whose credentials they are, and against what was asked for.

mod drift;
mod mismatch;
mod verified;

use crate::support::stage::Stage;
use crate::support::wechat::Endpoint;

/// How often the kf accounts of an Official Account were listed.
fn lists(stage: &Stage, wechat_id: &str) -> usize {
    stage.wechat.calls(Endpoint::List).iter().filter(|call| call.account == wechat_id).count()
}
