//! What a call itself says of where it goes, and the route that was decided for it: made once, the same for all its attempts.

use std::{fmt, sync::Arc};

use http::HeaderMap;

use super::table::{Destination, Table};
use crate::pool::Attributes;

/// The header (metadata key) that gives one call a tag. It goes no further than the callee: for a whole chain of calls, use
/// [`TAG_BAGGAGE`].
pub const TAG_HEADER: &str = "tessera-tag";
/// The header that, with the value `true`, forbids a tagged call to fall back to untagged instances.
pub const FORCE_TAG_HEADER: &str = "tessera-tag-force";
/// The entry of the W3C baggage that tags every call of a chain: it travels with whatever is done on behalf of the call. With
/// `tessera.tag.force=true` beside it none of them falls back. A call's own header goes before it.
pub const TAG_BAGGAGE: &str = "tessera.tag";
const FORCE_TAG_BAGGAGE: &str = "tessera.tag.force";

/// The tag of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) name: String,
    /// Rather no answer than one of an untagged instance.
    pub(crate) is_forced: bool,
}

/// Where one call may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    tag: Option<Tag>,
    /// By which rule, if one matched.
    ruled: Option<(Arc<Table>, usize)>,
}

impl Tag {
    /// As the headers of a call say, or the baggage that it is made under: `baggage` looks an entry up. An empty tag is none.
    pub(crate) fn of(headers: &HeaderMap, baggage: impl Fn(&str) -> Option<String>) -> Option<Self> {
        if let Some(name) = headers.get(TAG_HEADER).and_then(|value| value.to_str().ok()) {
            let force = headers.get(FORCE_TAG_HEADER);
            return Self::named(name.to_owned(), force.is_some_and(|value| value == "true"));
        }
        let name = baggage(TAG_BAGGAGE)?;
        Self::named(name, baggage(FORCE_TAG_BAGGAGE).as_deref() == Some("true"))
    }

    fn named(name: String, is_forced: bool) -> Option<Self> {
        (!name.is_empty()).then_some(Self { name, is_forced })
    }
}

impl Route {
    /// `draw` is 64 random bits, for splits; it is only asked for when there are rules.
    pub(crate) fn decide(
        table: &Arc<Table>,
        tag: Option<Tag>,
        path: &str,
        headers: &HeaderMap,
        draw: impl FnOnce() -> u64,
    ) -> Self {
        let ruled = if table.is_empty() {
            None
        } else {
            let index = table.decide(path, headers, draw());
            index.map(|index| (Arc::clone(table), index))
        };
        Self { tag, ruled }
    }

    /// Untagged, and no rule matched.
    pub(crate) fn is_plain(&self) -> bool {
        self.tag.is_none() && self.ruled.is_none()
    }

    /// The table that decided, and which of its destinations it was.
    pub(crate) fn ruled(&self) -> Option<(&Arc<Table>, usize)> {
        self.ruled.as_ref().map(|(table, index)| (table, *index))
    }

    pub(crate) fn destination(&self) -> Option<&Destination> {
        self.ruled().map(|(table, index)| table.destination(index))
    }

    /// The tag of the instances that are wanted first.
    pub(crate) fn tag(&self) -> Option<&str> {
        let ruled = self
            .destination()
            .and_then(|destination| destination.subset.wanted_tag());
        ruled.or(self.tag.as_ref().map(|tag| tag.name.as_str()))
    }

    /// Whether untagged instances are no answer to [`Route::tag`].
    pub(crate) fn is_tag_forced(&self) -> bool {
        match self.destination() {
            Some(destination) if destination.subset.wanted_tag().is_some() => destination.is_forced,
            _ => self.tag.as_ref().is_some_and(|tag| tag.is_forced),
        }
    }

    /// Whether a call of that route can go to such an instance at all, be it only when no better one is ready.
    pub(crate) fn may_reach(route: Option<&Self>, instance: &Attributes) -> bool {
        let Some(route) = route else {
            return instance.tag.is_empty();
        };
        let by_tag = |wanted: Option<&str>, is_forced: bool| match wanted.filter(|wanted| !wanted.is_empty()) {
            None => instance.tag.is_empty(),
            Some(wanted) => instance.tag == wanted || (!is_forced && instance.tag.is_empty()),
        };
        let admitted = route
            .destination()
            .is_none_or(|destination| destination.subset.admits(instance));
        (admitted || !route.is_rule_forced()) && by_tag(route.tag(), route.is_tag_forced())
    }

    /// Whether the destination of the rule is the only one.
    pub(crate) fn is_rule_forced(&self) -> bool {
        self.destination().is_some_and(|destination| destination.is_forced)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(destination) = self.destination() {
            write!(f, "the route {:?} ({})", destination.rule, destination.subset)?;
            if self.tag.is_some() {
                f.write_str(" with ")?;
            }
        }
        match &self.tag {
            Some(Tag { name, is_forced }) => {
                write!(f, "the tag {name:?}{}", if *is_forced { ", forced" } else { "" })
            }
            None if self.ruled.is_none() => f.write_str("no tag"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_header_goes_before_the_baggage_and_an_empty_tag_is_none() {
        let gray = |name: &str| (name == TAG_BAGGAGE).then(|| "gray".to_owned());
        let forced = |name: &str| match name {
            TAG_BAGGAGE => Some("gray".to_owned()),
            FORCE_TAG_BAGGAGE => Some("true".to_owned()),
            _ => None,
        };
        let tag = |name: &str, is_forced| {
            Some(Tag {
                name: name.to_owned(),
                is_forced,
            })
        };
        assert_eq!(Tag::of(&headers(&[]), |_| None), None);
        assert_eq!(Tag::of(&headers(&[]), gray), tag("gray", false));
        assert_eq!(Tag::of(&headers(&[]), forced), tag("gray", true));
        assert_eq!(Tag::of(&headers(&[(TAG_HEADER, "blue")]), forced), tag("blue", false));
        let both = [(TAG_HEADER, "blue"), (FORCE_TAG_HEADER, "true")];
        assert_eq!(Tag::of(&headers(&both), gray), tag("blue", true));
        // Said on purpose: this call is not tagged, whatever the chain is.
        assert_eq!(Tag::of(&headers(&[(TAG_HEADER, "")]), forced), None);
    }
}
