//! How the targets of all pools are, as Prometheus sees it.

use crate::balance::Pool;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use std::sync::{Arc, Mutex, PoisonError};

/// The health of all targets, as it is when it is asked for.
#[derive(Clone)]
pub(crate) struct Pools {
    pools: Arc<Mutex<Vec<Arc<Pool>>>>,
    gauge: IntGaugeVec,
}

impl Pools {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauge = IntGaugeVec::new(
            Opts::new(
                "gateway_upstream_target_health",
                "1 for a target that may be used, by upstream and target",
            ),
            &["upstream", "target"],
        )?;
        Ok(Self {
            pools: Arc::default(),
            gauge,
        })
    }

    pub(crate) fn replace(&self, pools: Vec<Arc<Pool>>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }
}

impl Collector for Pools {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.reset();
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in &*pools {
            pool.show(&self.gauge);
        }
        self.gauge.collect()
    }
}
