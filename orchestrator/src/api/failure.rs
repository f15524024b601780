//! Refusals, as RFC 9457 problem details.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use mesh_protocol::problem::{self, FieldError, Problem};

/// A refusal, ready to be sent.
#[derive(Debug)]
pub struct Failure {
    problem: Box<Problem>,
    headers: HeaderMap,
}

impl Failure {
    fn new(status: StatusCode, name: &str, title: &str) -> Self {
        Self {
            problem: Box::new(Problem::new(status.as_u16(), name, title)),
            headers: HeaderMap::new(),
        }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.problem = Box::new(self.problem.with_detail(detail));
        self
    }

    fn header(mut self, name: http::HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// 400: the body is no JSON.
    pub fn not_json(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "not-json", "The body is not JSON").detail(detail)
    }

    /// 400: the body did not arrive.
    pub fn body_lost() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "body-incomplete",
            "The body did not arrive whole",
        )
    }

    /// 408: the body took too long.
    pub fn body_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-too-slow",
            "The body took too long",
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let mut failure = Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The body is too large",
        )
        .detail(format!("at most {limit} bytes are taken"));
        failure.problem.errors = vec![FieldError::new(
            "payload",
            "too_large",
            format!("the body may have {limit} bytes: send less payload"),
        )];
        failure
    }

    /// 400: the body is not of the shape that is taken here, and where.
    pub fn malformed(errors: Vec<FieldError>) -> Self {
        let mut failure = Self::new(
            StatusCode::BAD_REQUEST,
            "malformed",
            "The body is not of the shape that is taken here",
        );
        failure.problem.errors = errors;
        failure
    }

    /// 422.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let mut failure = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "wrong-fields",
            "The request has wrong fields",
        );
        failure.problem.errors = errors;
        failure
    }

    /// 400: the idempotency key is none.
    pub fn key_malformed(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "idempotency-key-malformed",
            "The Idempotency-Key is not one that is taken here",
        )
        .detail(detail)
    }

    /// 422: the idempotency key came with another body before.
    pub fn key_reused() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The Idempotency-Key was used for another task",
        )
        .detail("an earlier request brought this key with another body: a new task needs a new key")
    }

    /// 422: nobody takes this type of task.
    pub fn unknown_task_type(task_type: &str, known: &[String]) -> Self {
        let detail = if known.is_empty() {
            format!("no agent takes {task_type}, and none takes anything else")
        } else {
            format!("no agent takes {task_type}; known are {}", known.join(", "))
        };
        let mut failure = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown-task-type",
            "The task type is unknown",
        )
        .detail(detail.clone());
        failure.problem.errors = vec![FieldError::new("task_type", "unknown", detail)];
        failure
    }

    /// 422: the rules of this mesh make a plan that its bounds forbid.
    pub fn no_plan(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no-plan",
            "There is no sound plan for this task",
        )
        .detail(detail)
    }

    /// 401, RFC 6750: nothing says who is calling.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "Who is calling is not known",
        )
        .detail(detail)
        .header(WWW_AUTHENTICATE, "Bearer")
    }

    /// 403: may look, not touch.
    pub fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "This caller may only look at the task",
        )
    }

    /// 403: only the agent itself may.
    pub fn not_this_agent(agent: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "not-this-agent",
            "Only the agent itself may do this",
        )
        .detail(format!(
            "this must come through the sidecar of {agent}, or with an assertion whose subject is {agent}"
        ))
    }

    /// 422: the client's plan for several agents is wrong, and where.
    pub fn collaboration(errors: Vec<FieldError>) -> Self {
        let mut failure = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "wrong-collaboration",
            "The plan for several agents is not sound",
        );
        failure.problem.errors = errors;
        failure
    }

    /// 426: there is only a WebSocket here.
    pub fn no_websocket(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UPGRADE_REQUIRED,
            "websocket-required",
            "This path is a WebSocket",
        )
        .detail(detail)
        .header(http::header::UPGRADE, "websocket")
    }

    /// 403: the token lacks a scope.
    pub fn scope_missing(scope: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "scope-missing",
            "This caller may not do this",
        )
        .detail(format!("the scope {scope} is needed"))
    }

    /// 409: what is asked for is not free.
    pub fn resources_in_use() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "resources-in-use",
            "The resources are in use",
        )
        .detail("they were not free within wait_s: wait longer, or come again")
        .header(RETRY_AFTER, "1")
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found").detail(detail)
    }

    /// 404 for a task, which may well be there for others.
    pub fn no_task() -> Self {
        Self::not_found("there is no such task, or it has expired")
    }

    /// 405; `Allow` is added by the router.
    pub fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This path has other methods",
        )
    }

    /// 409: the task has ended.
    pub fn ended(status: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "task-ended", "The task has ended")
            .detail(format!("the task is {status}"))
    }

    /// 500: a stored task that cannot be read.
    pub fn corrupt() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "stored-task-unreadable",
            "The stored task cannot be read",
        )
    }

    /// A call to the model that is not made, or came to nothing. That is no fault of this orchestrator, and the answer
    /// says so: an agent that asks a broken model is to have its tasks and messages looked after all the same.
    pub fn model(
        status: StatusCode,
        code: &str,
        detail: impl Into<String>,
        retry_after: Option<u64>,
    ) -> Self {
        let name = format!("model-{}", code.replace('_', "-"));
        let mut failure = Self::new(status, &name, "The model cannot be asked").detail(detail);
        if status.is_server_error() {
            let behind = HeaderValue::from_static(problem::FAULT_BEHIND);
            failure.headers.insert(problem::HEADER_FAULT, behind);
        }
        if let Some(seconds) = retry_after {
            let value = HeaderValue::from(seconds);
            failure.headers.insert(RETRY_AFTER, value);
        }
        failure
    }

    /// The same with a member `error`, where clients of Ollama look; RFC 9457, section 3.2, allows for more
    /// members.
    pub fn for_ollama(self) -> Response {
        let problem = &self.problem;
        let said = problem.detail.as_ref().unwrap_or(&problem.title).clone();
        let mut body = serde_json::to_value(problem).unwrap_or_default();
        if let Some(members) = body.as_object_mut() {
            members.insert("error".to_owned(), said.into());
        }
        self.with_body(body.to_string().into_bytes())
    }

    /// 503, to be tried again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "temporary-reduced-capacity",
            "Try again later",
        )
        .detail(detail)
        .header(RETRY_AFTER, "1")
    }
}

impl Failure {
    /// What is said of it.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Whether the same may go well later.
    pub fn is_temporary(&self) -> bool {
        self.problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        self.with_body(body)
    }
}

impl Failure {
    fn with_body(self, body: Vec<u8>) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(problem::CONTENT_TYPE),
        );
        for (name, value) in self.headers {
            if let Some(name) = name {
                headers.insert(name, value);
            }
        }
        response
    }
}
