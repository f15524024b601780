//! One suite, every backend.

use futures_util::FutureExt;
use mesh_bus::contract::Connect;
use mesh_bus::{Bus, BusConfig};
use std::sync::Arc;

mod memory {
    use super::*;
    use mesh_bus::memory::MemoryBus;

    async fn broker() -> Box<Connect> {
        let broker = MemoryBus::new();
        Box::new(move || {
            let bus: Arc<dyn Bus> = Arc::new(broker.clone());
            async move { bus }.boxed()
        })
    }

    mesh_bus::bus_contract!(broker);
}

/// On the broker with this URL.
fn on(url: String) -> Box<Connect> {
    Box::new(move || {
        let config = BusConfig::Rabbitmq {
            url: url.clone().try_into().unwrap(),
        };
        async move { mesh_bus::connect(&config).await.unwrap() }.boxed()
    })
}

mod rabbitmq_3 {
    use super::*;

    async fn broker() -> Box<Connect> {
        on(mesh_tests::rabbitmq::shared().await.vhost().await)
    }

    mesh_bus::bus_contract!(broker);
}

mod rabbitmq_4 {
    use super::*;

    async fn broker() -> Box<Connect> {
        on(mesh_tests::rabbitmq::shared_four().await.vhost().await)
    }

    mesh_bus::bus_contract!(broker);
}
