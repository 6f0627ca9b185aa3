//! What only a process that records spans measures.

use telemetry::metrics::{encode, histogram};

use crate::support::new_trace;

#[test]
fn a_sampled_trace_becomes_the_exemplar_of_its_bucket() {
    let (cx, id, _) = new_trace();
    let seconds = histogram("test_seconds", "Durations.", &[], &[0.1, 1.0]).with(&[]);
    seconds.observe(0.05);
    seconds.observe_in(0.5, &cx);
    let text = encode();
    assert!(text.contains("test_seconds_bucket{le=\"0.1\"} 1\n"), "{text}");
    assert!(
        text.contains(&format!(
            "test_seconds_bucket{{le=\"1.0\"}} 2 # {{trace_id=\"{id}\"}} 0.5"
        )),
        "{text}"
    );
}
