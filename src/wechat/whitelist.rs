//! The address by which WeChat knows this machine, as it tells it when that is not on the whitelist.

use std::net::IpAddr;

use crate::outcome::Failure;

/// "invalid ip, not in whitelist".
const NOT_ON_THE_WHITELIST: i64 = 40164;

/// The address that is to be put on the IP whitelist of the Official Account, where that is what is wrong.
pub fn refused_address(failure: &Failure) -> Option<IpAddr> {
    let answer = failure.answer.as_ref().filter(|answer| answer.errcode == NOT_ON_THE_WHITELIST)?;
    // "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: …"
    answer.errmsg.split([' ', ',']).find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Answer, Reason};

    #[test]
    fn the_address_is_found_in_wechats_words_and_in_no_other_answer() {
        let address = |errcode, errmsg: &str| {
            let answer = Some(Answer { errcode, errmsg: errmsg.to_owned() });
            refused_address(&Failure { reason: Reason::Misconfigured, answer, detail: String::new() }).map(|ip| ip.to_string())
        };
        let v4 = "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 6172-61";
        assert_eq!(address(40164, v4).as_deref(), Some("203.0.113.7"));
        assert_eq!(address(40164, "invalid ip 2001:db8::7, not in whitelist").as_deref(), Some("2001:db8::7"));
        assert_eq!(address(40164, "not in whitelist"), None);
        assert_eq!(address(40013, v4), None);
    }
}
