//! Both backends pass the same suite.

mod memory {
    use mesh_sidecar::registry::{Memory, Registry};
    use std::sync::Arc;

    async fn make() -> Arc<dyn Registry> {
        Memory::new()
    }

    mesh_sidecar::registry_contract!(make);
}

mod consul {
    use crate::setup::at;
    use mesh_sidecar::registry::Registry;
    use std::sync::Arc;

    async fn make() -> Arc<dyn Registry> {
        at(&mesh_tests::consul::shared().await.url())
    }

    mesh_sidecar::registry_contract!(make);
}
