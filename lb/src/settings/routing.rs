//! Routes, zones and subsets out of a config. What may be asked of a call and where it may go is `route`'s; it is the caller's
//! to set, so each is noted with its place.

use std::fmt::Display;

use super::{
    ChannelRules,
    problem::Spot,
    protection::switched,
    reader::{Fields, Place, Reader},
};
use crate::{HeaderMatch, InvalidRoute, MethodMatch, RouteRule, Routes, Split, Subset, Subsetting, ZonePreference};

/// Takes `routes`, `zonePreference` and `subset` out of the additions of a document.
pub(super) fn read(
    reader: &mut Reader<'_>,
    additions: &mut Fields<'_, '_>,
    rules: &mut ChannelRules,
    callers: &mut Vec<Spot>,
) {
    let mut part = |reader: &Reader<'_>, name| {
        let place = additions.take(name)?;
        callers.push(reader.spot(&place));
        Some(place)
    };
    rules.routes = part(reader, "routes").and_then(|place| read_routes(reader, &place));
    rules.zone_preference = part(reader, "zonePreference").and_then(|place| switched(reader, &place, read_preference));
    rules.subsetting = part(reader, "subset").and_then(|place| switched(reader, &place, read_subset));
}

fn read_routes(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<Routes> {
    let before = reader.count();
    let mut rules: Vec<RouteRule> = Vec::new();
    for place in reader.list(place) {
        let Some(rule) = read_rule(reader, &place) else {
            continue;
        };
        // Asked of each alone, so that the problem is told where it is.
        if let Err(error) = Routes::try_new([rule.clone()]) {
            reader.wrong(&place, format!("cannot be: {error}"));
        } else if rules.iter().any(|other| other.name() == rule.name()) {
            reader.wrong(&place, format!("is called {:?}, as another one before it", rule.name()));
        }
        rules.push(rule);
    }
    (reader.count() == before).then(|| or_wrong(reader, place, Routes::try_new(rules)))?
}

/// `{"name": ..., "method" | "methodPrefix": ..., "headers": [...], "caller": {...}, "to": {...} | "split": [...], "stickyBy": ...,
/// "forced": ...}`
fn read_rule(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<RouteRule> {
    let mut fields = reader.object(place)?;
    let before = reader.count();
    let name = fields.need(reader, "name").and_then(|place| owned(reader, &place));
    let method = either(reader, &mut fields, ["method", "methodPrefix"]);
    let headers = fields.take("headers").map(|place| reader.list(&place));
    let caller = fields.take("caller");
    let split = read_split(reader, &mut fields, place);
    let forced = fields.take("forced").and_then(|place| reader.flag(&place));
    reader.finish(fields);

    let mut rule = RouteRule::new(
        name.unwrap_or_default(),
        split.unwrap_or_else(|| Subset::every().into()),
    );
    if let Some((key, place)) = method
        && let Some(path) = owned(reader, &place)
    {
        rule = rule.method(match key {
            "method" => MethodMatch::Exact(path),
            _ => MethodMatch::Prefix(path),
        });
    }
    for place in headers.unwrap_or_default() {
        if let Some(header) = read_header(reader, &place) {
            rule = rule.header(header);
        }
    }
    if let Some(mut caller) = caller.and_then(|place| reader.object(&place)) {
        if let Some(service) = caller.take("service").and_then(|place| owned(reader, &place)) {
            rule = rule.caller_service(service);
        }
        if let Some(zone) = caller.take("zone").and_then(|place| owned(reader, &place)) {
            rule = rule.caller_zone(zone);
        }
        reader.finish(caller);
    }
    if forced == Some(true) {
        rule = rule.forced();
    }
    (reader.count() == before).then_some(rule)
}

/// `{"name": "x-user", "exact" | "prefix": "...", or "present": true | false}`
fn read_header(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<HeaderMatch> {
    let mut fields = reader.object(place)?;
    let name = fields.need(reader, "name").and_then(|place| owned(reader, &place));
    let asked = either(reader, &mut fields, ["exact", "prefix", "present"]);
    reader.finish(fields);
    let Some((key, value)) = asked else {
        reader.wrong(place, "needs one of exact, prefix and present");
        return None;
    };
    let made = match key {
        "exact" => HeaderMatch::exact(&name?, owned(reader, &value)?),
        "prefix" => HeaderMatch::prefix(&name?, owned(reader, &value)?),
        _ if reader.flag(&value)? => HeaderMatch::present(&name?),
        _ => HeaderMatch::absent(&name?),
    };
    or_wrong(reader, place, made)
}

/// Where a rule leads: to one narrowing, or to several by weight.
fn read_split(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>, rule: &Place<'_, '_>) -> Option<Split> {
    let to = either(reader, fields, ["to", "split"]);
    let sticky = fields.take("stickyBy");
    let Some((key, to)) = to else {
        reader.wrong(rule, "leads nowhere: it needs to or split");
        return None;
    };
    if key == "to" {
        if let Some(sticky) = sticky {
            reader.wrong(&sticky, "needs a split");
        }
        return read_subset_of(reader, &to).map(Split::from);
    }
    let before = reader.count();
    let mut parts = Vec::new();
    for place in reader.list(&to) {
        let Some(mut part) = reader.object(&place) else {
            continue;
        };
        let weight = part
            .need(reader, "weight")
            .and_then(|place| reader.number(&place, 0, 1000));
        let subset = part.need(reader, "to").and_then(|place| read_subset_of(reader, &place));
        reader.finish(part);
        parts.extend(subset.zip(weight));
    }
    let split = (reader.count() == before).then(|| or_wrong(reader, &to, Split::try_new(parts)))??;
    match sticky {
        None => Some(split),
        Some(place) => {
            let header = owned(reader, &place)?;
            or_wrong(reader, &place, split.sticky_by(&header))
        }
    }
}

/// `{"version": "^2", "group": ..., "zone": ..., "tag": ..., "metadata": {...}}`; `{}` is every instance.
fn read_subset_of(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<Subset> {
    let mut fields = reader.object(place)?;
    let mut subset = Subset::every();
    if let Some(place) = fields.take("version")
        && let Some(range) = owned(reader, &place)
    {
        subset = or_wrong(reader, &place, subset.version(&range))?;
    }
    if let Some(group) = fields.take("group").and_then(|place| owned(reader, &place)) {
        subset = subset.group(group);
    }
    if let Some(zone) = fields.take("zone").and_then(|place| owned(reader, &place)) {
        subset = subset.zone(zone);
    }
    if let Some(tag) = fields.take("tag").and_then(|place| owned(reader, &place)) {
        subset = subset.tag(tag);
    }
    if let Some(mut pairs) = fields.take("metadata").and_then(|place| reader.object(&place)) {
        for (key, place) in pairs.take_rest() {
            if let Some(value) = owned(reader, &place) {
                subset = subset.metadata(key, value);
            }
        }
        reader.finish(pairs);
    }
    reader.finish(fields);
    Some(subset)
}

/// `{"minInstances": 6, "callers": {"zone-a": 3}}`
fn read_preference(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>) -> Option<ZonePreference> {
    let mut made = ZonePreference::new();
    if let Some(least) = fields
        .take("minInstances")
        .and_then(|place| reader.number(&place, 1, usize::MAX))
    {
        made = made.min_instances(least);
    }
    if let Some(place) = fields.take("callers") {
        let mut zones = reader.object(&place)?;
        let mut callers = Vec::new();
        for (zone, place) in zones.take_rest() {
            callers.extend(reader.number(&place, 0, u32::MAX).map(|count| (zone, count)));
        }
        reader.finish(zones);
        made = or_wrong(reader, &place, made.callers(callers))?;
    }
    Some(made)
}

/// `{"size": 20, "seed": 7}`
fn read_subset(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>) -> Option<Subsetting> {
    let size = fields.need(reader, "size");
    let seed = fields.take("seed").map(|place| reader.number(&place, 0, u64::MAX));
    let place = size?;
    let size = reader.number(&place, 0, usize::MAX)?;
    let made = or_wrong(reader, &place, Subsetting::try_new(size))?;
    Some(match seed {
        Some(seed) => made.seed(seed?),
        None => made,
    })
}

/// The one of several settings that is there; a second one is a contradiction.
fn either<'n, 't, const N: usize>(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'n, 't>,
    names: [&'static str; N],
) -> Option<(&'static str, Place<'n, 't>)> {
    let mut found: Option<(&'static str, Place<'n, 't>)> = None;
    for name in names {
        let Some(place) = fields.take(name) else { continue };
        match &found {
            Some((first, _)) => reader.wrong(&place, format!("contradicts {first} beside it")),
            None => found = Some((name, place)),
        }
    }
    found
}

fn owned(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<String> {
    reader.text(place).map(str::to_owned)
}

/// What the mechanism itself refuses.
fn or_wrong<T, E: Display + CauseToo>(reader: &mut Reader<'_>, place: &Place<'_, '_>, made: Result<T, E>) -> Option<T> {
    made.map_err(|error| reader.wrong(place, format!("cannot be: {error}{}", error.cause_too())))
        .ok()
}

/// What an error does not say itself, since its source does.
trait CauseToo {
    fn cause_too(&self) -> String {
        String::new()
    }
}

impl CauseToo for InvalidRoute {
    fn cause_too(&self) -> String {
        std::error::Error::source(self).map_or_else(String::new, |source| format!(" ({source})"))
    }
}

impl CauseToo for crate::InvalidZonePreference {}
impl CauseToo for crate::InvalidSubsetting {}

#[cfg(test)]
mod tests {
    use crate::{
        HeaderMatch, InvalidRoute, MethodMatch, RouteRule, Routes, ServiceConfig, Split, Subset, Subsetting,
        ZonePreference,
    };

    fn config(additions: &str) -> ServiceConfig {
        format!("{{\"tessera\": {{{additions}}}}}").parse().expect(additions)
    }

    #[test]
    fn what_can_be_built_can_be_written() -> Result<(), InvalidRoute> {
        let read = config(
            r#""routes": [
                {"name": "staff", "method": "/p.S/M", "to": {"version": ">=2.0.0", "group": "g", "zone": "z", "tag": "t",
                    "metadata": {"k": "v"}},
                 "headers": [{"name": "x-staff", "exact": "yes"}, {"name": "a", "prefix": "b"},
                    {"name": "c", "present": true}, {"name": "d", "present": false}],
                 "caller": {"service": "shop", "zone": "here"}, "forced": true},
                {"name": "gray", "methodPrefix": "/p.", "stickyBy": "x-user", "split": [
                    {"weight": 5, "to": {"version": "^2"}}, {"weight": 95, "to": {}}]}
            ]"#,
        );
        let to = Subset::every()
            .version(">=2.0.0")?
            .group("g")
            .zone("z")
            .tag("t")
            .metadata("k", "v");
        let staff = RouteRule::new("staff", to)
            .method(MethodMatch::Exact("/p.S/M".to_owned()))
            .header(HeaderMatch::exact("x-staff", "yes")?)
            .header(HeaderMatch::prefix("a", "b")?)
            .header(HeaderMatch::present("c")?)
            .header(HeaderMatch::absent("d")?)
            .caller_service("shop")
            .caller_zone("here")
            .forced();
        let split =
            Split::try_new([(Subset::every().version("^2")?, 5), (Subset::every(), 95)])?.sticky_by("x-user")?;
        let gray = RouteRule::new("gray", split).method(MethodMatch::Prefix("/p.".to_owned()));
        assert_eq!(read.channel.routes, Some(Routes::try_new([staff, gray])?));
        assert_eq!(config(r#""routes": []"#).channel.routes, Some(Routes::default()));
        Ok(())
    }

    #[test]
    fn zones_and_subsets_too() {
        let read = config(
            r#""zonePreference": {"minInstances": 3, "callers": {"a": 2, "b": 1}}, "subset": {"size": 9, "seed": 4}"#,
        );
        let preference = ZonePreference::new().min_instances(3).callers([("a", 2), ("b", 1)]);
        assert_eq!(read.channel.zone_preference, Some(preference.ok()));
        let subsetting = Subsetting::try_new(9).map(|it| it.seed(4));
        assert_eq!(read.channel.subsetting, Some(subsetting.ok()));
        assert_eq!(
            config(r#""zonePreference": true"#).channel.zone_preference,
            Some(Some(ZonePreference::new()))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_line() {
        for (routes, expected) in [
            ("{\"name\": \"a\"}", "leads nowhere"),
            ("{\"to\": {}}", "routes[0] has no name"),
            ("{\"name\": \"\", \"to\": {}}", "a route needs a name"),
            (
                "{\"name\": \"a\", \"to\": {}, \"split\": []}",
                "split contradicts to beside it",
            ),
            ("{\"name\": \"a\", \"split\": []}", "a split has 1 to 16 parts, not 0"),
            (
                "{\"name\": \"a\", \"to\": {}, \"stickyBy\": \"x\"}",
                "stickyBy needs a split",
            ),
            (
                "{\"name\": \"a\", \"to\": {\"version\": \"two\"}}",
                "not a range of versions",
            ),
            ("{\"name\": \"a\", \"to\": {\"zon\": \"z\"}}", "did you mean zone?"),
            (
                "{\"name\": \"a\", \"to\": {}, \"method\": \"p.S/M\"}",
                "not a method's path",
            ),
            (
                "{\"name\": \"a\", \"to\": {}, \"method\": \"/a\", \"methodPrefix\": \"/a\"}",
                "methodPrefix contradicts method",
            ),
            (
                "{\"name\": \"a\", \"to\": {}, \"headers\": [{\"name\": \"a b\", \"present\": true}]}",
                "is not the name of a header",
            ),
            (
                "{\"name\": \"a\", \"to\": {}, \"headers\": [{\"name\": \"a\"}]}",
                "needs one of exact, prefix and present",
            ),
            (
                "{\"name\": \"a\", \"to\": {}}, {\"name\": \"a\", \"to\": {}}",
                "routes[1] is called \"a\", as another one",
            ),
            (
                "{\"name\": \"a\", \"split\": [{\"weight\": 1001, \"to\": {}}]}",
                "weight is 1001; it must be a number from 0 to 1000",
            ),
        ] {
            let text = format!("{{\"tessera\": {{\"routes\": [\n{routes}]}}}}");
            let error = text.parse::<ServiceConfig>().expect_err(routes).to_string();
            assert!(
                error.starts_with("line 2") && error.contains(expected),
                "{routes}: {error}"
            );
        }
        for (setting, expected) in [
            ("\"subset\": {\"size\": 1}", "at least 2 are needed"),
            ("\"subset\": true", "has no size"),
            ("\"zonePreference\": {\"callers\": {\"a\": 0}}", "at least one zone"),
        ] {
            let text = format!("{{\"tessera\": {{{setting}}}}}");
            let error = text.parse::<ServiceConfig>().expect_err(setting).to_string();
            assert!(error.contains(expected), "{setting}: {error}");
        }
    }

    #[test]
    fn an_instance_does_not_say_which_of_its_kind_are_called() {
        for setting in ["\"routes\": []", "\"subset\": false", "\"zonePreference\": true"] {
            let error = config(setting).into_announced().expect_err(setting).to_string();
            assert!(error.contains("is the caller's to set"), "{error}");
        }
        config("\"slowStart\": false, \"circuitBreaker\": true")
            .into_announced()
            .expect("what it can bear it may say");
    }
}
