//! How many agents there are: by what waits in the queue of each.

use super::workload::Workload;
use crate::render::RenderError;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, ExternalMetricSource, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
    MetricIdentifier, MetricSpec, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;

/// The metric, as prometheus-adapter offers it.
const METRIC: &str = "agent_queue_messages_ready";
/// Most characters of a label's value in Kubernetes.
const LONGEST_LABEL: usize = 63;
/// Most agents of a kind where mesh.yaml does not say: against a queue that a fault fills.
const USUAL_MOST: u16 = 10;

/// The most of a workload that scales; none for one that does not.
pub(super) fn most(workload: &Workload) -> Option<u16> {
    workload.queue.as_ref()?;
    let container = &workload.container;
    let most = container
        .max_replicas
        .unwrap_or(USUAL_MOST.max(container.replicas));
    (most > container.replicas).then_some(most)
}

/// One more agent for as many waiting steps as one has at the same time, twice.
///
/// # Errors
/// [`RenderError::Container`] for a queue whose name is no value of a label.
pub(super) fn autoscaler(
    workload: &Workload,
) -> Result<Option<HorizontalPodAutoscaler>, RenderError> {
    let (Some(most), Some(queue)) = (most(workload), workload.queue.clone()) else {
        return Ok(None);
    };
    if queue.len() > LONGEST_LABEL {
        return Err(RenderError::Container(format!(
            "agent {}: its autoscaler finds the queue by a label, which holds {LONGEST_LABEL} characters, and {queue} has {}: \
             give the agent a shorter id, or say `max_replicas: {}` under its container for none",
            workload.of,
            queue.len(),
            workload.container.replicas.max(1),
        )));
    }
    let waiting = u32::from(workload.concurrency).saturating_mul(2);
    Ok(Some(HorizontalPodAutoscaler {
        metadata: workload.metadata(),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: workload.name.clone(),
            },
            min_replicas: Some(workload.container.replicas.max(1).into()),
            max_replicas: most.into(),
            metrics: Some(vec![MetricSpec {
                type_: "External".to_owned(),
                external: Some(ExternalMetricSource {
                    metric: MetricIdentifier {
                        name: METRIC.to_owned(),
                        selector: Some(LabelSelector {
                            match_labels: Some([("queue".to_owned(), queue)].into()),
                            ..LabelSelector::default()
                        }),
                    },
                    target: MetricTarget {
                        type_: "AverageValue".to_owned(),
                        average_value: Some(Quantity(waiting.to_string())),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                // A step that is under way is drained for half a minute: fewer come slowly.
                scale_down: Some(HPAScalingRules {
                    stabilization_window_seconds: Some(300),
                    policies: Some(vec![HPAScalingPolicy {
                        type_: "Pods".to_owned(),
                        value: 1,
                        period_seconds: 60,
                    }]),
                    ..HPAScalingRules::default()
                }),
                ..HorizontalPodAutoscalerBehavior::default()
            }),
        }),
        ..HorizontalPodAutoscaler::default()
    }))
}

#[derive(Serialize)]
struct Values {
    rules: Rules,
}

#[derive(Serialize)]
struct Rules {
    external: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    series_query: &'static str,
    resources: Resources,
    name: Name,
    metrics_query: &'static str,
}

#[derive(Serialize)]
struct Resources {
    namespaced: bool,
}

#[derive(Serialize)]
struct Name {
    r#as: &'static str,
}

/// Values for prometheus-adapter's chart: the length of a queue, from RabbitMQ's own metrics for each queue.
pub(super) fn adapter() -> Result<String, RenderError> {
    let values = Values {
        rules: Rules {
            external: vec![Rule {
                series_query: r#"rabbitmq_detailed_queue_messages_ready{queue=~"agent[.].+[.]tasks"}"#,
                // The broker's namespace is not the agents'.
                resources: Resources { namespaced: false },
                name: Name { r#as: METRIC },
                // Each node of a cluster tells its own part.
                metrics_query: "sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)",
            }],
        },
    };
    crate::render::yaml("prometheus-adapter.yaml", &values)
}
