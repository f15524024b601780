//! For every alert, series at which it fires and series at which it does not.
//!
//! They last twenty minutes, one sample every 15 seconds: `a+bxn` is n more samples after a, each larger by b.

pub type Series = &'static [(&'static str, &'static str)];

/// An alert, the labels that it must have, series at which it fires, and those at which it does not.
pub type Case = (
    &'static str,
    &'static str,
    &'static [Series],
    &'static [Series],
);

pub const ALERTS: &[Case] = &[
    (
        "MeshAgentDown",
        r#"severity="critical", agent_name="multi-agent-coordinator""#,
        &[
            &[],
            &[(
                r#"up{job="ai-agents", agent_name="multi-agent-coordinator", instance="a"}"#,
                "0+0x80",
            )],
            &[(
                r#"up{job="ai-agents", agent_name="ai-agent-orchestrator", instance="a"}"#,
                "1+0x80",
            )],
        ],
        &[
            // One of two instances is enough.
            &[
                (
                    r#"up{job="ai-agents", agent_name="multi-agent-coordinator", instance="a"}"#,
                    "0+0x80",
                ),
                (
                    r#"up{job="ai-agents", agent_name="multi-agent-coordinator", instance="b"}"#,
                    "1+0x80",
                ),
            ],
        ],
    ),
    (
        "MeshPartDown",
        r#"severity="critical", job="consul", instance="c""#,
        &[&[(r#"up{job="consul", instance="c"}"#, "0+0x80")]],
        &[&[(r#"up{job="consul", instance="c"}"#, "1+0x80")]],
    ),
    (
        "MeshTargetsMissing",
        r#"severity="critical", job="cadvisor""#,
        &[&[], &[(r#"up{job="kong", instance="k"}"#, "1+0x80")]],
        &[&[(r#"up{job="cadvisor", instance="c"}"#, "0+0x80")]],
    ),
    (
        "MeshBrokerAway",
        r#"severity="critical", agent="a""#,
        &[&[(r#"sidecar_bus_connected{agent="a"}"#, "0+0x80")]],
        &[&[(r#"sidecar_bus_connected{agent="a"}"#, "1+0x80")]],
    ),
    (
        "MeshRegistryAway",
        r#"severity="warning", agent="a""#,
        &[&[(r#"sidecar_registry_up{agent="a"}"#, "0+0x80")]],
        &[&[(r#"sidecar_registry_up{agent="a"}"#, "1+0x64 0+0x16")]],
    ),
    (
        "MeshQueueWaitLong",
        r#"severity="warning", agent="a""#,
        &[&[
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="60"}"#,
                "0+9x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="300"}"#,
                "0+10x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="+Inf"}"#,
                "0+10x80",
            ),
        ]],
        &[&[
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="60"}"#,
                "0+96x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="300"}"#,
                "0+100x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="+Inf"}"#,
                "0+100x80",
            ),
        ]],
    ),
    (
        "MeshConsumerTimeoutNear",
        r#"severity="warning", agent="a""#,
        &[&[(r#"sidecar_ack_deadline_left_seconds{agent="a"}"#, "89+0x80")]],
        &[&[(r#"sidecar_ack_deadline_left_seconds{agent="a"}"#, "90+0x80")]],
    ),
    (
        "MeshDeadLetters",
        r#"severity="warning", agent="a", reason="poison""#,
        &[&[(
            r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
            "0+0x40 6+0x39",
        )]],
        &[
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
                "0+0x40 5+0x39",
            )],
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
                "6+0x80",
            )],
        ],
    ),
    (
        "MeshRetriesExhausted",
        r#"severity="warning", agent="a""#,
        &[&[(
            r#"sidecar_dead_letters_total{agent="a", reason="exhausted"}"#,
            "0+0x40 6+0x39",
        )]],
        &[
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="exhausted"}"#,
                "0+0x40 5+0x39",
            )],
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
                "0+0x40 6+0x39",
            )],
        ],
    ),
    (
        "MeshQueueGrowing",
        r#"severity="warning""#,
        &[&[(
            r#"rabbitmq_queue_messages_ready{instance="r"}"#,
            "6000+10x80",
        )]],
        &[
            &[(
                r#"rabbitmq_queue_messages_ready{instance="r"}"#,
                "9000-10x80",
            )],
            &[(
                r#"rabbitmq_queue_messages_ready{instance="r"}"#,
                "1000+10x80",
            )],
        ],
    ),
    (
        "MeshTaskErrors",
        r#"severity="critical""#,
        &[&[
            (r#"orchestrator_tasks_total{outcome="failed"}"#, "0+2x80"),
            (r#"orchestrator_tasks_total{outcome="completed"}"#, "0+8x80"),
        ]],
        &[
            &[
                (r#"orchestrator_tasks_total{outcome="failed"}"#, "0+1x80"),
                (
                    r#"orchestrator_tasks_total{outcome="completed"}"#,
                    "0+10x80",
                ),
            ],
            // Nothing ends: no share of it fails.
            &[(r#"orchestrator_tasks_total{outcome="failed"}"#, "7+0x80")],
        ],
    ),
    (
        "MeshRequestErrors",
        r#"severity="warning", service="gateway", peer="orchestrator""#,
        &[&[
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="503"}"#,
                "0+2x80",
            ),
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="200"}"#,
                "0+8x80",
            ),
        ]],
        &[&[
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="429"}"#,
                "0+2x80",
            ),
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="200"}"#,
                "0+8x80",
            ),
        ]],
    ),
    (
        "MeshBreakerOpen",
        r#"severity="warning", service="a", peer="b""#,
        &[&[(
            r#"sidecar_breaker_open{service="a", peer="b", direction="outbound"}"#,
            "1+0x80",
        )]],
        &[&[(
            r#"sidecar_breaker_open{service="a", peer="b", direction="outbound"}"#,
            "0+0x80",
        )]],
    ),
    (
        "MeshInstancesEjected",
        r#"severity="warning", service="a", peer="b""#,
        &[&[(
            r#"sidecar_ejections_total{service="a", peer="b", direction="outbound"}"#,
            "0+0x40 3+0x39",
        )]],
        &[&[(
            r#"sidecar_ejections_total{service="a", peer="b", direction="outbound"}"#,
            "0+0x40 2+0x39",
        )]],
    ),
    (
        "MeshRunsTakenOver",
        r#"severity="warning""#,
        &[&[(
            r#"orchestrator_runs_taken_up_total{instance="o"}"#,
            "0+0x40 2+0x39",
        )]],
        &[&[(
            r#"orchestrator_runs_taken_up_total{instance="o"}"#,
            "0+0x40 1+0x39",
        )]],
    ),
    (
        "MeshStoreEmptied",
        r#"severity="critical", instance="o""#,
        &[&[(
            r#"orchestrator_store_emptied_total{instance="o"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"orchestrator_store_emptied_total{instance="o"}"#,
            "1+0x80",
        )]],
    ),
    (
        "MeshStoreErrors",
        r#"severity="critical", instance="o""#,
        &[&[(r#"orchestrator_store_errors_total{instance="o"}"#, "0+1x80")]],
        // One hiccup, some minutes ago.
        &[&[(
            r#"orchestrator_store_errors_total{instance="o"}"#,
            "0+0x40 3+0x39",
        )]],
    ),
    (
        "MeshEventsDropped",
        r#"severity="warning", instance="o""#,
        &[&[(
            r#"orchestrator_events_dropped_total{instance="o"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"orchestrator_events_dropped_total{instance="o"}"#,
            "1+0x80",
        )]],
    ),
    (
        "MeshCertificateExpiring",
        r#"severity="critical", service="a""#,
        // It is 1200 then.
        &[&[(
            r#"sidecar_certificate_expiry_seconds{service="a"}"#,
            "8399+0x80",
        )]],
        &[
            &[(
                r#"sidecar_certificate_expiry_seconds{service="a"}"#,
                "8401+0x80",
            )],
            &[(
                r#"sidecar_certificate_expiry_seconds{service="a"}"#,
                "0+0x80",
            )],
        ],
    ),
    (
        "MeshFilterFailingOpen",
        r#"severity="critical", service="orchestrator""#,
        &[&[(
            r#"sidecar_refusals_total{service="orchestrator", agent="orchestrator", direction="inbound", reason="assertion_missing"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"sidecar_refusals_total{service="orchestrator", agent="orchestrator", direction="inbound", reason="no_intention"}"#,
            "0+0x40 9+0x39",
        )]],
    ),
    (
        "MeshFilterFailing",
        r#"severity="critical", filter="jwt_auth", instance="k""#,
        &[&[(
            r#"gateway_filter_failures_total{filter="jwt_auth", instance="k"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"gateway_filter_failures_total{filter="jwt_auth", instance="k"}"#,
            "3+0x80",
        )]],
    ),
    (
        "MeshAuditLost",
        r#"severity="warning", agent="a", reason="full""#,
        &[&[(
            r#"sidecar_audit_lost_total{agent="a", reason="full"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"sidecar_audit_lost_total{agent="a", reason="full"}"#,
            "0+0x80",
        )]],
    ),
    (
        "MeshModelBreakerOpen",
        r#"severity="warning", instance="o""#,
        &[&[(
            r#"orchestrator_model_breaker{instance="o", state="open"}"#,
            "1+0x80",
        )]],
        &[&[(
            r#"orchestrator_model_breaker{instance="o", state="half_open"}"#,
            "1+0x80",
        )]],
    ),
    (
        "MeshModelLineFull",
        r#"severity="warning", instance="o""#,
        &[&[(
            r#"orchestrator_model_calls_waiting{instance="o"}"#,
            "46+0x80",
        )]],
        &[&[(
            r#"orchestrator_model_calls_waiting{instance="o"}"#,
            "45+0x80",
        )]],
    ),
];
