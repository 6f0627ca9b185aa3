//! The comparison of the instances over the last interval (gRFC A50, "Ejection algorithms"). Pure.

use super::{EjectionReason, OutlierDetection, may_eject};

/// One instance's last interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) served: u32,
    pub(crate) failed: u32,
    pub(crate) in_service: bool,
}

impl Host {
    fn calls(self) -> u32 {
        self.served.saturating_add(self.failed)
    }

    fn success_rate(self) -> f64 {
        f64::from(self.served) / f64::from(self.calls().max(1))
    }
}

/// Who of `hosts` is to be ejected, and why. `draw` yields numbers in 0..1.
pub(crate) fn sweep(
    hosts: &[Host],
    config: &OutlierDetection,
    mut draw: impl FnMut() -> f64,
) -> Vec<(usize, EjectionReason)> {
    let mut found: Vec<(usize, EjectionReason)> = Vec::new();
    let out = hosts.iter().filter(|host| !host.in_service).count();
    let mut eject = |found: &mut Vec<(usize, EjectionReason)>, index: usize, why, enforcement: u8| {
        let open = hosts[index].in_service
            && !found.iter().any(|(other, _)| *other == index)
            && may_eject(out + found.len(), hosts.len(), config.max_ejection_percent);
        if open && draw() * 100.0 < f64::from(enforcement) {
            found.push((index, why));
        }
    };
    if let Some(rule) = config.success_rate {
        let asked = asked_enough(hosts, rule.request_volume);
        if asked.len() >= rule.minimum_hosts as usize && !asked.is_empty() {
            let count = asked.len() as f64;
            let mean = asked.iter().map(|index| hosts[*index].success_rate()).sum::<f64>() / count;
            let off = |index: &usize| (hosts[*index].success_rate() - mean).powi(2);
            let stdev = (asked.iter().map(off).sum::<f64>() / count).sqrt();
            let required = mean - stdev * f64::from(rule.stdev_factor) / 1000.0;
            for index in asked {
                if hosts[index].success_rate() < required {
                    eject(&mut found, index, EjectionReason::SuccessRate, rule.enforcement_percent);
                }
            }
        }
    }
    if let Some(rule) = config.failure_percentage {
        let asked = asked_enough(hosts, rule.request_volume);
        if asked.len() >= rule.minimum_hosts as usize {
            for index in asked {
                if (1.0 - hosts[index].success_rate()) * 100.0 > f64::from(rule.threshold_percent) {
                    eject(
                        &mut found,
                        index,
                        EjectionReason::FailurePercentage,
                        rule.enforcement_percent,
                    );
                }
            }
        }
    }
    found
}

fn asked_enough(hosts: &[Host], volume: u32) -> Vec<usize> {
    let enough = |(index, host): (usize, &Host)| (host.calls() >= volume).then_some(index);
    hosts.iter().enumerate().filter_map(enough).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{FailurePercentage, SuccessRate};

    fn host(served: u32, failed: u32) -> Host {
        Host {
            served,
            failed,
            in_service: true,
        }
    }

    fn found(hosts: &[Host]) -> Vec<(usize, EjectionReason)> {
        sweep(hosts, &OutlierDetection::default(), || 0.0)
    }

    #[test]
    fn who_is_far_worse_than_the_others_is_found() {
        let mut hosts = vec![host(199, 1); 20];
        hosts[3] = host(100, 100);
        assert_eq!(found(&hosts), [(3, EjectionReason::SuccessRate)]);
        // Everybody fails alike: nobody is an outlier, and half is not 85 %.
        assert_eq!(found(&[host(100, 100); 20]), []);
    }

    #[test]
    fn too_few_instances_or_calls_prove_nothing() {
        let mut few = vec![host(200, 0); 4];
        few[0] = host(0, 200);
        assert_eq!(found(&few), []);
        let mut little = vec![host(49, 0); 20];
        little[0] = host(0, 49);
        assert_eq!(found(&little), []);
        // Enough for the percentage, not for the rate.
        little
            .iter_mut()
            .for_each(|host| host.served += u32::from(host.served > 0));
        little[0] = host(0, 50);
        assert_eq!(found(&little), [(0, EjectionReason::FailurePercentage)]);
    }

    #[test]
    fn the_cap_counts_those_who_are_out_already() {
        let mut hosts = vec![host(200, 0); 20];
        for bad in [1, 2, 3] {
            hosts[bad] = host(0, 200);
        }
        assert_eq!(found(&hosts).len(), 2);
        hosts[1].in_service = false;
        assert_eq!(found(&hosts), [(2, EjectionReason::SuccessRate)]);
        hosts[2].in_service = false;
        assert_eq!(found(&hosts), []);
    }

    #[test]
    fn enforcement_is_by_draw() {
        let rule = FailurePercentage::try_new(85, 30, 5, 50).expect("valid");
        let config = OutlierDetection::default().success_rate(None).failure_percentage(rule);
        let mut hosts = vec![host(200, 0); 20];
        hosts[7] = host(0, 200);
        assert_eq!(
            sweep(&hosts, &config, || 0.29),
            [(7, EjectionReason::FailurePercentage)]
        );
        assert_eq!(sweep(&hosts, &config, || 0.30), []);
        let never = SuccessRate::try_new(1900, 0, 5, 100).expect("valid");
        assert_eq!(
            sweep(&hosts, &config.success_rate(never).failure_percentage(None), || 0.0),
            []
        );
    }

    proptest! {
        #[test]
        fn only_those_in_service_go_and_never_more_than_may(
            rows in prop::collection::vec((0_u32..300, 0_u32..300, any::<bool>()), 0..60), percent in 0_u8..=100,
        ) {
            let hosts: Vec<Host> =
                rows.into_iter().map(|(served, failed, in_service)| Host { served, failed, in_service }).collect();
            let config = OutlierDetection::default().max_ejection_percent(percent).expect("valid");
            let found = sweep(&hosts, &config, || 0.0);
            let out = hosts.iter().filter(|host| !host.in_service).count();
            prop_assert!(found.is_empty() || (out + found.len() - 1) * 100 < hosts.len() * usize::from(percent));
            let mut seen = std::collections::BTreeSet::new();
            for (index, _) in found {
                prop_assert!(hosts[index].in_service && hosts[index].failed > 0 && seen.insert(index));
            }
        }
    }
}
