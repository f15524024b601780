//! interim
use crate::config::ServiceName;
use crate::registry::{Instance, Registry};
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) struct Known {
    pub instances: Vec<Instance>,
    pub state: State,
}
pub(crate) enum State {
    Unanswered { why: Option<String> },
    Fresh,
}
#[derive(Clone)]
pub(crate) struct Discovery(pub Arc<dyn Registry>);
impl Discovery {
    pub fn watch(&self, service: &ServiceName) -> watch::Receiver<Arc<Known>> {
        let (tx, rx) = watch::channel(Arc::new(Known { instances: vec![], state: State::Unanswered { why: None } }));
        let (registry, service) = (Arc::clone(&self.0), service.clone());
        tokio::spawn(async move {
            let mut after = None;
            loop {
                if let Ok(found) = registry.instances(&service, after).await {
                    after = Some(found.index);
                    if tx.send(Arc::new(Known { instances: found.list, state: State::Fresh })).is_err() { return }
                }
            }
        });
        rx
    }
}
