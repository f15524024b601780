//! Excerpts of Kong 3.9's schemas, in the form of `GET /schemas/…`.

use serde_json::{Value, json};

pub fn schema(kind: &str) -> Option<Value> {
    let tags = json!({"tags": {"type": "set", "elements": {"type": "string"}}});
    let text = |name: &str| json!({ name: {"type": "string"} });
    let with = |name: &str, kind: &str, default: Value| json!({ name: {"type": kind, "default": default} });
    let enabled = with("enabled", "boolean", json!(true));
    let fields = match kind {
        "services" => json!([
            text("name"), with("protocol", "string", json!("http")), text("host"), with("port", "integer", json!(80)),
            text("path"), with("retries", "integer", json!(5)), with("connect_timeout", "integer", json!(60000)),
            with("write_timeout", "integer", json!(60000)), with("read_timeout", "integer", json!(60000)),
            {"client_certificate": {"type": "foreign", "reference": "certificates"}}, {"tls_verify": {"type": "boolean"}},
            {"tls_verify_depth": {"type": "integer"}}, {"ca_certificates": {"type": "array"}}, enabled, tags,
        ]),
        "routes" => json!([
            text("name"), {"protocols": {"type": "set", "default": ["http", "https"], "elements": {"type": "string"}}},
            {"methods": {"type": "set", "elements": {"type": "string"}}}, {"hosts": {"type": "array"}}, {"paths": {"type": "array"}},
            {"headers": {"type": "map"}}, with("https_redirect_status_code", "integer", json!(426)),
            with("regex_priority", "integer", json!(0)), with("strip_path", "boolean", json!(true)),
            with("path_handling", "string", json!("v0")), with("preserve_host", "boolean", json!(false)),
            with("request_buffering", "boolean", json!(true)), with("response_buffering", "boolean", json!(true)),
            {"snis": {"type": "set"}}, {"sources": {"type": "set"}}, {"destinations": {"type": "set"}},
            {"service": {"type": "foreign", "reference": "services"}}, tags,
        ]),
        "upstreams" => json!([
            text("name"), with("algorithm", "string", json!("round-robin")), with("hash_on", "string", json!("none")),
            with("hash_fallback", "string", json!("none")), text("hash_on_header"), text("hash_fallback_header"), text("hash_on_cookie"),
            with("hash_on_cookie_path", "string", json!("/")), with("slots", "integer", json!(10000)),
            {"healthchecks": {"type": "record", "default": health(), "fields": [
                {"active": {"type": "record", "fields": [
                    with("type", "string", json!("http")), with("timeout", "number", json!(1)), with("concurrency", "integer", json!(10)),
                    with("http_path", "string", json!("/")), text("https_sni"), with("https_verify_certificate", "boolean", json!(true)),
                    {"headers": {"type": "map"}},
                    {"healthy": {"type": "record", "fields": [with("interval", "number", json!(0)), with("successes", "integer", json!(0)),
                        {"http_statuses": {"type": "array", "default": [200, 302], "elements": {"type": "integer"}}}]}},
                    {"unhealthy": {"type": "record", "fields": [with("interval", "number", json!(0)), with("tcp_failures", "integer", json!(0)),
                        with("timeouts", "integer", json!(0)), with("http_failures", "integer", json!(0)),
                        {"http_statuses": {"type": "array", "default": [429, 404, 500, 501, 502, 503, 504, 505], "elements": {"type": "integer"}}}]}},
                ]}},
                with("threshold", "number", json!(0)),
            ]}}, text("host_header"), with("use_srv_name", "boolean", json!(false)), tags,
        ]),
        "targets" => {
            json!([{"upstream": {"type": "foreign", "reference": "upstreams"}}, text("target"), with("weight", "integer", json!(100)), tags])
        }
        "filter_chains" => json!([
            text("name"), enabled, {"route": {"type": "foreign"}}, {"service": {"type": "foreign"}},
            {"filters": {"type": "array", "elements": {"type": "record", "fields": [text("name"), with("enabled", "boolean", json!(true)), {"config": {"type": "json"}}]}}}, tags,
        ]),
        "certificates" => json!([
            text("cert"),
            text("key"),
            text("cert_alt"),
            text("key_alt"),
            tags
        ]),
        "consumers" => json!([text("username"), text("custom_id"), tags]),
        _ => return None,
    };
    Some(json!({"fields": fields}))
}

/// Kong's schema shows a record's default whole.
fn health() -> Value {
    json!({"active": {"type": "http", "timeout": 1, "concurrency": 10, "http_path": "/", "https_verify_certificate": true,
        "healthy": {"interval": 0, "successes": 0, "http_statuses": [200, 302]},
        "unhealthy": {"interval": 0, "tcp_failures": 0, "timeouts": 0, "http_failures": 0, "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505]}},
        "threshold": 0})
}

pub fn plugin_schema(name: &str) -> Option<Value> {
    let config = match name {
        "rate-limiting" => json!([
            {"second": {"type": "number"}}, {"minute": {"type": "number"}}, {"hour": {"type": "number"}},
            {"limit_by": {"type": "string", "default": "consumer"}}, {"policy": {"type": "string", "default": "local"}},
            {"fault_tolerant": {"type": "boolean", "default": true}}, {"hide_client_headers": {"type": "boolean", "default": false}},
            {"error_code": {"type": "number", "default": 429}}, {"error_message": {"type": "string", "default": "API rate limit exceeded"}},
            {"redis": {"type": "record", "fields": [{"host": {"type": "string"}}, {"port": {"type": "integer", "default": 6379}}, {"password": {"type": "string"}}]}},
            {"sync_rate": {"type": "number", "default": -1}},
        ]),
        "cors" => json!([
            {"origins": {"type": "array", "elements": {"type": "string"}}}, {"methods": {"type": "array", "default": ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"], "elements": {"type": "string"}}},
            {"max_age": {"type": "number"}}, {"credentials": {"type": "boolean", "default": false}}, {"preflight_continue": {"type": "boolean", "default": false}},
        ]),
        _ => return None,
    };
    Some(json!({"fields": [
        {"name": {"type": "string"}}, {"enabled": {"type": "boolean", "default": true}}, {"instance_name": {"type": "string"}},
        {"service": {"type": "foreign"}}, {"route": {"type": "foreign"}}, {"consumer": {"type": "foreign"}},
        {"protocols": {"type": "set", "default": ["grpc", "grpcs", "http", "https"], "elements": {"type": "string"}}},
        {"config": {"type": "record", "fields": config}}, {"tags": {"type": "set", "elements": {"type": "string"}}},
    ]}))
}
