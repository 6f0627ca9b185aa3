//! Which text a scraper is given. The registry writes OpenMetrics 1.0; the plain format 0.0.4, which every tool reads and a
//! browser shows, is made of that here. Not here: what is measured.

/// The kind of a text in OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The kind of a text in Prometheus' plain format.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn encode_for(accept: Option<&str>) -> (&'static str, String) {
    let text = super::encode();
    if accept.is_some_and(prefers_open_metrics) {
        (OPEN_METRICS, text)
    } else {
        (PLAIN, plain(&text))
    }
}

/// Whether OpenMetrics 1.0 is named and liked at least as well as plain text (RFC 9110, section 12.5.1). `*/*` names neither:
/// whoever sends only that reads the plain one.
fn prefers_open_metrics(accept: &str) -> bool {
    let best = |wanted: fn(&str, Option<&str>) -> bool| {
        accept
            .split(',')
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next()?;
                let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
                let of = |name: &str| {
                    let found = parameters.iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.trim().trim_matches('"'))
                };
                wanted(kind, of("version")).then(|| of("q").map_or(Some(1.0), |q| q.parse::<f64>().ok()))?
            })
            .fold(0.0, f64::max)
    };
    let open = best(|kind, version| {
        kind.eq_ignore_ascii_case("application/openmetrics-text") && version.is_none_or(|version| version == "1.0.0")
    });
    let plain = best(|kind, _| kind.eq_ignore_ascii_case("text/plain"));
    open > 0.0 && open >= plain
}

/// OpenMetrics text in the plain format: counters are called by their series' name, and there are no exemplars, units and end.
fn plain(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text.split_once(' ');
        } else if let Some(text) = line.strip_prefix("# TYPE ") {
            let (name, kind) = text.split_once(' ').unwrap_or((text, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                // Only OpenMetrics escapes quotation marks there.
                plain.push_str(&format!("# HELP {name}{suffix} {}\n", help.replace("\\\"", "\"")));
            }
            plain.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            plain.push_str(without_exemplar(line));
            plain.push('\n');
        }
    }
    plain
}

/// A sample without what follows ` # ` behind its labels; in a label's value that may be part of it.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, char) in line.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus_3, true),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"", true),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.5", true),
            ("application/openmetrics-text;q=0.2, text/plain", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;version=2.0.0", false),
            ("application/openmetrics-text;q=x", false),
            ("text/plain", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(prefers_open_metrics(accept), expected, "{accept}");
        }
    }

    #[test]
    fn the_plain_format_has_the_same_series_without_what_it_does_not_know() {
        let open = "# HELP calls Calls of \\\"all\\\" kinds.\n# TYPE calls counter\n# UNIT calls seconds\n\
                    calls_total{m=\"a # {\\\"\"} 3 # {trace_id=\"0af7\"} 1.0\n\
                    # HELP level Level.\n# TYPE level gauge\nlevel 1.5\n\
                    # TYPE odd unknown\nodd 1\n\
                    # HELP took Took.\n# TYPE took histogram\n\
                    took_bucket{le=\"0.1\"} 1 # {trace_id=\"0af7\"} 0.05\ntook_count 1\n# EOF\n";
        let expected = "# HELP calls_total Calls of \"all\" kinds.\n# TYPE calls_total counter\n\
                        calls_total{m=\"a # {\\\"\"} 3\n\
                        # HELP level Level.\n# TYPE level gauge\nlevel 1.5\n\
                        # TYPE odd untyped\nodd 1\n\
                        # HELP took Took.\n# TYPE took histogram\n\
                        took_bucket{le=\"0.1\"} 1\ntook_count 1\n";
        assert_eq!(plain(open), expected);
    }
}
