//! What instances say of how they want to be called: which of several texts counts. Pure.

use std::collections::BTreeMap;

use super::{InvalidServiceConfig, ServiceConfig};

/// The key of the instances' metadata under which they announce a service config.
pub(crate) const METADATA_KEY: &str = "tessera.service-config";
/// The longest announcement that is read: it comes from elsewhere.
const MAX_LENGTH: usize = 16 * 1024;

/// What the announcements come to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Elected {
    pub(super) config: ServiceConfig,
    /// What was refused, and why.
    pub(super) refused: Vec<(String, Refused)>,
}

/// Why an announcement is not followed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error(transparent)]
    Invalid(#[from] InvalidServiceConfig),
}

/// The config that most instances announce, among those that can be read; an instance that announces none votes for none.
///
/// The newest instead would let one instance with a mistake in it speak for all; in a roll-out the old settings hold until half
/// of the instances are new. Of a tie the text that sorts first wins, so that all callers decide alike.
pub(super) fn elect<'a>(announced: impl Iterator<Item = Option<&'a str>>) -> Elected {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for text in announced {
        *votes.entry(text.unwrap_or("")).or_default() += 1;
    }
    let mut elected = Elected::default();
    let mut most = 0;
    for (text, count) in votes {
        let config = match text {
            "" => Ok(ServiceConfig::default()),
            text if text.len() > MAX_LENGTH => Err(Refused::TooLong),
            text => text
                .parse()
                .and_then(ServiceConfig::into_announced)
                .map_err(Refused::from),
        };
        match config {
            Ok(config) if count > most => {
                most = count;
                elected.config = config;
            }
            Ok(_) => {}
            Err(reason) => elected.refused.push((text.chars().take(200).collect(), reason)),
        }
    }
    elected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(wait: bool) -> String {
        format!(r#"{{"methodConfig": [{{"name": [{{}}], "waitForReady": {wait}}}]}}"#)
    }

    #[test]
    fn most_of_those_that_can_be_read_decide() {
        let (yes, no) = (waits(true), waits(false));
        let of = |text: &str| text.parse::<ServiceConfig>().expect("good");
        let elected = |texts: &[Option<&str>]| elect(texts.iter().copied()).config;
        assert_eq!(elected(&[]), ServiceConfig::default());
        assert_eq!(elected(&[Some(&yes)]), of(&yes));
        assert_eq!(elected(&[Some(&yes), Some(&no), Some(&yes)]), of(&yes));
        assert_eq!(elected(&[Some(&yes), None, None]), ServiceConfig::default());
        // A tie is decided alike, whatever the order.
        assert_eq!(elected(&[Some(&yes), Some(&no)]), elected(&[Some(&no), Some(&yes)]));
    }

    #[test]
    fn what_cannot_be_read_has_no_vote() {
        let (good, long) = (waits(true), " ".repeat(MAX_LENGTH + 1));
        let fallback = r#"{"methodConfig": [{"name": [{}], "tessera": {"fallback": {"when": "force", "reply": {}}}}]}"#;
        let elected = elect([Some("{"), Some("{"), Some(&long), Some(fallback), Some(&good)].into_iter());
        assert_eq!(elected.config, good.parse().expect("good"));
        let reasons: Vec<String> = elected.refused.iter().map(|(_, reason)| reason.to_string()).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons.iter().any(|reason| reason.contains("longer")), "{reasons:?}");
        assert!(
            reasons.iter().any(|reason| reason.contains("the caller's to set")),
            "{reasons:?}"
        );
    }
}
